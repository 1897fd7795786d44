//! Bytes that do not stay in memory.

use crate::sys;
use std::ops::{Deref, DerefMut};

/// Bytes that are wiped when dropped, with whatever room beside them. In one go: zeroize writes byte
/// after byte, which was a third of all instructions of a mount (counted).
pub struct Secret(Vec<u8>);

impl Secret {
    /// As many zeros, to read into.
    #[must_use]
    pub fn zeros(size: usize) -> Self {
        Self(vec![0; size])
    }

    /// Leaves the first bytes.
    pub fn truncate(&mut self, size: usize) {
        self.0.truncate(size);
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Secret {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        sys::wipe(&mut self.0);
    }
}
