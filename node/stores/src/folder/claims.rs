//! One writer per name: two puts of one share at the same time become one after the other.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard};

use proto::id::ShareId;

/// The names being written now.
#[derive(Default)]
pub struct Claims {
    taken: Mutex<HashSet<[u8; 32]>>,
    freed: Condvar,
}

/// A name held until this is dropped.
pub struct Claim<'a> {
    claims: &'a Claims,
    name: [u8; 32],
}

impl Claims {
    /// Waits until nobody writes `id`, then holds it. For blocking threads only.
    pub fn claim(&self, id: ShareId) -> Claim<'_> {
        self.claim_name(id.0)
    }

    /// As `claim`, for anything else named by 32 bytes that cannot be mistaken for a share.
    pub fn claim_name(&self, name: [u8; 32]) -> Claim<'_> {
        let mut taken = self.lock();
        while !taken.insert(name) {
            taken = self.freed.wait(taken).expect("no panic while the claims are locked");
        }
        Claim { claims: self, name }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.taken.lock().expect("no panic while the claims are locked")
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.name);
        self.claims.freed.notify_all();
    }
}
