//! The file that says what a folder is of: keys of the journal, the last commit, and the one that is offered.

use std::fs;
use std::path::Path;

use durable::state_file;
use minicbor::{Decode, Encode};
use proto::head::RootRef;
use zeroize::Zeroizing;

use super::error::OpenError;
use crate::device::DeviceError;

/// The version of the writer's file that is written, and the only one read.
const VERSION: u16 = 1;
/// Name of the writer's file.
pub(super) const WRITER: &str = "writer";

/// What the folder is of.
#[derive(Clone, Encode, Decode)]
pub(super) struct WriterFile {
    #[n(0)]
    pub version: u16,
    /// The volume.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub volume: [u8; 16],
    /// What the journal's keys are derived from.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub secret: [u8; 32],
    /// The journal.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub journal: [u8; 16],
    /// The last commit that was accepted, as far as it is known here.
    #[n(4)]
    pub commit: u64,
    /// Where its root lies.
    #[n(5)]
    pub at: Option<RootRef>,
    /// The commit after it, if peers may have been asked to take that: no other one gets its number.
    #[n(6)]
    pub offered: Option<(u64, RootRef)>,
}

impl WriterFile {
    /// Of a folder that is new.
    pub fn new(volume: [u8; 16]) -> Result<Self, OpenError> {
        Ok(Self {
            version: VERSION,
            volume,
            secret: random()?,
            journal: random()?,
            commit: 0,
            at: None,
            offered: None,
        })
    }
}

fn random<const N: usize>() -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| OpenError::Random(error.to_string()))?;
    Ok(bytes)
}

/// What was read of the file.
pub(super) struct Known {
    pub file: WriterFile,
    /// It is as it was written last, and not as before that.
    pub is_newest: bool,
}

impl Known {
    /// Whether the commit with this root is the folder's own: the last that was accepted, or the one that was offered. Of two with one
    /// number, or of later ones, another machine has made one, or a copy of this folder.
    pub fn has_made(&self, commit: u64, at: &RootRef) -> bool {
        let is = |number: u64, root: &RootRef| (number, root) == (commit, at);
        let accepted = self.file.at.as_ref().is_some_and(|root| is(self.file.commit, root));
        accepted
            || self
                .file
                .offered
                .as_ref()
                .is_some_and(|(number, root)| is(*number, root))
    }
}

pub(super) fn read(folder: &Path, volume: [u8; 16]) -> Result<Option<Known>, OpenError> {
    let path = folder.join(WRITER);
    let decode = |bytes: &[u8]| {
        let file: WriterFile = minicbor::decode(bytes).map_err(|error| error.to_string())?;
        match file.version {
            VERSION => Ok(file),
            version => Err(format!("version {version} is not known to this gridbackup")),
        }
    };
    match state_file::read(&path, decode) {
        (Some(file), lost) if file.volume == volume => Ok(Some(Known {
            file,
            is_newest: lost.is_none(),
        })),
        (Some(_), _) => Err(OpenError::OtherVolume {
            folder: folder.to_owned(),
        }),
        // Its journal cannot be read without the file, and may be all that there is of what was written last.
        (None, None) if has_journal(folder)? => Err(OpenError::Damaged {
            path,
            reason: "it is missing".to_owned(),
        }),
        (None, None) => Ok(None),
        (None, Some(lost)) => Err(OpenError::Damaged {
            path,
            reason: lost.to_string(),
        }),
    }
}

fn has_journal(folder: &Path) -> Result<bool, OpenError> {
    Ok(fs::read_dir(folder.join("journal"))?.next().is_some())
}

pub(super) fn write(folder: &Path, writer: &WriterFile) -> Result<(), DeviceError> {
    let bytes = Zeroizing::new(proto::record::to_cbor(writer));
    Ok(state_file::replace(&folder.join(WRITER), &bytes)?)
}
