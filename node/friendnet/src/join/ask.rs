//! The end that calls: asks to be let in, or for what it does not know yet, and says what it knows.

use std::sync::Arc;

use libp2p::{Multiaddr, Stream};
use proto::id::DeviceId;
use proto::wire::MEMBER_PROTOCOL;
use proto::wire::greeting::Refusal;
use proto::wire::member::{MemberMessage, join_proof};
use proto::wire::roster::{RosterRecords, acceptance};
use proto::wire::ticket::Ticket;
use proto::wire::word::AccountWord;

use super::{EXCHANGE_TIME, JoinError, Membership, read};
use crate::net::core::OpenError;
use crate::net::frames;
use crate::net::frames::Frame;

impl Membership {
    /// Joins the grid of `ticket`. Doing it again after a lost answer succeeds. May be dropped: then it happened or did not.
    pub async fn join(self: &Arc<Self>, ticket: &Ticket) -> Result<(), JoinError> {
        let speaker = self.core.speaker().ok_or(JoinError::MayNotAdmit)?;
        let roster = self.core.roster();
        if roster.grid() != ticket.grid && !roster.is_alone(self.core.cert.account) {
            return Err(JoinError::InAnotherGrid);
        }
        let addresses = ticket.addresses.iter();
        let addresses = addresses.filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok());
        self.hint(ticket.inviter, addresses);
        let message = MemberMessage::Join {
            ticket: ticket.id(),
            proof: join_proof(&ticket.verifier(), ticket.inviter, self.core.device),
            name: self.account_name.clone(),
            acceptance: acceptance(speaker, ticket.grid, &self.account_name, ticket.inviter),
            word: roster.word(self.core.cert.account).map(AccountWord::encode),
        };
        let records = in_time(async {
            let asked = self.ask(ticket.inviter, Frame::bare(&message)).await;
            if let Err(JoinError::Refused { word: Some(word), .. }) = &asked {
                // A home made anew does not know what its account has said: the next word has to go on from there.
                let word = AccountWord::clone(word);
                let is_own = word.account == self.core.cert.account;
                self.update(move |roster| (is_own && roster.recall_word(word.clone())) || roster.add_word(word))
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
        self.adopt(records).await?;
        // The inviter does not know our addresses yet.
        self.exchange(ticket.inviter).await.map(drop)
    }

    /// Makes the rosters of both ends equal. A member that the other end has not heard of yet introduces itself with the records
    /// that admit it. A node that knows nobody but its own account takes over the other's grid, if its
    /// account is a member there: that is how a recovered device finds its way back. Returns the digest
    /// of what the other end has now. May be dropped.
    pub async fn exchange(self: &Arc<Self>, device: DeviceId) -> Result<[u8; 32], JoinError> {
        let ours = self.core.roster().records().encode();
        let hash = *blake3::hash(&ours).as_bytes();
        in_time(async {
            let mut stream = match self.ask(device, Frame::bare(&MemberMessage::Digest { hash })).await {
                Err(JoinError::Refused {
                    refusal: Refusal::Stranger | Refusal::Revoked | Refusal::HasLeft,
                    word,
                    ..
                }) => {
                    if let Some(word) = word {
                        self.hear(*word).await?;
                    }
                    self.ask(device, Frame::new(&MemberMessage::Roster, ours.into()))
                        .await?
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
            if records.grid != self.core.roster().grid() {
                self.adopt(records).await?;
                return Ok(*blake3::hash(&theirs).as_bytes());
            }
            self.merge(records).await?;
            let merged = self.core.roster().records().encode();
            let hash = *blake3::hash(&merged).as_bytes();
            if merged != theirs {
                frames::say(&mut stream, &MemberMessage::Roster, merged.into()).await?;
                read(&mut stream).await?;
            }
            Ok(hash)
        })
        .await
    }

    async fn ask(&self, device: DeviceId, message: Frame) -> Result<Stream, JoinError> {
        let said = [Frame::bare(&self.core.hello(None)), message];
        self.core
            .open(device, MEMBER_PROTOCOL, &said)
            .await
            .map_err(|error| match error {
                OpenError::Connect(error) => error.into(),
                OpenError::Greet(error) => error.into(),
            })
    }
}

async fn in_time<T>(exchange: impl Future<Output = Result<T, JoinError>>) -> Result<T, JoinError> {
    let done = tokio::time::timeout(EXCHANGE_TIME, exchange).await;
    done.unwrap_or(Err(JoinError::Answer {
        reason: "it did not come in time".into(),
    }))
}
