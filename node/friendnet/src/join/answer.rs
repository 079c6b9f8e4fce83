//! The end that is called: lets joiners in, and tells members what they have not heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use libp2p::Stream;
use proto::id::AccountId;
use proto::keys::DeviceCert;
use proto::wire::MEMBER_PROTOCOL;
use proto::wire::by_device::ByDevice;
use proto::wire::greeting::Refusal;
use proto::wire::member::MemberMessage;
use proto::wire::roster::{MemberRecord, NAME_BYTES_MAX, RosterRecords};
use proto::wire::word::AccountWord;

use super::{EXCHANGE_TIME, JoinError, Membership, read};
use crate::invite::Presented;
use crate::net::frames;
use crate::net::greet;
use crate::net::greet::Caller;
use crate::net::protocol::{Audience, Conversation, Protocol};
use crate::roster::Roster;

impl Protocol for Membership {
    fn id(&self) -> &'static str {
        MEMBER_PROTOCOL
    }

    fn audience(&self) -> Audience {
        // Joiners, and devices that nobody has heard of yet.
        Audience::Everybody
    }

    fn accept<'a>(
        self: Arc<Self>,
        stream: &'a mut Stream,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<Option<Conversation>, Refusal>> {
        Box::pin(async move {
            let answered = tokio::time::timeout(EXCHANGE_TIME, self.answer(stream, caller)).await;
            answered.unwrap_or(Err(Refusal::Malformed)).map(|()| None)
        })
    }
}

impl Membership {
    /// Answers one exchange or join: welcome and all that follows, or a refusal that is still to be said.
    async fn answer(self: &Arc<Self>, stream: &mut Stream, caller: &Caller) -> Result<(), Refusal> {
        let (message, payload) = read(stream).await.map_err(|_| Refusal::Malformed)?;
        let is_member = || self.core.roster().admits(&caller.cert);
        let outside = || greet::outside(&self.core.roster(), &caller.cert);
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
                    let held = self.core.roster().word(word.account).cloned();
                    if held.is_some_and(|held| held.revokes_more_than(Some(&word))) {
                        return Err(Refusal::HasLeft);
                    }
                    self.hear(word).await.map_err(|_| Refusal::CannotAdmit)?;
                }
                if !self.core.roster().is_in_force(&caller.cert) {
                    return Err(Refusal::Revoked);
                }
                let presented = Presented {
                    ticket,
                    proof,
                    joiner: caller.cert.device,
                    account: caller.cert.account,
                };
                self.admit(presented, name, acceptance).await?;
                if let Some(word) = word {
                    self.hear(word).await.map_err(|_| Refusal::CannotAdmit)?;
                }
                None
            }
            MemberMessage::Digest { hash } if is_member() => Some(hash),
            MemberMessage::Roster => {
                // A record counts by its signatures. A stranger's is taken only as far as it introduces the stranger.
                let mut records = RosterRecords::decode(&payload).map_err(|_| Refusal::Malformed)?;
                if !is_member() && records.grid == self.core.roster().grid() {
                    records = introduction(records, caller.cert.account);
                }
                // One that lost its roster is told of its grid again by whoever meets it.
                self.learn(records).await.map_err(|_| outside())?;
                is_member()
                    .then(|| Some(*blake3::hash(&payload).as_bytes()))
                    .ok_or_else(outside)?
            }
            MemberMessage::Digest { .. } => return Err(outside()),
            MemberMessage::Same => return Err(Refusal::Malformed),
        };
        // From here on a failure is the other side's to notice: a refusal would come after the welcome.
        if let Err(error) = self.tell_roster(stream, their_digest).await {
            tracing::debug!(device = %caller.cert.device.short(), "An exchange of rosters ended early: {error}");
        }
        Ok(())
    }

    async fn tell_roster(
        self: &Arc<Self>,
        stream: &mut Stream,
        their_digest: Option<[u8; 32]>,
    ) -> Result<(), JoinError> {
        let ours = self.core.roster().records().encode();
        frames::say(stream, &self.core.welcome(), Bytes::new()).await?;
        if their_digest == Some(*blake3::hash(&ours).as_bytes()) {
            return Ok(frames::say(stream, &MemberMessage::Same, Bytes::new()).await?);
        }
        frames::say(stream, &MemberMessage::Roster, ours.into()).await?;
        if let Some((MemberMessage::Roster, payload)) = frames::read(stream).await? {
            let records = RosterRecords::decode(&payload)?;
            if records.grid == self.core.roster().grid() {
                self.merge(records).await?;
            }
            frames::say(stream, &MemberMessage::Same, Bytes::new()).await?;
        }
        Ok(())
    }

    async fn admit(self: &Arc<Self>, presented: Presented, name: String, accepted: ByDevice) -> Result<(), Refusal> {
        let admitting = self.clone();
        let admitted = tokio::task::spawn_blocking(move || {
            let Self {
                core, members, invites, ..
            } = &*admitting;
            let invite = invites.check(core.device, &presented, core.now_secs())?;
            let speaker = core.speaker().ok_or(Refusal::CannotAdmit)?;
            let roster = core.roster();
            if !roster.admits(&core.cert) {
                return Err(Refusal::CannotAdmit);
            }
            if roster.has_left(presented.account) {
                return Err(Refusal::HasLeft);
            }
            if roster.member(presented.account).is_some() {
                return invites.use_up(presented.ticket, presented.account);
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
            invites.use_up(presented.ticket, presented.account)?;
            let added = members.update(|roster| {
                let taken_back = roster.take_back(speaker, presented.account);
                roster.add_member(record) || taken_back
            });
            added.map(drop).map_err(|error| {
                tracing::error!("{error}");
                Refusal::CannotAdmit
            })
        });
        admitted.await.unwrap_or(Err(Refusal::CannotAdmit))
    }
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
