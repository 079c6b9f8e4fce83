//! Answers one friend's share stream: reads requests, runs their handlers, writes their answers.
//!
//! Memory is bounded by frames, never by shares: the reader waits when handlers are behind, and so, by flow control, does the
//! other side. Dropping the future of `run` ends everything that it started; what was received of a share stays.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use libp2p::Stream;
use proto::head::HEAD_BYTES;
use proto::id::ShareId;
use proto::share_store::{HeadStore, ShareStore, StoreError};
use proto::wire::SHARE_PROTOCOL;
use proto::wire::frame::IDS_MAX;
use proto::wire::greeting::Refusal;
use proto::wire::share::{Failure, ShareMessage};
use stores::guests::Seat;
use stores::kept::Kept;
use stores::partial::Turn;
use stores::shelf::Shelf;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use upload_queue::bandwidth::Class;

use self::receive::{Incoming, Purpose};
use crate::blocking::blocking;
use crate::net::core::Core;
use crate::net::frames;
use crate::net::frames::{Frame, ReadError};
use crate::net::greet::Caller;
use crate::net::protocol::{Conversation, Protocol};

mod give_up;
mod pass_on;
mod prove;
mod receive;
mod send;
mod vote;

/// Requests of one stream being answered at once, puts not counted.
const REQUESTS_MAX: usize = 16;
/// Puts of one stream going on at once; more are told to wait.
pub const PUTS_MAX: usize = 16;
/// Answers waiting to be written.
const ANSWERS_MAX: usize = 4;
/// Frames of one put waiting to be written to disk.
const FRAMES_MAX: usize = 2;

/// `/gridbackup/share/1`, from the side that keeps shares; see the module.
pub struct ShareProtocol {
    core: Arc<Core>,
    kept: Arc<Kept>,
}

impl ShareProtocol {
    /// Answers for what is `kept`.
    pub fn new(core: Arc<Core>, kept: Arc<Kept>) -> Self {
        Self { core, kept }
    }

    /// A place for a member that asks for a member's shares, and the welcome.
    async fn welcome(&self, stream: &mut Stream, caller: &Caller) -> Result<Seat, Refusal> {
        if self.core.roster().member(caller.owner).is_none() {
            return Err(Refusal::Stranger);
        }
        let (kept, account, now_secs) = (self.kept.clone(), caller.cert.account, self.core.now_secs());
        tokio::task::spawn_blocking(move || kept.heard.note(account, now_secs));
        let seat = self.kept.guests.seat(account).map_err(|_| Refusal::Busy)?;
        frames::say(stream, &self.core.welcome(), Bytes::new())
            .await
            .map_err(|_| Refusal::Malformed)?;
        Ok(seat)
    }
}

impl Protocol for ShareProtocol {
    fn id(&self) -> &'static str {
        SHARE_PROTOCOL
    }

    fn accept<'a>(
        self: Arc<Self>,
        stream: &'a mut Stream,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<Option<Conversation>, Refusal>> {
        Box::pin(async move {
            let seat = self.welcome(stream, caller).await?;
            let caller = caller.clone();
            let serving: Conversation = Box::new(|stream| Box::pin(serve(self, caller, stream, seat)));
            Ok(Some(serving))
        })
    }
}

/// Serves `caller` on `stream` until it ends, breaks the protocol or, idle, gives way to another lane of the account.
async fn serve(protocol: Arc<ShareProtocol>, caller: Caller, stream: Stream, seat: Seat) {
    let (reader, writer) = stream.split();
    let (answers, queue) = mpsc::channel(ANSWERS_MAX);
    let (core, kept, owner) = (protocol.core.clone(), protocol.kept.clone(), caller.owner);
    let opening = kept.clone();
    let shelf = match blocking(move || opening.shelf(owner)).await {
        Ok(shelf) => shelf,
        Err(error) => return tracing::error!("The store for {}: {error}", owner.short()),
    };
    let handlers = Arc::new(Handlers {
        core: core.clone(),
        kept,
        caller,
        shelf,
        seat,
        answers,
    });
    let mut serving = Serving {
        handlers: handlers.clone(),
        tasks: JoinSet::new(),
        puts: HashMap::new(),
        running: HashMap::new(),
        turns: Arc::new(Semaphore::new(REQUESTS_MAX)),
    };
    let ended = tokio::select! {
        ended = serving.read_requests(reader) => ended,
        ended = write_answers(&core, queue, writer) => ended,
        () = handlers.seat.given_up() => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(owner = %owner.short(), "A share stream ended: {error}");
    }
}

