//! Joining a grid and keeping rosters equal: both ends of `/gridbackup/member/1`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId, Stream};
use proto::id::{AccountId, DeviceId};
use proto::keys::DeviceCert;
use proto::wire::MEMBER_PROTOCOL;
use proto::wire::by_device::ByDevice;
use proto::wire::greeting::Refusal;
use proto::wire::grid_limits::RosterError;
use proto::wire::member::{MemberMessage, join_proof};
use proto::wire::roster::{MemberRecord, NAME_BYTES_MAX, RosterRecords, acceptance};
use proto::wire::ticket::Ticket;
use proto::wire::word::AccountWord;

use super::invite::Presented;
use super::roster::{Roster, RosterFileError};
use crate::net::core::{ConnectError, Core, OpenError};
use crate::net::frames;
use crate::net::frames::{Frame, ReadError};
use crate::net::greet::{Caller, GreetError};

/// How long a whole exchange may take: a roster is small.
const EXCHANGE_TIME: Duration = Duration::from_secs(30);

/// Joining, or meeting a member, did not work.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody answered.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The inviter said no; `refusal` says which no.
    #[error("The other side refused: {text}")]
    Refused {
        /// What to act on.
        refusal: Refusal,
        /// For people.
        text: String,
        /// What some account says of itself that explains it.
        word: Option<Box<AccountWord>>,
    },
    /// This home is in a grid with others already.
    #[error("This account is in another grid already: a second grid needs a second home")]
    InAnotherGrid,
    /// This device may not speak for its account.
    #[error("This device may not speak for its account: join from one that may")]
    MayNotAdmit,
    /// The other side broke the protocol, or answered for another grid.
    #[error("The other side's answer cannot be used: {reason}")]
    Answer {
        /// What is wrong.
        reason: String,
    },
    /// The roster could not be kept.
    #[error(transparent)]
    Keep(#[from] RosterFileError),
}

impl From<GreetError> for JoinError {
    fn from(error: GreetError) -> Self {
        match error {
            GreetError::Refused { refusal, text, word } => Self::Refused { refusal, text, word },
            other => Self::Answer {
                reason: other.to_string(),
            },
        }
    }
}

impl From<ReadError> for JoinError {
    fn from(error: ReadError) -> Self {
        Self::Answer {
            reason: error.to_string(),
        }
    }
}

impl From<std::io::Error> for JoinError {
    fn from(error: std::io::Error) -> Self {
        Self::Answer {
            reason: error.to_string(),
        }
    }
}

impl From<RosterError> for JoinError {
    fn from(error: RosterError) -> Self {
        Self::Answer {
            reason: error.to_string(),
        }
    }
}

/// Joins the grid of `ticket`. Doing it again after a lost answer succeeds. May be dropped: then it happened or did not.
pub async fn join(core: &Arc<Core>, ticket: &Ticket) -> Result<(), JoinError> {
    let speaker = core.speaker().ok_or(JoinError::MayNotAdmit)?;
    let roster = core.members.roster();
    if roster.grid() != ticket.grid && !roster.is_alone(core.cert.account) {
        return Err(JoinError::InAnotherGrid);
    }
    hint(
        core,
        ticket.inviter,
        ticket
            .addresses
            .iter()
            .filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok()),
    );
    let message = MemberMessage::Join {
        ticket: ticket.id(),
        proof: join_proof(&ticket.verifier(), ticket.inviter, core.device),
        name: core.account_name.clone(),
        acceptance: acceptance(speaker, ticket.grid, &core.account_name, ticket.inviter),
        word: roster.word(core.cert.account).map(AccountWord::encode),
    };
    let records = in_time(async {
        let asked = ask(core, ticket.inviter, Frame::bare(&message)).await;
        if let Err(JoinError::Refused { word: Some(word), .. }) = &asked {
            // A home made anew does not know what its account has said: the next word has to go on from there.
            let (hearing, word) = (core.clone(), AccountWord::clone(word));
            let is_own = word.account == core.cert.account;
            blocking(move || {
                hearing
                    .members
                    .update(|roster| (is_own && roster.recall_word(word.clone())) || roster.add_word(word))
            })
            .await?;
        }
        let mut stream = asked?;
        match read(&mut stream).await? {
            (MemberMessage::Roster, payload) => Ok(RosterRecords::decode(&payload)?),
            _ => Err(JoinError::Answer {
                reason: "no roster came".into(),
            }),
        }
    })
    .await?;
    if records.grid != ticket.grid {
        return Err(JoinError::Answer {
            reason: "it is a roster of another grid".into(),
        });
    }
    adopt(core, records).await?;
    // The inviter does not know our addresses yet.
    exchange(core, ticket.inviter).await.map(drop)
}

