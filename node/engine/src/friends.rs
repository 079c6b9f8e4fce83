//! The network, and who is in the grid: starting it, inviting, joining, what is kept for friends.

use api::failure::{Exit, Failure};
use api::output::Sink;
use api::request::Word;
use api::{clock, message};
use friendnet::Multiaddr;
use friendnet::handle::{InviteError, NetHandle};
use friendnet::join::JoinError;
use friendnet::net::counters::Counted;
use friendnet::net::relays::RelayUse;
use friendnet::net::swarm::LocalDiscovery;
use friendnet::roster::Roster;
use friendnet::start::{Net, NetConfig, TransportConfig};
use jiff::Timestamp;
use proto::id::AccountId;
use proto::keys::DeviceCert;
use proto::wire::greeting::Refusal;
use proto::wire::ticket::Ticket;

use crate::home::HomePaths;
use crate::{Engine, Mode, listen};

/// What to do on a machine that its account has revoked.
pub(super) const REVOKED_HINT: &str = "a machine that was found again takes the account over anew: `gridbackup recover` with the words, into another --home";
/// What to do about a full grid.
const FULL_HINT: &str =
    "found a second grid: a home of its own with `gridbackup --home DIR init`, and invite from there";

impl Engine {
    /// The network, started with the first use. A command only dials, unless it was told where to listen.
    pub(super) async fn network(&self) -> Result<NetHandle, Failure> {
        let listen = match &self.0.mode {
            Mode::Command(options) => options.listen.clone(),
            Mode::Daemon(options) if options.listen.is_empty() => self.config().listen,
            Mode::Daemon(options) => options.listen.clone(),
        };
        self.network_on(&listen).await
    }

    /// The network, listening where the config says even for a command: others are told these addresses.
    async fn listening_network(&self) -> Result<NetHandle, Failure> {
        match &self.0.mode {
            Mode::Command(options) if options.listen.is_empty() => self.network_on(&self.config().listen).await,
            _ => self.network().await,
        }
    }

    async fn network_on(&self, listen: &[String]) -> Result<NetHandle, Failure> {
        let home = &self.0.home;
        let config = self.config();
        let start = || async {
            let net = NetConfig {
                transport: TransportConfig {
                    device_key: home.device.clone(),
                    cert: home.cert.clone(),
                    listen: listen::addresses(listen, home.paths.state_dir())?,
                    announce: config
                        .announce
                        .iter()
                        .filter_map(|address| address.parse().ok())
                        .collect(),
                    bandwidth: self.0.bandwidth.clone(),
                    discovery: if config.mdns {
                        LocalDiscovery::On
                    } else {
                        LocalDiscovery::Off
                    },
                    upnp: config.upnp,
                    relays: match self.0.mode {
                        Mode::Daemon(_) => RelayUse::WhenUnreachable,
                        Mode::Command(_) => RelayUse::Never,
                    },
                    forwards: config.relay && matches!(self.0.mode, Mode::Daemon(_)),
                },
                account_name: config.name.clone(),
                home: home.paths.state_dir().to_owned(),
                offered: config.store_max,
                min_free: config.min_free.0,
            };
            let net = Net::start(net).await.map_err(|error| Failure::from_error(&error))?;
            listen::remember(&net.listen_addresses(), home.paths.state_dir());
            self.set_quotas(&net, &config);
            Ok::<_, Failure>(net)
        };
        self.0.net.get_or_try_init(start).await.cloned()
    }

    /// Refuses on a machine that its account has revoked: nobody would believe it.
    pub(super) fn check_not_revoked(&self) -> Result<(), Failure> {
        match is_revoked(&self.0.home.paths, &self.0.home.cert) {
            true => Err(Failure::new(Exit::Failed, "The account has revoked this machine").hint(REVOKED_HINT)),
            false => Ok(()),
        }
    }

    pub(super) async fn invite(&self, name: Option<String>, expires_secs: u64, sink: &Sink) -> Result<Exit, Failure> {
        self.check_not_revoked()?;
        let (paths, own) = (&self.0.home.paths, self.0.home.account.account_id());
        let is_alone = Roster::load(&paths.roster()).is_none_or(|roster| roster.is_alone(own));
        if is_alone && !paths.catalog().exists() {
            return Err(
                Failure::new(Exit::Failed, "This home is in no grid with others, and has no catalog")
                    .hint("`gridbackup recover --via ADDRESS` finds the grid that the account is in"),
            );
        }
        let net = self.listening_network().await?;
        let expires = clock::now_secs().saturating_add(expires_secs);
        let ticket = net.invite(name.as_deref().unwrap_or_default(), expires).await;
        let ticket = ticket.map_err(|error| {
            let failure = Failure::from_error(&error);
            match error {
                InviteError::NoAddress => {
                    failure.hint("set where to listen with `gridbackup config set listen ADDRESS`")
                }
                InviteError::GridFull => failure.hint(FULL_HINT),
                _ => failure,
            }
        })?;
        let expires = i64::try_from(expires)
            .ok()
            .and_then(|secs| Timestamp::from_second(secs).ok());
        let expires = expires.unwrap_or(Timestamp::MAX);
        sink.send(message::Ticket {
            ticket: ticket.to_string(),
            expires,
        })
        .await?;
        Ok(Exit::Done)
    }

