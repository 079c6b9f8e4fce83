//! What fetching has cost, who served, and how quickly: whom to doubt is decided from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use upload_queue::peers::PeerKey;

/// A peer is doubted after this time while nothing is known of how fast peers are. Chosen: a slow uplink costs a few shares
/// fetched twice until its pace is known, a peer that hangs one second.
const HEDGE_FIRST: Duration = Duration::from_secs(1);
/// And when it takes so many times the median, but never earlier than this. Chosen: half a second is nothing beside a
/// restore, and longer than a disk needs to wake up a line.
const HEDGE_MEDIANS: u32 = 3;
const HEDGE_MIN: Duration = Duration::from_millis(500);
/// Gets that the median is taken of, at least and at most. Chosen: a pack's worth, and a few packs' worth.
const LATENCIES_MIN: usize = 3;
const LATENCIES_KEPT: usize = 64;
/// Gets longer than this are compared with one another only. Chosen: on a home uplink the round trip counts up to here, the
/// transfer beyond.
const LONG_BYTES: u32 = 512 << 10;
/// A peer that took too long is asked last for so long. Chosen: then it has another chance.
const SLOW: Duration = Duration::from_secs(60);
/// A peer that did not answer is left alone for so long, unless nothing else helps. Chosen.
const DOWN: Duration = Duration::from_secs(60);

/// What fetching has cost and found so far.
#[derive(Clone, Debug, Default)]
pub struct FetchStats {
    /// Bytes fetched from peers.
    pub bytes_fetched: u64,
    /// Ranges of shares asked for and served: each is a round trip to a peer.
    pub ranges_fetched: u64,
    /// Names of the peers that served.
    pub peers_used: BTreeSet<String>,
    /// Names of the peers that served damaged shares, with what was wrong.
    pub peers_bad: BTreeMap<String, String>,
    pub(super) answers: Answers,
}

/// How peers have answered in this run.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    /// Of short gets and of long ones.
    latencies: [VecDeque<Duration>; 2],
    down_since: BTreeMap<PeerKey, Instant>,
    slow_since: BTreeMap<PeerKey, Instant>,
}

impl Answers {
    /// A get of so many bytes was answered.
    pub(super) fn answered(&mut self, peer: &PeerKey, bytes: u32, took: Duration) {
        self.down_since.remove(peer);
        let latencies = &mut self.latencies[usize::from(bytes > LONG_BYTES)];
        if latencies.len() == LATENCIES_KEPT {
            latencies.pop_front();
        }
        latencies.push_back(took);
    }

    /// A get was not answered.
    pub(super) fn was_down(&mut self, peer: &PeerKey) {
        self.down_since.insert(peer.clone(), Instant::now());
    }

    /// A get took longer than those of others.
    pub(super) fn was_slow(&mut self, peer: &PeerKey) {
        self.slow_since.insert(peer.clone(), Instant::now());
    }

    /// Whether it is left alone for now.
    pub(super) fn is_down(&self, peer: &PeerKey) -> bool {
        self.down_since.get(peer).is_some_and(|since| since.elapsed() < DOWN)
    }

    /// Whether it is asked last for now.
    pub(super) fn is_slow(&self, peer: &PeerKey) -> bool {
        self.slow_since.get(peer).is_some_and(|since| since.elapsed() < SLOW)
    }

    /// How long to wait for so many bytes before others are asked too.
    pub(super) fn hedge_after(&self, bytes: u32) -> Duration {
        let latencies = &self.latencies[usize::from(bytes > LONG_BYTES)];
        if latencies.len() < LATENCIES_MIN {
            return HEDGE_FIRST;
        }
        let mut sorted: Vec<Duration> = latencies.iter().copied().collect();
        sorted.sort_unstable();
        HEDGE_MIN.max(HEDGE_MEDIANS * sorted[sorted.len() / 2])
    }
}