/// Makes the rosters of both ends equal. A member that the other end has not heard of yet introduces itself with the records
/// that admit it. A node that knows nobody but its own account takes over the other's grid, if its
/// account is a member there: that is how a recovered device finds its way back. Returns the digest
/// of what the other end has now. May be dropped.
pub async fn exchange(core: &Arc<Core>, device: DeviceId) -> Result<[u8; 32], JoinError> {
    let ours = core.members.roster().records().encode();
    let hash = *blake3::hash(&ours).as_bytes();
    in_time(async {
        let mut stream = match ask(core, device, Frame::bare(&MemberMessage::Digest { hash })).await {
            Err(JoinError::Refused {
                refusal: Refusal::Stranger | Refusal::Revoked | Refusal::HasLeft,
                word,
                ..
            }) => {
                if let Some(word) = word {
                    hear(core, *word).await?;
                }
                ask(core, device, Frame::new(&MemberMessage::Roster, ours.into())).await?
            }
            asked => asked?,
        };
        let theirs = match read(&mut stream).await? {
            (MemberMessage::Same, _) => return Ok(hash),
            (MemberMessage::Roster, payload) => payload,
            _ => {
                return Err(JoinError::Answer {
                    reason: "no roster came".into(),
                });
            }
        };
        let records = RosterRecords::decode(&theirs)?;
        if records.grid != core.members.roster().grid() {
            adopt(core, records).await?;
            return Ok(*blake3::hash(&theirs).as_bytes());
        }
        merge(core, records).await?;
        let merged = core.members.roster().records().encode();
        let hash = *blake3::hash(&merged).as_bytes();
        if merged != theirs {
            frames::say(&mut stream, &MemberMessage::Roster, merged.into()).await?;
            read(&mut stream).await?;
        }
        Ok(hash)
    })
    .await
}

/// Remembers where a device can be dialed.
pub fn hint(core: &Core, device: DeviceId, addresses: impl Iterator<Item = Multiaddr>) {
    if let Some(peer) = super::identity::peer_id(device) {
        addresses.for_each(|address| core.links.hint(peer, address));
    }
}

/// Answers one exchange or join: welcome and all that follows, or a refusal that is still to be said.
pub async fn answer(core: &Arc<Core>, stream: &mut Stream, peer: PeerId, caller: &Caller) -> Result<(), Refusal> {
    let done = tokio::time::timeout(EXCHANGE_TIME, answer_in_time(core, stream, peer, caller)).await;
    done.unwrap_or(Err(Refusal::Malformed))
}

async fn answer_in_time(core: &Arc<Core>, stream: &mut Stream, peer: PeerId, caller: &Caller) -> Result<(), Refusal> {
    let (message, payload) = read(stream).await.map_err(|_| Refusal::Malformed)?;
    let is_member = || core.members.roster().admits(&caller.cert);
    let their_digest = match message {
        MemberMessage::Join {
            ticket,
            proof,
            name,
            acceptance,
            word,
        } => {
            let word = word.and_then(|word| AccountWord::decode(&word).ok());
            let word = word.filter(|word| word.account == caller.cert.account);
            if let Some(word) = word.clone() {
                // Signed in a home that does not know what the account has revoked: it is told, and says it again on top of that.
                let held = core.members.roster().word(word.account).cloned();
                if held.is_some_and(|held| held.revokes_more_than(Some(&word))) {
                    return Err(Refusal::HasLeft);
                }
                hear(core, word).await.map_err(|_| Refusal::CannotAdmit)?;
            }
            if !core.members.roster().is_in_force(&caller.cert) {
                return Err(Refusal::Revoked);
            }
            let presented = Presented {
                ticket,
                proof,
                joiner: caller.cert.device,
                account: caller.cert.account,
            };
            admit(core, presented, name, acceptance).await?;
            if let Some(word) = word {
                hear(core, word).await.map_err(|_| Refusal::CannotAdmit)?;
            }
            None
        }
        MemberMessage::Digest { hash } if is_member() => Some(hash),
        MemberMessage::Roster => {
            // A record counts by its signatures. A stranger's is taken only as far as it introduces the stranger.
            let mut records = RosterRecords::decode(&payload).map_err(|_| Refusal::Malformed)?;
            if !is_member() && records.grid == core.members.roster().grid() {
                records = introduction(records, caller.cert.account);
            }
            // One that lost its roster is told of its grid again by whoever meets it.
            learn(core, records).await.map_err(|_| outside(core, caller))?;
            is_member()
                .then(|| Some(*blake3::hash(&payload).as_bytes()))
                .ok_or_else(|| outside(core, caller))?
        }
        MemberMessage::Digest { .. } => return Err(outside(core, caller)),
        MemberMessage::Same => return Err(Refusal::Malformed),
    };
    // From here on a failure is the other side's to notice: a refusal would come after the welcome.
    if let Err(error) = tell_roster(core, stream, their_digest).await {
        tracing::debug!(%peer, "An exchange of rosters ended early: {error}");
    }
    Ok(())
}

