//! What the entry document is made of: for the targets in `fuzz`, and nobody else.

pub use super::resource::{Entry, Field, Link};
pub use crate::request::field::Kind;
