//! How a process that answers others comes to its end: what it began for them is finished, what it did not begin is sent back.
//!
//! A command has the home only until its own work is done. Who asked it something meanwhile hears the answer to the last byte; who
//! comes later is told so before anything was begun, and asks again or takes the home. Something that takes hours (a mount) may be among
//! what was begun: then the gate opens again for a while, so that nobody is kept out for as long.

use std::time::Duration;

use tokio::sync::watch;

/// While the gate is shut, what was begun has so long to end. Chosen: most commands take less, and nobody minds to wait as long.
const SHUT: Duration = Duration::from_secs(2);

/// If it did not, the gate is open so long before it is shut again. Chosen: who comes is seldom the one who waits.
const OPEN: Duration = Duration::from_secs(10);

/// Counts what is being answered; once closed, nothing more begins.
#[derive(Debug, Default)]
pub struct Gate(watch::Sender<Flights>);

#[derive(Debug, Default)]
struct Flights {
    running: usize,
    shut: bool,
}

/// One answer, from its request to its last byte.
#[derive(Debug)]
pub struct Entered(watch::Sender<Flights>);

impl Gate {
    /// Begins an answer; `None` while the gate is shut.
    pub fn enter(&self) -> Option<Entered> {
        let entered = self.0.send_if_modified(|flights| {
            flights.running += usize::from(!flights.shut);
            !flights.shut
        });
        entered.then(|| Entered(self.0.clone()))
    }

    /// Shuts it for good when nothing is being answered; calls `late` when that takes long. May be dropped.
    pub async fn close_when_idle(&self, late: impl FnOnce()) {
        let mut late = Some(late);
        loop {
            self.shut();
            if tokio::time::timeout(SHUT, self.idle()).await.is_ok() {
                return;
            }
            if let Some(late) = late.take() {
                late();
            }
            self.0.send_modify(|flights| flights.shut = false);
            tokio::time::sleep(OPEN).await;
        }
    }

    /// Shuts it, whatever is being answered.
    pub fn shut(&self) {
        self.0.send_modify(|flights| flights.shut = true);
    }

    /// Waits until nothing is being answered. May be dropped.
    pub async fn idle(&self) {
        let mut flights = self.0.subscribe();
        let _sender_is_here = flights.wait_for(|flights| flights.running == 0).await;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.send_modify(|flights| flights.running -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_gate_shuts_for_good_when_the_last_is_through_and_opens_meanwhile() {
        let gate = std::sync::Arc::new(Gate::default());
        let long = gate.enter().unwrap();
        let closing = tokio::spawn({
            let gate = gate.clone();
            async move { gate.close_when_idle(|| {}).await }
        });
        tokio::time::sleep(SHUT / 2).await;
        assert!(gate.enter().is_none(), "who comes now is sent back");
        tokio::time::sleep(SHUT).await;
        drop(gate.enter().expect("nobody is kept out for long"));
        drop(long);
        closing.await.unwrap();
        assert!(gate.enter().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_come_all_the_time_keep_no_gate_open() {
        let gate = std::sync::Arc::new(Gate::default());
        let coming = |gate: std::sync::Arc<Gate>| async move {
            loop {
                let entered = gate.enter();
                tokio::time::sleep(Duration::from_millis(300)).await;
                drop(entered);
            }
        };
        (0..3).for_each(|_| drop(tokio::spawn(coming(gate.clone()))));
        tokio::time::sleep(SHUT / 4).await;
        tokio::time::timeout(SHUT, gate.close_when_idle(|| {})).await.unwrap();
    }
}
