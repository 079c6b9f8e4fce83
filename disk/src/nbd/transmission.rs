//! The transmission phase of one connection: what one reading of the socket brought is worked on together, and answered.
//!
//! All changes of a batch are one `apply`, made here; reads that can be had at once are made here, too. What takes time (flushes,
//! reads of what is at peers, long reads) goes on beside, so that the requests that follow are not held up; their replies come when
//! they are ready. Everything under way is bounded: so many tasks, and so many bytes of replies that the client does not take.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::device::{Change, Device, DeviceError};
use crate::nbd::inbox::{Inbox, Item};
use crate::nbd::outbox::{Cut, Outbox};
use crate::nbd::reading;
use crate::nbd::reply::{Failed, put_done, put_failed};
use crate::nbd::request::{Command, Cookie, Request, Terms};
use crate::nbd::sessions::Session;

/// Most tasks beside a connection.
const TASKS_MAX: usize = 64;
/// Replies are sent when there are so many bytes of them, else when the batch is done.
const OUT_BYTES: usize = 256 << 10;
/// What a change counts for beside its bytes when room is asked for: its place in the journal.
const CHANGE_BYTES: u64 = 64;
/// How often it is looked whether the client is still there while its changes wait for room.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long requests under way may take after the client's farewell, or the server's.
const FINISH_WAIT: Duration = Duration::from_secs(30);

/// A connection that was let in.
pub struct Transmission<'a> {
    outbox: Arc<Outbox>,
    session: &'a Session,
    stop: &'a CancellationToken,
    /// Where the device's work is done: its tasks outlive this connection.
    beside: Handle,
    tasks: JoinSet<Result<(), Cut>>,
    inbox: Inbox,
    out: Vec<u8>,
    /// A piece of the write that is being received failed so.
    failed_write: Option<Failed>,
}

/// Whether more is taken from the client.
#[derive(PartialEq, Eq)]
enum Then {
    Goes,
    Ends,
}

impl<'a> Transmission<'a> {
    /// With what was agreed on.
    pub fn new(
        device: Arc<dyn Device>,
        terms: Terms,
        writer: Box<dyn AsyncWrite + Send + Unpin>,
        session: &'a Session,
        stop: &'a CancellationToken,
        beside: Handle,
    ) -> Self {
        Self {
            outbox: Arc::new(Outbox::new(device, terms, writer)),
            session,
            stop,
            beside,
            tasks: JoinSet::new(),
            inbox: Inbox::new(),
            out: Vec::new(),
            failed_write: None,
        }
    }

    /// Runs it to its end. Nothing of it is under way any more then. Not to be dropped before.
    pub async fn run(mut self, reader: &mut (dyn AsyncRead + Send + Unpin)) {
        let cut = self.session.cut().clone();
        let worked = tokio::select! {
            worked = self.work(reader) => worked,
            () = cut.cancelled() => Err(Cut),
        };
        if worked.is_ok() {
            // "The server MUST handle all outstanding requests."
            let all = async { while !matches!(self.tasks.join_next().await, None | Some(Ok(Err(Cut)) | Err(_))) {} };
            tokio::select! {
                _late = tokio::time::timeout(FINISH_WAIT, all) => {}
                () = cut.cancelled() => {}
            }
        }
        self.tasks.shutdown().await;
    }

    async fn work(&mut self, reader: &mut (dyn AsyncRead + Send + Unpin)) -> Result<(), Cut> {
        loop {
            let items = self.inbox.batch(&self.outbox.terms).map_err(|_| Cut)?;
            if items.is_empty() {
                tokio::select! {
                    filled = self.inbox.fill(reader) => if filled? == 0 { return Err(Cut) },
                    () = self.stop.cancelled() => return Ok(()),
                    Some(task) = self.tasks.join_next() => ended(task)?,
                }
            } else if self.serve(&items).await? == Then::Ends {
                return Ok(());
            }
        }
    }