/// What handlers share.
struct Handlers {
    core: Arc<Core>,
    kept: Arc<Kept>,
    caller: Caller,
    shelf: Shelf,
    seat: Seat,
    answers: mpsc::Sender<Frame>,
}

struct Serving {
    handlers: Arc<Handlers>,
    tasks: JoinSet<()>,
    /// Where the bytes of each put go.
    puts: HashMap<u32, mpsc::Sender<(u32, Bytes)>>,
    running: HashMap<u32, AbortHandle>,
    turns: Arc<Semaphore>,
}

impl Serving {
    async fn read_requests(&mut self, mut reader: ReadHalf<Stream>) -> Result<(), ReadError> {
        while let Some((message, payload)) = frames::read::<ShareMessage, _>(&mut reader).await? {
            self.handlers.core.counters.received(payload.len());
            let download = &self.handlers.core.bandwidth.download;
            download.acquire(Class::Backup, payload.len() as u64).await;
            while self.tasks.try_join_next().is_some() {}
            match message {
                ShareMessage::Put {
                    request,
                    id,
                    stored_bytes,
                } => self.begin_put((request, id, stored_bytes), Purpose::Keep).await,
                ShareMessage::PutToPass {
                    request,
                    id,
                    stored_bytes,
                } => self.begin_put((request, id, stored_bytes), Purpose::PassOn).await,
                ShareMessage::PutBytes { request, offset } => self.hand_on(request, offset, payload).await,
                ShareMessage::Cancel { request } => self.cancel(request),
                message => self.begin(message, payload).await,
            }
        }
        Ok(())
    }

    async fn begin_put(&mut self, (request, id, stored_bytes): (u32, ShareId, u32), purpose: Purpose) {
        self.puts.retain(|_, bytes| !bytes.is_closed());
        if self.puts.len() >= PUTS_MAX {
            let retry_after = std::time::Duration::from_secs(1);
            return self.handlers.fail(request, StoreError::Busy { retry_after }).await;
        }
        let (sender, bytes) = mpsc::channel(FRAMES_MAX);
        self.puts.insert(request, sender);
        let turn = Turn::next();
        let incoming = Incoming {
            request,
            id,
            stored_bytes,
            purpose,
            turn,
            bytes,
        };
        let (handlers, busy) = (self.handlers.clone(), self.handlers.seat.busy());
        self.tasks.spawn(async move {
            handlers.receive(incoming).await;
            drop(busy);
        });
    }

    async fn hand_on(&mut self, request: u32, offset: u32, payload: Bytes) {
        // Bytes of a put that has failed are still on their way when the other side learns of it.
        if let Some(bytes) = self.puts.get(&request)
            && bytes.send((offset, payload)).await.is_err()
        {
            self.puts.remove(&request);
        }
    }

    fn cancel(&mut self, request: u32) {
        self.puts.remove(&request);
        if let Some(task) = self.running.remove(&request) {
            task.abort();
        }
    }

    async fn begin(&mut self, message: ShareMessage, payload: Bytes) {
        let turn = self
            .turns
            .clone()
            .acquire_owned()
            .await
            .expect("the turns are never closed");
        self.running.retain(|_, task| !task.is_finished());
        let (request, handlers) = (message.request(), self.handlers.clone());
        let busy = self.handlers.seat.busy();
        let task = self.tasks.spawn(async move {
            let turns = &handlers.seat.guest().requests;
            let _of_account = turns.acquire().await.expect("the turns are never closed");
            handlers.answer(message, payload).await;
            drop((turn, busy));
        });
        self.running.insert(request, task);
    }
}

