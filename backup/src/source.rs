//! Files of this machine as the source of a backup: folders listed, entries examined, contents read once.
//!
//! The scanner and the preparer look at the machine through here alone; what is done with what they find is not known here.

pub(crate) mod listing;

pub(crate) mod details;
pub(crate) mod read_file;

pub(crate) mod long_path;