/// Why somebody is not served.
fn outside(core: &Core, caller: &Caller) -> Refusal {
    let roster = core.members.roster();
    match roster.is_in_force(&caller.cert) {
        false => Refusal::Revoked,
        true if roster.has_left(caller.cert.account) => Refusal::HasLeft,
        true => Refusal::Stranger,
    }
}

async fn tell_roster(core: &Arc<Core>, stream: &mut Stream, their_digest: Option<[u8; 32]>) -> Result<(), JoinError> {
    let ours = core.members.roster().records().encode();
    frames::say(stream, &core.welcome(), Bytes::new()).await?;
    if their_digest == Some(*blake3::hash(&ours).as_bytes()) {
        return Ok(frames::say(stream, &MemberMessage::Same, Bytes::new()).await?);
    }
    frames::say(stream, &MemberMessage::Roster, ours.into()).await?;
    if let Some((MemberMessage::Roster, payload)) = frames::read(stream).await? {
        let records = RosterRecords::decode(&payload)?;
        if records.grid == core.members.roster().grid() {
            merge(core, records).await?;
        }
        frames::say(stream, &MemberMessage::Same, Bytes::new()).await?;
    }
    Ok(())
}

async fn admit(core: &Arc<Core>, presented: Presented, name: String, accepted: ByDevice) -> Result<(), Refusal> {
    let core = core.clone();
    let admitting = tokio::task::spawn_blocking(move || {
        let now_secs = core.now_secs();
        let invite = core.invites.check(core.device, &presented, now_secs)?;
        let speaker = core.speaker().ok_or(Refusal::CannotAdmit)?;
        let roster = core.members.roster();
        if !roster.admits(&core.cert) {
            return Err(Refusal::CannotAdmit);
        }
        if roster.has_left(presented.account) {
            return Err(Refusal::HasLeft);
        }
        if roster.member(presented.account).is_some() {
            return core.invites.use_up(presented.ticket, presented.account);
        }
        let record = MemberRecord::admit(speaker, roster.grid(), presented.account, &name, accepted);
        let is_back = roster.is_removed(presented.account);
        if name.len() > NAME_BYTES_MAX || record.check(roster.grid()).is_err() {
            return Err(Refusal::Malformed);
        }
        // Whoever was removed comes back by a ticket of who removed it, made after that and used by nobody yet.
        if is_back {
            let own = roster.removal_seq(core.cert.account, presented.account);
            let takes_back = own.is_some_and(|seq| invite.takes_back.contains(&(presented.account, seq)));
            let is_fresh = invite.used_by.is_none() && takes_back;
            if !roster.may_take_back(core.cert.account, presented.account) {
                return Err(Refusal::KeptOut);
            }
            if !is_fresh {
                return Err(Refusal::TicketUsed);
            }
            // A ticket that would not bring it back is not used up.
            if !Roster::clone(&roster).take_back(speaker, presented.account) {
                return Err(Refusal::KeptOut);
            }
        }
        if !roster.has_room(core.cert.account) {
            return Err(Refusal::GridFull);
        }
        // First the ticket, then the member: a crash between the two lets the same account ask again, and nobody else.
        core.invites.use_up(presented.ticket, presented.account)?;
        let added = core.members.update(|roster| {
            let taken_back = roster.take_back(speaker, presented.account);
            roster.add_member(record) || taken_back
        });
        added.map(drop).map_err(|error| {
            tracing::error!("{error}");
            Refusal::CannotAdmit
        })
    });
    admitting.await.unwrap_or(Err(Refusal::CannotAdmit))
}

/// Takes in what an account says of itself, if it is or was a member.
async fn hear(core: &Arc<Core>, word: AccountWord) -> Result<(), JoinError> {
    let hearing = core.clone();
    blocking(move || hearing.members.update(|roster| roster.add_word(word))).await
}

