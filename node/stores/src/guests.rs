//! What each member account may do here at once, whichever of its devices asks and whosever shares it asks for: so that none
//! can keep the others from being served.
//!
//! A lane that nothing goes on on gives way to the account's next one; its friend opens another when it needs one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::id::AccountId;
use proto::share_store::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Streams of one account that are served at once. Chosen: two lanes for each of four devices, and as many for reading what
/// others keep here.
const LANES_MAX: usize = 32;
/// Requests of one account being answered at once, puts not counted. Chosen: two lanes' worth.
const REQUESTS_MAX: usize = 32;
/// Shares received at once from all friends together, beside those that each may always send. Chosen: each holds at most three
/// frames in memory.
const RECEIVING_MAX: usize = 64;
/// Of those, one account's.
const RECEIVING_PER_ACCOUNT: usize = 16;
/// Shares that an account may send whatever the others do.
const RECEIVING_ALWAYS: usize = 2;

/// All accounts that are served now.
pub struct Guests {
    accounts: Mutex<HashMap<AccountId, Arc<Guest>>>,
    receiving: Arc<Semaphore>,
}

/// One account.
pub struct Guest {
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// Turns for answering its requests.
    pub requests: Semaphore,
    always: Arc<Semaphore>,
    most: Arc<Semaphore>,
    receiving: Arc<Semaphore>,
}

/// A lane that is served.
struct Lane {
    /// What goes on on it, and when that began or ended last, in no unit.
    state: Mutex<Activity>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Activity {
    going_on: usize,
    used: u64,
}

/// A lane's place; given back when dropped.
pub struct Seat {
    guest: Arc<Guest>,
    lane: Arc<Lane>,
}

/// Something goes on on a lane; until this is dropped.
pub struct Busy(Arc<Lane>);

/// Room for a share that is being received; given back when dropped.
pub struct Receiving {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Default for Guests {
    fn default() -> Self {
        Self {
            accounts: Mutex::default(),
            receiving: Arc::new(Semaphore::new(RECEIVING_MAX)),
        }
    }
}

impl Guests {
    /// Takes a place for a lane of `account`; the oldest idle one gives way, and if there is none, that is `Busy`.
    pub fn seat(&self, account: AccountId) -> Result<Seat, StoreError> {
        self.guest(account).seat()
    }

    fn guest(&self, account: AccountId) -> Arc<Guest> {
        let mut accounts = lock(&self.accounts);
        // Those who are gone: there are never more than members that are here.
        accounts.retain(|known, guest| *known == account || Arc::strong_count(guest) > 1);
        let guest = accounts.entry(account).or_insert_with(|| {
            Arc::new(Guest {
                lanes: Mutex::default(),
                requests: Semaphore::new(REQUESTS_MAX),
                always: Arc::new(Semaphore::new(RECEIVING_ALWAYS)),
                most: Arc::new(Semaphore::new(RECEIVING_PER_ACCOUNT)),
                receiving: self.receiving.clone(),
            })
        });
        guest.clone()
    }
}

impl Guest {
    fn seat(self: &Arc<Self>) -> Result<Seat, StoreError> {
        let mut lanes = lock(&self.lanes);
        if lanes.len() >= LANES_MAX {
            let idle = lanes.iter().enumerate().filter_map(|(number, lane)| {
                let state = lock(&lane.state);
                (state.going_on == 0).then_some((state.used, number))
            });
            let Some((_, oldest)) = idle.min() else {
                let retry_after = std::time::Duration::from_secs(1);
                return Err(StoreError::Busy { retry_after });
            };
            lanes.swap_remove(oldest).stop.cancel();
        }
        let lane = Arc::new(Lane {
            state: Mutex::new(Activity {
                going_on: 0,
                used: next(),
            }),
            stop: CancellationToken::new(),
        });
        lanes.push(lane.clone());
        drop(lanes);
        Ok(Seat {
            guest: self.clone(),
            lane,
        })
    }

    /// Waits for a turn to send a share here.
    pub async fn receive(&self) -> Receiving {
        let never_closed = "the turns are never closed";
        let shared = async {
            let own = self.most.clone().acquire_owned().await.expect(never_closed);
            let all = self.receiving.clone().acquire_owned().await.expect(never_closed);
            [Some(own), Some(all)]
        };
        let always = async {
            let own = self.always.clone().acquire_owned().await.expect(never_closed);
            [Some(own), None]
        };
        let permits = tokio::select! {
            biased;
            permits = shared => permits,
            permits = always => permits,
        };
        Receiving { _permits: permits }
    }
}

impl Seat {
    /// Whose it is.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Something goes on.
    pub fn busy(&self) -> Busy {
        lock(&self.lane.state).going_on += 1;
        Busy(self.lane.clone())
    }

    /// Waits until the lane has to give way.
    pub async fn given_up(&self) {
        self.lane.stop.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.guest.lanes).retain(|lane| !Arc::ptr_eq(lane, &self.lane));
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.going_on -= 1;
        state.used = next();
    }
}

fn next() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Nothing here can be left half done by a panic.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const ADA: AccountId = AccountId([1; 32]);
    const BOB: AccountId = AccountId([2; 32]);

    #[test]
    fn the_idle_lane_that_was_used_longest_ago_gives_way_and_one_in_use_never() {
        let guests = Guests::default();
        let seats: Vec<Seat> = (0..LANES_MAX).map(|_| guests.seat(ADA).unwrap()).collect();
        let gone = |number: usize| seats[number].given_up().now_or_never().is_some();
        let _busy = seats[0].busy();
        drop(seats[1].busy());
        let _more = guests.seat(ADA).unwrap();
        assert!(!gone(0) && !gone(1) && gone(2) && !gone(3));
        assert!(guests.seat(BOB).is_ok());
    }

    #[test]
    fn when_all_lanes_are_in_use_one_more_is_told_to_wait_and_a_place_given_back_is_free() {
        let guests = Guests::default();
        let mut seats: Vec<Seat> = (0..LANES_MAX).map(|_| guests.seat(ADA).unwrap()).collect();
        let busy: Vec<Busy> = seats.iter().map(Seat::busy).collect();
        assert!(matches!(guests.seat(ADA), Err(StoreError::Busy { .. })));
        drop((seats.pop(), busy));
        assert!(guests.seat(ADA).is_ok());
    }

    #[test]
    fn whatever_some_send_everybody_may_send_something() {
        let guests = Guests::default();
        let take = |account: AccountId| guests.guest(account).receive().now_or_never();
        let mut held = Vec::new();
        for account in (0..).map(|number| AccountId([number; 32])).take(RECEIVING_MAX) {
            held.extend(std::iter::from_fn(|| take(account)).take(RECEIVING_MAX));
        }
        assert!(held.len() >= RECEIVING_MAX + RECEIVING_MAX * RECEIVING_ALWAYS);
        drop(held);
        let of_one: Vec<Receiving> = std::iter::from_fn(|| take(ADA)).collect();
        assert_eq!(of_one.len(), RECEIVING_PER_ACCOUNT + RECEIVING_ALWAYS);
    }
}
