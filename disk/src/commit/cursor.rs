//! Reading fixed fields out of bytes that somebody else wrote.

use super::CommitError;

/// Bytes that are taken from the front.
pub(super) struct Cursor<'a> {
    /// What they are of, for errors.
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], CommitError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| self.is_short())?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn take_u16(&mut self) -> Result<u16, CommitError> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    pub fn take_u32(&mut self) -> Result<u32, CommitError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub fn take_u64(&mut self) -> Result<u64, CommitError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn is_short(&self) -> CommitError {
        CommitError::malformed(self.what, "it is too short")
    }
}
