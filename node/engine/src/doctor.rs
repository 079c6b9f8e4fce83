//! `doctor`: what stands between this node and its friends, and what to do about each thing.
//!
//! Looks at this machine and asks friends; changes nothing. What stands between a backup and the verdict "safe" is said in
//! the verdict's own words.

use std::fs;
use std::path::Path;

use api::clock;
use api::failure::{Exit, Failure};
use api::human::ByteSize;
use api::message::{Finding, Level, Reach, State, Topic};
use api::output::Sink;
use durable::state_file;
use friendnet::handle::NetHandle;
use friendnet::identity;
use friendnet::multiaddr::Protocol;
use friendnet::net::reach::{Reachability, Route, Upnp};
use futures::future::join_all;
use upload_queue::peers::Peer;
use upload_queue::space::Disk;

use crate::peers::PROBE_WAIT;
use crate::verdict::{Verdict, judge};
use crate::{Engine, Mode, kind};

/// What the QUIC transport asks the system for (docs/protocol/reach.md).
const UDP_BUFFER_BYTES: u64 = 4 << 20;
/// Less than this, and the catalog and the spool may not find room. Chosen: a day's changes of most people.
const STATE_FREE_BYTES_MIN: u64 = 1 << 30;
/// A record of others may be this much ahead of this machine's clock.
const CLOCK_TOLERANCE_SECS: u64 = 300;

impl Engine {
    /// Exit code 1 if anything is wrong.
    pub(super) async fn doctor(&self, sink: &Sink) -> Result<Exit, Failure> {
        self.connect().await?;
        let mut findings = self.friends_findings().await;
        let all_reached = findings.iter().all(|finding| finding.level != Level::Problem);
        findings.extend(self.own_findings(all_reached));
        findings.extend(udp_buffers());
        findings.push(self.clock());
        findings.push(self.space().await);
        findings.push(self.spool_finding()?);
        findings.extend(self.set_aside());
        let votes = self.votes_without(&|_| false);
        findings.extend(
            votes
                .iter()
                .filter_map(|votes| Some(found(Topic::Disk, Level::Ok, votes.text()?))),
        );
        findings.extend(backup(&judge(&self.facts().await?)));
        let is_ill = findings.iter().any(|finding| finding.level == Level::Problem);
        for finding in findings {
            sink.send(finding).await?;
        }
        Ok(if is_ill { Exit::Failed } else { Exit::Done })
    }

    async fn friends_findings(&self) -> Vec<Finding> {
        let peers = self.0.peers.all();
        if peers.is_empty() {
            let lonely = found(
                Topic::Peer,
                Level::Problem,
                "There is nobody to keep anything".to_owned(),
            );
            return vec![
                lonely.remedy("invite a friend with `gridbackup invite`, or add a folder with `gridbackup peer add`"),
            ];
        }
        let counted = peers.iter().filter(|peer| peer.place.is_counted());
        join_all(counted.map(|peer| self.one_peer(peer))).await
    }