    /// Does all of a batch, and answers what can be answered.
    async fn serve(&mut self, items: &[Item]) -> Result<Then, Cut> {
        let mut failures = self.change(items).await?.into_iter();
        let (mut then, mut lasting) = (Then::Goes, Vec::new());
        for item in items {
            let failed = match change(&self.inbox, item) {
                Some(_) => failures.next().flatten(),
                None => None,
            };
            match item {
                Item::Refused(request, errno) => self.fail(request, &Failed::from(*errno)),
                Item::Piece { request, is_last, .. } => {
                    self.failed_write = self.failed_write.take().or(failed);
                    if *is_last {
                        let failed = self.failed_write.take();
                        self.changed(request, failed, &mut lasting);
                    }
                }
                Item::Command(request, Command::Zero | Command::Trim) => self.changed(request, failed, &mut lasting),
                Item::Command(request, Command::Flush) => lasting.push(request.cookie),
                Item::Command(_, Command::Disconnect) => {
                    then = Then::Ends;
                    break;
                }
                Item::Command(request, command) => self.look(request, *command).await?,
            }
            if self.out.len() >= OUT_BYTES {
                self.send().await?;
            }
        }
        if !lasting.is_empty() {
            let outbox = self.outbox.clone();
            self.spawn(flush(outbox, lasting)).await?;
        }
        self.send().await?;
        Ok(then)
    }

    /// Makes all changes of a batch; for each whether and how it failed. Nothing if none failed.
    async fn change(&mut self, items: &[Item]) -> Result<Vec<Option<Failed>>, Cut> {
        let changes: Vec<Change<'_>> = items.iter().filter_map(|item| change(&self.inbox, item)).collect();
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = changes.iter().map(|change| match change {
            Change::Write { data, .. } => CHANGE_BYTES + data.len() as u64,
            Change::Zero { .. } | Change::Trim { .. } => CHANGE_BYTES,
        });
        if let Err(error) = self.room(bytes.sum()).await? {
            return Ok(vec![Some(Failed::from(&error)); changes.len()]);
        }
        // From here to the end of `apply` nobody else is let in: see `sessions`.
        if self.session.cut().is_cancelled() {
            return Err(Cut);
        }
        let device = &self.outbox.device;
        let alone = |change: &Change<'_>| device.apply(&[*change]).err().map(|error| Failed::from(&error));
        Ok(match device.apply(&changes) {
            Ok(()) => Vec::new(),
            // One bad place fails the requests that touch it, and not those that came with them.
            Err(DeviceError::Unavailable(..) | DeviceError::Damaged(..)) if changes.len() > 1 => {
                changes.iter().map(alone).collect()
            }
            Err(error) => vec![Some(Failed::from(&error)); changes.len()],
        })
    }

    /// Waits until there is room for changes, as long as there is somebody to answer to.
    async fn room(&self, bytes: u64) -> Result<Result<(), DeviceError>, Cut> {
        let mut ready = self.outbox.device.ready(bytes);
        loop {
            tokio::select! {
                biased;
                is_ready = &mut ready => return Ok(is_ready),
                () = tokio::time::sleep(LOOK_EVERY) => if self.session.is_gone() { return Err(Cut) },
            }
        }
    }

    fn fail(&mut self, request: &Request, failed: &Failed) {
        put_failed(&mut self.out, request.cookie, failed, self.outbox.terms.is_structured);
    }

    /// Answers a change, now or when it lasts.
    fn changed(&mut self, request: &Request, failed: Option<Failed>, lasting: &mut Vec<Cookie>) {
        match failed {
            Some(failed) => self.fail(request, &failed),
            None if request.is_fua() => lasting.push(request.cookie),
            None => put_done(&mut self.out, request.cookie),
        }
    }

    /// Answers what changes nothing.
    async fn look(&mut self, request: &Request, command: Command) -> Result<(), Cut> {
        let (device, is_structured) = (&self.outbox.device, self.outbox.terms.is_structured);
        match command {
            Command::Read { is_whole } => {
                if let Some(later) = reading::read(&self.outbox, request, is_whole, &mut self.out) {
                    self.spawn(later).await?;
                }
            }
            Command::Cache => {
                // What the device starts for it outlives this connection.
                let _beside = self.beside.enter();
                device.prefetch(request.offset, u64::from(request.length));
                put_done(&mut self.out, request.cookie);
            }
            Command::BlockStatus { is_one } => {
                if let Err(error) = reading::block_status(&**device, request, is_one, &mut self.out) {
                    put_failed(&mut self.out, request.cookie, &Failed::from(&error), is_structured);
                }
            }
            Command::Write | Command::Zero | Command::Trim | Command::Flush | Command::Disconnect => {
                unreachable!("these change something, or end it: `serve` has them")
            }
        }
        Ok(())
    }

