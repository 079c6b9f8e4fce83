//! Archives of entries, written in one pass to anything that takes bytes. What is in them, and where it comes from, is not
//! known here: that is `restore::export`.

use std::io;

use proto::log_record::Entry;

mod acl;
mod tar;
mod zip;

pub use tar::Tar;
pub use zip::Zip;

/// A path on its way into an archive.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Relative, without a slash at either end; empty: the folder that everything else lies in.
    pub path: &'a [u8],
    /// What it is.
    pub entry: &'a Entry,
    /// Bytes of content that follow, if it is a file.
    pub bytes: u64,
    /// The path under which the same file came already, if it has several names.
    pub first_name: Option<&'a [u8]>,
}

/// An archive that is being written.
pub trait Archive {
    /// It can say that a path is another name of one that came before.
    fn has_links(&self) -> bool;
    /// Begins a path; whether it has a place for such a thing. Exactly its bytes of content follow, if it is a file and no
    /// other name of one.
    fn begin(&mut self, member: &Member<'_>) -> io::Result<bool>;
    /// The next piece of content.
    fn content(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Ends the path.
    fn end(&mut self) -> io::Result<()>;
    /// Ends the archive.
    fn finish(&mut self) -> io::Result<()>;
}