impl Handlers {
    async fn answer(&self, message: ShareMessage, payload: Bytes) {
        let request = message.request();
        let answered = match message {
            ShareMessage::Get { id, start, end, .. } => self.send(request, id, start..end).await,
            ShareMessage::List { after, limit, .. } => self.list(request, after, limit).await,
            ShareMessage::Remove { .. } => Err(StoreError::Refused {
                reason: "Shares are given up by a signed discard".into(),
            }),
            ShareMessage::LastDiscard { .. } => self.last_discard(request).await,
            ShareMessage::Discard { discard, .. } => self.discard(request, &discard, &payload).await,
            ShareMessage::Trash { after, limit, .. } => self.list_trash(request, after, limit).await,
            ShareMessage::Recall { .. } => self.recall(request, &payload).await,
            ShareMessage::PassOn { .. } => self.pass_on(request, &payload).await,
            ShareMessage::Evidence { id, .. } => self.evidence(request, id).await,
            ShareMessage::OldHeads { account, after, .. } => self.old_heads(request, account, after).await,
            ShareMessage::Space { .. } => self.space(request).await,
            ShareMessage::PutHead { .. } => self.put_head(request, payload).await,
            ShareMessage::Heads { account, .. } => self.heads(request, account).await,
            ShareMessage::Claim { .. } => self.judge(request, payload).await,
            ShareMessage::PromiseOf { volume, .. } => self.promise(request, volume).await,
            ShareMessage::Ping { .. } => {
                self.say(&ShareMessage::Done { request }, Bytes::new()).await;
                Ok(())
            }
            ShareMessage::Challenge { nonce, .. } => self.prove(request, &nonce, &payload).await,
            _ => Err(StoreError::Refused {
                reason: "That is an answer, not a request".into(),
            }),
        };
        if let Err(error) = answered {
            self.fail(request, error).await;
        }
    }

    async fn list(&self, request: u32, after: Option<ShareId>, limit: u32) -> Result<(), StoreError> {
        let ids = self.shelf.store.list(after, limit.min(IDS_MAX)).await?;
        self.say_ids(request, &ids).await;
        Ok(())
    }

    async fn space(&self, request: u32) -> Result<(), StoreError> {
        let space = self.shelf.store.space().await?;
        let kept = self.kept.clone();
        // Not counted: the put will say whether there is room.
        let left = blocking(move || kept.left()).await.ok();
        let free_bytes = space.free_bytes.into_iter().chain(left).min();
        let used_bytes = space.used_bytes;
        self.say(
            &ShareMessage::SpaceIs {
                request,
                used_bytes,
                free_bytes,
            },
            Bytes::new(),
        )
        .await;
        Ok(())
    }

    async fn put_head(&self, request: u32, head: Bytes) -> Result<(), StoreError> {
        self.only_owner()?;
        let word = self.core.roster().word(self.caller.owner).cloned();
        self.shelf.store.keep_head(head, word).await?;
        self.say(&ShareMessage::Done { request }, Bytes::new()).await;
        Ok(())
    }

    async fn heads(&self, request: u32, account: proto::id::AccountId) -> Result<(), StoreError> {
        let mut heads = self.shelf.store.heads(account).await?;
        // One of another length is damaged, and would shift the others.
        heads.retain(|head| head.len() == HEAD_BYTES);
        self.say(&ShareMessage::HeadsAre { request }, heads.concat().into())
            .await;
        Ok(())
    }

    /// Others may read what an account keeps here, audit it, and bring back shares that its devices made (`receive`); all
    /// else only the account's devices may change.
    fn only_owner(&self) -> Result<(), StoreError> {
        if self.caller.cert.account == self.caller.owner {
            return Ok(());
        }
        Err(StoreError::Refused {
            reason: "These shares belong to another account".into(),
        })
    }

    async fn fail(&self, request: u32, error: StoreError) {
        self.say(
            &ShareMessage::Failed {
                request,
                failure: Failure::from(error),
            },
            Bytes::new(),
        )
        .await;
    }

    /// When nobody can hear it any more, the whole stream is about to end.
    async fn say(&self, message: &ShareMessage, payload: Bytes) {
        let _ = self.answers.send(Frame::new(message, payload)).await;
    }
}

async fn write_answers(
    core: &Core,
    mut queue: mpsc::Receiver<Frame>,
    mut writer: WriteHalf<Stream>,
) -> Result<(), ReadError> {
    while let Some(frame) = queue.recv().await {
        // What a friend asks for is a restore, or a repair or audit, which ask for little at a time.
        core.bandwidth
            .upload
            .acquire(Class::Restore, frame.bytes() as u64)
            .await;
        frame.write(&mut writer).await?;
        core.counters.sent(frame.bytes());
        if queue.is_empty() {
            writer.flush().await?;
        }
    }
    Ok(())
}