    async fn one_peer(&self, peer: &Peer) -> Finding {
        let answer = tokio::time::timeout(PROBE_WAIT, peer.store.space()).await;
        let reached = match &answer {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Some(error)),
            Err(_) => Err(None),
        };
        let device = peer.place.device();
        let route = device.and_then(|device| self.0.net.get()?.route(device));
        let name = &peer.name;
        let mut finding = match (reached, device, route) {
            (Err(error), ..) => {
                let (text, remedy) = kind::trouble(peer, error);
                found(Topic::Peer, Level::Problem, text).remedy(remedy)
            }
            (Ok(()), None, _) => found(Topic::Peer, Level::Ok, format!("{name} is there")),
            (Ok(()), Some(_), Some(Route::Relayed)) => found(
                Topic::Peer,
                Level::Notice,
                format!("{name} is reached through another friend, which costs that friend bandwidth"),
            )
            .remedy("forward a port on one of the two routers; see below for this one"),
            (Ok(()), Some(_), Some(Route::HolePunched)) => found(
                Topic::Peer,
                Level::Ok,
                format!("{name} is reached directly, through a punched hole"),
            ),
            (Ok(()), Some(_), _) => found(Topic::Peer, Level::Ok, format!("{name} is reached directly")),
        };
        finding.peer = Some(name.clone());
        finding.reach = Some(match (finding.level, device) {
            (Level::Problem, _) => Reach::None,
            (_, None) => Reach::Local,
            (_, Some(_)) => kind::route_of(route),
        });
        finding
    }

    fn own_findings(&self, all_reached: bool) -> Vec<Finding> {
        let Some(net) = self.0.net.get() else { return Vec::new() };
        if matches!(self.0.mode, Mode::Command(_)) {
            return vec![
                found(
                    Topic::Outside,
                    Level::Notice,
                    "The daemon does not run: friends cannot reach this node".to_owned(),
                )
                .remedy("start it with `gridbackup run`"),
            ];
        }
        let reachability = net.reachability();
        let level = if all_reached { Level::Notice } else { Level::Problem };
        vec![self.outside(net, &reachability, level), router(&reachability)]
    }

    /// Whether somebody from outside can dial this node.
    fn outside(&self, net: &NetHandle, reachability: &Reachability, otherwise: Level) -> Finding {
        if let Some(address) = reachability.external.first() {
            return found(
                Topic::Outside,
                Level::Ok,
                format!("This node is reached from outside at {address}"),
            );
        }
        let remedy = match listen_port(net) {
            Some(port) => format!(
                "forward port {port}, TCP and UDP, to this machine on the router, or switch UPnP on there; then every friend can dial this node"
            ),
            None => "set where to listen with `gridbackup config set listen ADDRESS`".to_owned(),
        };
        let relays: Vec<_> = reachability
            .relays
            .iter()
            .map(|relay| self.name_of(net, *relay))
            .collect();
        let finding = if relays.is_empty() {
            found(
                Topic::Outside,
                otherwise,
                "Nobody from outside has reached this node, and no friend forwards to it".to_owned(),
            )
        } else {
            let text = format!(
                "Nobody from outside has reached this node; {} forwards to it",
                relays.join(" and ")
            );
            found(Topic::Outside, Level::Notice, text)
        };
        finding.remedy(&remedy)
    }

    fn name_of(&self, net: &NetHandle, relay: friendnet::PeerId) -> String {
        let friends = self.friends(&net.roster());
        let device = identity::device_id(relay);
        let friend = friends.into_iter().find(|friend| Some(friend.device) == device);
        friend.map_or_else(|| relay.to_string(), |friend| friend.name)
    }

    /// Whether this machine's clock is behind what this account has signed: then tickets and certificates are judged wrongly. What
    /// others sign may say any time.
    fn clock(&self) -> Finding {
        let now = clock::now_secs();
        let roster = self.0.net.get().map(NetHandle::roster);
        let own = self.0.home.account.account_id();
        let newest = roster
            .iter()
            .flat_map(|roster| roster.devices())
            .filter(|device| device.cert.account == own)
            .map(|device| device.cert.issued_secs)
            .max();
        match newest.filter(|newest| *newest > now + CLOCK_TOLERANCE_SECS) {
            Some(ahead) => {
                let text = format!("This machine's clock is at least {} s behind", ahead - now);
                found(Topic::Clock, Level::Problem, text).remedy("set the clock, or switch time synchronisation on")
            }
            None => found(
                Topic::Clock,
                Level::Ok,
                "This machine's clock agrees with the grid's records".to_owned(),
            ),
        }
    }

    /// Whether what waits to be sent leaves room for more.
    fn spool_finding(&self) -> Result<Finding, Failure> {
        let spool = self.spool()?;
        let text = spool.text();
        if spool.bytes * 2 < spool.bytes_max || spool.bytes == 0 {
            return Ok(found(Topic::Spool, Level::Ok, text));
        }
        Ok(found(Topic::Spool, Level::Notice, text).remedy(
            "it empties when these friends are back; new packs are made without them meanwhile. `gridbackup config set spool_max SIZE` keeps more for them",
        ))
    }

    /// State files that could not be read: each stays named until somebody has looked at it.
    fn set_aside(&self) -> Option<Finding> {
        let aside = state_file::all_set_aside(self.0.home.paths.state_dir());
        let names: Vec<_> = aside.iter().map(|path| path.display().to_string()).collect();
        (!names.is_empty()).then(|| {
            let text = format!("Could not be read and was set aside: {}", names.join(", "));
            found(Topic::State, Level::Notice, text)
                .remedy("check the disk; `roster`: friends bring it, or join again; `invites`: invite again; then remove the file")
        })
    }

    /// Whether there is room for what was offered to friends, and for this node's own state.
    async fn space(&self) -> Finding {
        let (_, kept) = self.kept_for_friends().await;
        let dir = self.0.home.paths.state_dir();
        let Ok(disk) = Disk::of(dir) else {
            return found(Topic::Space, Level::Problem, format!("{} is not there", dir.display()));
        };
        let (config, free) = (self.config(), disk.free_bytes);
        let takable = disk.takable(config.min_free.0);
        let offered = config.store_max.bytes(kept, takable).saturating_sub(kept);
        let (free_text, offered_text) = (ByteSize(free), ByteSize(offered));
        if free < STATE_FREE_BYTES_MIN {
            return found(
                Topic::Space,
                Level::Problem,
                format!("Only {free_text} are free in {}", dir.display()),
            )
            .remedy("make room, or move the home with --home");
        }
        if takable == 0 {
            let text = format!("{free_text} are free, which stay free: this node takes no more shares");
            return found(Topic::Space, Level::Problem, text)
                .remedy("make room, or keep less free with `gridbackup config set min_free SIZE`");
        }
        if takable < offered {
            let text = format!(
                "{offered_text} more are offered to friends, but only {free_text} are free, and some of it stays free"
            );
            return found(Topic::Space, Level::Notice, text)
                .remedy("offer less with `gridbackup config set store_max SIZE`");
        }
        found(
            Topic::Space,
            Level::Ok,
            format!("{free_text} are free, {offered_text} of it offered to friends"),
        )
    }
}

