//! Shares on their way: how long a line takes for them, and what may become of them.

use crate::care::repair::Copy;
use crate::care::standing::Standing;
use crate::peers::PeerKey;
use crate::simulate::events::Event;
use crate::simulate::state::{By, Grid, Transfer, WINDOW_SECS};

/// How soon a sender tries again when the receiver is off.
const RETRY_SECS: u64 = 2 * 3600;
/// A line is not counted on for less than this part of the time.
const DUTY_MIN: f64 = 0.05;

impl Grid<'_> {
    /// Begins to send a share: to build or fetch it, then to send it, one after the other over the sender's line.
    pub(super) fn send(&mut self, pack: usize, index: u8, to: usize, by: By, from: Option<usize>) {
        let state = &mut self.packs[pack].state;
        let peer = self.nodes[to].key.clone();
        state.on_the_way.push(Copy { index, peer });
        let bytes = state.stored_bytes as f64;
        let receiver = self.nodes[to].friend.habit.uptime();
        let (uplink, duty, free_secs, fetch) = match by {
            By::Owner => (
                self.scenario.uplink,
                self.scenario.owner.uptime(),
                &mut self.owner.link_free_secs,
                0.0,
            ),
            By::Friend(number) => {
                let source = from.map_or(self.scenario.uplink, |from| self.nodes[from].friend.uplink);
                let node = &mut self.nodes[number];
                (
                    node.friend.uplink,
                    node.friend.habit.uptime(),
                    &mut node.link_free_secs,
                    bytes / source.max(1) as f64,
                )
            }
        };
        let seconds = (fetch + bytes / uplink.max(1) as f64) / (duty * receiver).max(DUTY_MIN);
        *free_secs = (*free_secs).max(self.now) + seconds as u64 + 1;
        self.queue.add(*free_secs, Event::Arrive(self.transfers.len()));
        self.transfers.push(Transfer {
            pack,
            index,
            to,
            by,
            is_open: true,
        });
    }

    /// What a sender had begun is not finished.
    pub(super) fn abandon(&mut self, by: By) {
        let of_sender: Vec<usize> = (0..self.transfers.len())
            .filter(|&number| self.transfers[number].is_open && self.transfers[number].by == by)
            .collect();
        for number in of_sender {
            self.close(number);
        }
    }

    /// Bytes that are on their way to a friend.
    pub(super) fn promised(&self, key: &PeerKey) -> u64 {
        let open = self.packs.iter().flat_map(|pack| {
            let on_the_way = pack.state.on_the_way.iter();
            on_the_way.map(|copy| (copy, pack.state.stored_bytes))
        });
        open.filter(|(copy, _)| copy.peer == *key).map(|(_, bytes)| bytes).sum()
    }

    pub(super) fn arrive(&mut self, number: usize) {
        let Transfer {
            pack,
            index,
            to,
            by,
            is_open,
        } = self.transfers[number];
        if !is_open {
            return;
        }
        let (sender_up, standing) = match by {
            By::Owner => (self.owner.is_up(), self.owner.standing(&self.nodes[to])),
            By::Friend(sender) => (self.nodes[sender].answers(), Standing::Good),
        };
        let is_void = !self.nodes[to].is_listed || self.packs[pack].is_retired || standing == Standing::Lost;
        // A dead friend looks like one that is off, until it is lost or replaced.
        if !(is_void || sender_up && self.nodes[to].answers()) {
            self.queue.add(self.now + RETRY_SECS, Event::Arrive(number));
            return;
        }
        self.close(number);
        if is_void || (by != By::Owner && !self.can_build(pack)) {
            return;
        }
        let bytes = self.packs[pack].state.stored_bytes;
        self.check_repeat(pack, index, to);
        if !self.nodes[to].put(pack, index, bytes, self.now, &mut self.random) {
            self.report.refused += 1;
            return;
        }
        let peer = self.nodes[to].key.clone();
        self.packs[pack].state.copies.push(Copy { index, peer });
        if let Some(since) = self.packs[pack].gone_since[usize::from(index)].take() {
            self.report.repairs.add(self.now - since);
        }
    }

    fn can_build(&self, pack: usize) -> bool {
        let since = self.now.saturating_sub(WINDOW_SECS);
        self.reachable(pack, since) >= u32::from(self.packs[pack].state.k)
    }

    fn close(&mut self, number: usize) {
        let transfer = &mut self.transfers[number];
        transfer.is_open = false;
        let (index, key) = (transfer.index, &self.nodes[transfer.to].key);
        let on_the_way = &mut self.packs[transfer.pack].state.on_the_way;
        on_the_way.retain(|copy| copy.index != index || copy.peer != *key);
        self.owner.has_news = true;
    }
}