/// What of some records concerns one account and those it came by.
fn introduction(mut records: RosterRecords, account: AccountId) -> RosterRecords {
    let admitters: BTreeMap<AccountId, AccountId> = records
        .members
        .iter()
        .map(|member| (member.account, member.admitted_by))
        .collect();
    let mut chain = BTreeSet::from([account]);
    let mut next = admitters.get(&account);
    while let Some(above) = next {
        next = admitters.get(above).filter(|_| chain.insert(*above));
    }
    let of_account = |cert: &[u8]| DeviceCert::decode(cert).is_ok_and(|cert| cert.account == account);
    let is_own = |word: &[u8]| AccountWord::decode(word).is_ok_and(|word| word.account == account);
    records.members.retain(|member| chain.contains(&member.account));
    records.devices.retain(|device| of_account(&device.cert));
    records.words.retain(|word| is_own(word));
    records.removals.clear();
    records
}

/// Takes over the roster of another grid, if this account is a member of it and leaves nobody behind.
async fn adopt(core: &Arc<Core>, records: RosterRecords) -> Result<(), JoinError> {
    let new = Roster::from_records(&records);
    let account = core.cert.account;
    if new.member(account).is_none() {
        return Err(JoinError::Answer {
            reason: "this account is not in its roster".into(),
        });
    }
    let adopting = core.clone();
    blocking(move || {
        adopting.members.update(|roster| {
            let may_leave = roster.is_alone(account);
            if roster.grid() == new.grid() {
                return roster.merge(&records);
            }
            // What this account said of itself holds in every grid: one that it has left is not taken over from a friend who has not
            // heard of that yet.
            let mut new = new;
            roster.word(account).map(|word| new.add_word(word.clone()));
            let may_adopt = may_leave && new.member(account).is_some();
            if may_adopt {
                *roster = new;
            }
            may_adopt
        })
    })
    .await?;
    if core.members.roster().member(account).is_none() {
        return Err(JoinError::InAnotherGrid);
    }
    publish(core).await
}

/// Takes in what a member left for others to find.
pub async fn learn(core: &Arc<Core>, records: RosterRecords) -> Result<(), JoinError> {
    match records.grid == core.members.roster().grid() {
        true => merge(core, records).await,
        false => adopt(core, records).await,
    }
}

async fn merge(core: &Arc<Core>, records: RosterRecords) -> Result<(), JoinError> {
    let (merging, own) = (core.clone(), core.cert.account);
    let before = core.members.roster();
    blocking(move || merging.members.update(|roster| roster.merge(&records))).await?;
    if let (Some(was), Some(is)) = (before.word(own), core.members.roster().word(own)) {
        let lost: Vec<String> = was.lost_in(is).map(|device| device.short()).collect();
        if !lost.is_empty() {
            tracing::warn!(
                "The account has said something else on another machine, where it was not known that {} is revoked: it counts again until \
                 `gridbackup device revoke` says so once more",
                lost.join(", ")
            );
        }
    }
    // Others may know a record of this device that is newer than ours: from a home that was set back.
    publish(core).await
}

/// Says in the roster where this device is. A short command that does not listen leaves what its daemon said.
pub async fn publish(core: &Arc<Core>) -> Result<(), JoinError> {
    let known = core.members.roster().device(core.device).is_some();
    let silent = core.announced_addresses().is_empty();
    if silent && (known || !core.listen.is_empty()) {
        return Ok(());
    }
    let core = core.clone();
    blocking(move || {
        core.members
            .publish(&core.device_key, &core.cert, &core.announced_addresses())
    })
    .await
}

async fn blocking<F>(change: F) -> Result<(), JoinError>
where
    F: FnOnce() -> Result<bool, RosterFileError> + Send + 'static,
{
    match tokio::task::spawn_blocking(change).await {
        Ok(changed) => Ok(changed.map(drop)?),
        Err(stopped) => Err(JoinError::Answer {
            reason: stopped.to_string(),
        }),
    }
}

async fn ask(core: &Core, device: DeviceId, message: Frame) -> Result<Stream, JoinError> {
    let said = [Frame::bare(&core.hello(None)), message];
    core.open(device, MEMBER_PROTOCOL, &said)
        .await
        .map_err(|error| match error {
            OpenError::Connect(error) => error.into(),
            OpenError::Greet(error) => error.into(),
        })
}

async fn read(stream: &mut Stream) -> Result<(MemberMessage, Bytes), JoinError> {
    frames::read(stream).await?.ok_or(JoinError::Answer {
        reason: "the stream ended early".into(),
    })
}

async fn in_time<T>(exchange: impl Future<Output = Result<T, JoinError>>) -> Result<T, JoinError> {
    let done = tokio::time::timeout(EXCHANGE_TIME, exchange).await;
    done.unwrap_or(Err(JoinError::Answer {
        reason: "it did not come in time".into(),
    }))
}