/// The verdict as findings. What is said of peers by name is not said again.
fn backup(verdict: &Verdict) -> Vec<Finding> {
    let findings = verdict.reasons.iter().filter_map(|reason| {
        let level = match reason.state {
            State::NoPeer | State::Away => return None,
            State::Safe | State::StoreOnly => Level::Ok,
            State::Revoked
            | State::Left
            | State::Lost
            | State::DiskLost
            | State::DiskShut
            | State::HeadRefused
            | State::AtRisk
            | State::ConfigDamaged
            | State::RunFailed
            | State::RunLate
            | State::OlderLost
            | State::HeadUnread
            | State::FolderFailing => Level::Problem,
            State::Nothing
            | State::NoFolder
            | State::RunCutOff
            | State::UnderProtected
            | State::Waiting
            | State::DiskAhead
            | State::DiskAtRisk
            | State::DiskVoterGone
            | State::DiskUnknown
            | State::HeadBehind
            | State::OlderAtRisk
            | State::FolderNew
            | State::FewPeers
            | State::LeftOut => Level::Notice,
        };
        let mut finding = found(Topic::Backup, level, reason.text.clone());
        finding.remedy.clone_from(&reason.remedy);
        Some(finding)
    });
    findings.collect()
}

fn router(reachability: &Reachability) -> Finding {
    match reachability.upnp {
        Upnp::Mapped => found(
            Topic::Upnp,
            Level::Ok,
            "The router forwards a port to this node".to_owned(),
        ),
        Upnp::Off => found(Topic::Upnp, Level::Ok, "The router is not asked for a port".to_owned()),
        Upnp::Searching => found(Topic::Upnp, Level::Ok, "The router has not answered yet".to_owned()),
        _ if reachability.is_public() => found(
            Topic::Upnp,
            Level::Ok,
            "No router forwards a port, and none has to".to_owned(),
        ),
        Upnp::NoGateway => found(
            Topic::Upnp,
            Level::Notice,
            "No router offers to forward a port".to_owned(),
        )
        .remedy("switch UPnP on in the router, or forward a port there by hand"),
        Upnp::NotRoutable => found(
            Topic::Upnp,
            Level::Notice,
            "The router itself has no public address".to_owned(),
        )
        .remedy("ask the provider for a public IPv4 address or for IPv6; until then friends forward"),
    }
}

/// QUIC is slow with the small buffers that Linux gives by default.
fn udp_buffers() -> Option<Finding> {
    let limit = |name: &str| {
        let text = fs::read_to_string(Path::new("/proc/sys/net/core").join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let least = limit("rmem_max")?.min(limit("wmem_max")?);
    Some(if least >= UDP_BUFFER_BYTES {
        found(Topic::UdpBuffers, Level::Ok, "UDP buffers are large enough".to_owned())
    } else {
        let text = format!(
            "UDP buffers are limited to {}: QUIC and punched holes are slow over long distances",
            ByteSize(least)
        );
        found(Topic::UdpBuffers, Level::Notice, text).remedy(&format!(
            "as root: sysctl -w net.core.rmem_max={UDP_BUFFER_BYTES} net.core.wmem_max={UDP_BUFFER_BYTES}"
        ))
    })
}

fn listen_port(net: &NetHandle) -> Option<u16> {
    net.listen_addresses().iter().flatten().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    })
}

fn found(check: Topic, level: Level, text: String) -> Finding {
    Finding {
        check,
        level,
        peer: None,
        reach: None,
        text,
        remedy: None,
    }
}