    pub(super) async fn join(&self, ticket: &str, word: Option<String>, sink: &Sink) -> Result<Exit, Failure> {
        let ticket: Ticket = ticket.parse().map_err(|error| Failure::from_error(&error))?;
        let net = self.listening_network().await?;
        if let Some(word) = word {
            self.heard(&Word::encoded(word)).await?;
        }
        self.check_not_revoked()?;
        net.join(&ticket).await.map_err(join_failure)?;
        self.refresh_peers();
        let roster = net.roster();
        let inviter = roster.device(ticket.inviter).map(|device| device.cert.account);
        let own = self.0.home.account.account_id();
        let message = message::Joined {
            inviter: inviter.map(|account| roster.name_of(account)).unwrap_or_default(),
            members: roster
                .members()
                .filter(|member| member.account != own)
                .map(|member| roster.name_of(member.account))
                .collect(),
        };
        sink.send(message).await?;
        Ok(Exit::Done)
    }

    /// Recovery: finds the grid by a friend's address, or by the address in a ticket of his.
    pub(super) async fn meet(&self, place: &str) -> Result<(), Failure> {
        let net = self.network().await?;
        if let Ok(ticket) = place.parse::<Ticket>() {
            return net.join(&ticket).await.map_err(join_failure);
        }
        let address: Multiaddr = place.parse().map_err(|_| {
            Failure::new(
                Exit::Usage,
                format!("`{place}` is neither a ticket nor an address nor dir:PATH"),
            )
            .hint("an address looks like /ip4/203.0.113.7/tcp/4250/p2p/12D3KooW…")
        })?;
        net.meet(address).await.map(drop).map_err(join_failure)
    }

    /// Bytes kept for an account.
    pub(super) async fn bytes_kept_for(&self, account: AccountId) -> u64 {
        let Some(net) = self.0.net.get().cloned() else { return 0 };
        let counted = tokio::task::spawn_blocking(move || net.kept_for(account)).await;
        counted.ok().and_then(Result::ok).unwrap_or(0)
    }

    /// What went over share streams since the start, and bytes kept for all friends.
    pub(super) async fn kept_for_friends(&self) -> (Counted, u64) {
        let Some(net) = self.0.net.get() else {
            return Default::default();
        };
        let mut kept = 0;
        for friend in self.friends(&net.roster()) {
            kept += self.bytes_kept_for(friend.account).await;
        }
        (net.counters(), kept)
    }
}

/// Whether the account has revoked this machine, as far as is known here.
pub(super) fn is_revoked(paths: &HomePaths, cert: &DeviceCert) -> bool {
    Roster::load(&paths.roster()).is_some_and(|roster| !roster.is_in_force(cert))
}

/// Whether the account has left the grid that this machine knows: another machine of it heard the words.
pub(super) fn has_left(paths: &HomePaths, cert: &DeviceCert) -> bool {
    Roster::load(&paths.roster()).is_some_and(|roster| roster.has_left(cert.account))
}

fn join_failure(error: JoinError) -> Failure {
    let hint = match &error {
        JoinError::Connect(_) => Some("is the other node running, and can this machine reach its address?"),
        JoinError::Refused {
            refusal: Refusal::GridFull,
            ..
        } => Some(FULL_HINT),
        JoinError::Refused {
            refusal: Refusal::HasLeft,
            ..
        } => Some("only its words bring it back: `gridbackup join TICKET --phrase-file FILE`"),
        JoinError::Refused {
            refusal: Refusal::Revoked,
            ..
        } => Some(REVOKED_HINT),
        JoinError::Refused {
            refusal: Refusal::KeptOut,
            ..
        } => Some("who has removed it invites it again"),
        JoinError::Refused { .. } => Some("ask for a fresh ticket with `gridbackup invite`"),
        _ => None,
    };
    let failure = Failure::from_error(&error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