    /// Sends the replies that are ready.
    async fn send(&mut self) -> Result<(), Cut> {
        if !self.out.is_empty() {
            self.outbox.send(&[&self.out]).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Starts a task beside the connection, when there are not too many of them.
    async fn spawn(&mut self, task: impl Future<Output = Result<(), Cut>> + Send + 'static) -> Result<(), Cut> {
        while self.tasks.len() >= TASKS_MAX {
            // The client may be waiting for these before it takes others.
            self.send().await?;
            if let Some(task) = self.tasks.join_next().await {
                ended(task)?;
            }
        }
        self.tasks.spawn_on(task, &self.beside);
        Ok(())
    }
}

/// The change that an item asks for; none for a range of no bytes.
fn change<'a>(inbox: &'a Inbox, item: &Item) -> Option<Change<'a>> {
    match item {
        Item::Piece { offset, bytes, .. } if !bytes.is_empty() => {
            let (offset, data) = (*offset, inbox.bytes(bytes));
            Some(Change::Write { offset, data })
        }
        Item::Command(request, command) if request.length > 0 => {
            let (offset, length) = (request.offset, u64::from(request.length));
            match command {
                Command::Zero => Some(Change::Zero { offset, length }),
                Command::Trim => Some(Change::Trim { offset, length }),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A task that panicked would leave its client waiting for ever.
fn ended(task: Result<Result<(), Cut>, tokio::task::JoinError>) -> Result<(), Cut> {
    task.unwrap_or(Err(Cut))
}

/// Answers FLUSH, and changes with FUA, of one batch.
async fn flush(outbox: Arc<Outbox>, cookies: Vec<Cookie>) -> Result<(), Cut> {
    let flushed = outbox.device.flush().await;
    let mut out = Vec::new();
    for cookie in cookies {
        match &flushed {
            Ok(()) => put_done(&mut out, cookie),
            Err(error) => put_failed(&mut out, cookie, &Failed::from(error), outbox.terms.is_structured),
        }
    }
    outbox.send(&[&out]).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nbd::exports::Export;
    use crate::nbd::sessions::{Admission, Client, Sessions, Writers};
    use crate::nbd::wire::REQUEST_MAGIC;
    use crate::testing::{Asked, MemoryDevice};

    const SIZE: u64 = 1 << 20;

    /// Runs a connection on which these bytes come, and then the end; what the device was asked for.
    fn run(bytes: &[u8], is_structured: bool) -> Asked {
        let device = Arc::new(MemoryDevice::new(SIZE));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime with a clock");
        let terms = Terms {
            size: SIZE,
            is_read_only: false,
            is_structured,
            has_allocation: is_structured,
        };
        let stop = CancellationToken::new();
        runtime.block_on(async {
            let admission = Admission {
                sessions: &Arc::new(Sessions::new(Writers::OneClient)),
                client: Client::Process(1),
                line: None,
                stop: &stop,
            };
            let export = Export {
                name: String::new(),
                description: String::new(),
                device: device.clone(),
            };
            let session = admission.admit(&export).await.expect("nobody else is there");
            let (writer, beside) = (Box::new(tokio::io::sink()), Handle::current());
            let transmission = Transmission::new(device.clone(), terms, writer, &session, &stop, beside);
            transmission.run(&mut &*bytes).await;
        });
        device.asked()
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            requests in prop::collection::vec((0u16..32, 0u16..9, -600i64..600, 0u32..2000, any::<bool>()), 0..30),
            rest in prop::collection::vec(any::<u8>(), 0..60),
            is_structured: bool,
        ) {
            let mut bytes = Vec::new();
            for (flags, command, near, length, is_huge) in requests {
                // Around the start, where it wraps, and around the end.
                let offset = if is_huge { SIZE.wrapping_add_signed(near) } else { 0u64.wrapping_add_signed(near) };
                bytes.extend(REQUEST_MAGIC.to_be_bytes());
                bytes.extend([flags, command].map(u16::to_be_bytes).as_flattened());
                bytes.extend([7, offset].map(u64::to_be_bytes).as_flattened());
                let length = if is_huge && command != 1 { length << 21 } else { length };
                bytes.extend(length.to_be_bytes());
                bytes.resize(bytes.len() + if command == 1 { length as usize } else { 0 }, 0x25);
            }
            bytes.extend(rest);
            let asked = run(&bytes, is_structured);
            prop_assert!(asked.changes <= bytes.len() / 28);
        }
    }
}
