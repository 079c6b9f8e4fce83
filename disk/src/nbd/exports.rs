//! What a server shows: devices by name.

use std::sync::Arc;

use crate::device::Device;

/// Largest export: clients count bytes with signed numbers, the kernel and QEMU among them.
pub const EXPORT_BYTES_MAX: u64 = i64::MAX as u64;

/// A device under a name.
#[derive(Clone)]
pub struct Export {
    /// Its canonical name: what is asked for by another name, the empty one for instance, is the same export.
    pub name: String,
    /// Words for people; may be empty.
    pub description: String,
    /// The device.
    pub device: Arc<dyn Device>,
}

/// All exports of a server. May change while it runs.
pub trait Exports: Send + Sync + 'static {
    /// The names that are told to whom asks for a list.
    fn names(&self) -> Vec<String>;

    /// The export of this name; the empty name is the default's, if there is one.
    fn find(&self, name: &str) -> Option<Export>;
}

/// Exports that stay the same; the first one is the default.
pub struct FixedExports(pub Vec<Export>);

impl Exports for FixedExports {
    fn names(&self) -> Vec<String> {
        self.0.iter().map(|export| export.name.clone()).collect()
    }

    fn find(&self, name: &str) -> Option<Export> {
        let is_it = |export: &&Export| name.is_empty() || export.name == name;
        self.0.iter().find(is_it).cloned()
    }
}
