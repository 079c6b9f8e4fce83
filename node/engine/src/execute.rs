//! Who answers what is asked: one arm a verb.
//!
//! The requests come sorted by what they need, so that a verb without an answer does not compile.

use api::failure::{Exit, Failure};
use api::message::Message;
use api::output::Sink;
use api::request::{CatalogRequest, ConfigSet, Needing, Request, RosterRequest, SettingsRequest};

use crate::Engine;
use crate::config::{self, ConfigFile};

/// What is asked of a process, where none serves the home.
pub fn no_daemon() -> Failure {
    Failure::new(Exit::Failed, "No daemon runs in this home").hint("start one with `gridbackup run`")
}

impl Engine {
    /// Executes one request; answers go to `sink`, the exit code is the request's. Dropping the future stops what it can.
    /// What is asked of a process is answered by the process.
    pub async fn execute(&self, request: Request, sink: Sink) -> Result<Exit, Failure> {
        self.refuse_at_fault(&request)?;
        self.refuse_without_power(request.verb().how.power)?;
        match request.sorted() {
            Needing::Process(_) => Err(no_daemon()),
            Needing::Settings(asked) => self.configure(asked, &sink).await,
            Needing::Roster(asked) => self.answer_of_roster(asked, &sink).await,
            Needing::Catalog(asked) => self.answer_of_catalog(asked, &sink).await,
        }
    }

    /// Answers what only reads or edits config.toml; a changed config is in force for the next run.
    async fn configure(&self, request: SettingsRequest, sink: &Sink) -> Result<Exit, Failure> {
        let request = match request {
            SettingsRequest::ConfigSet(asked) if asked.key == config::STEWARD => {
                let value = self.steward_setting(&asked.value)?;
                SettingsRequest::ConfigSet(ConfigSet { value, ..asked })
            }
            request => request,
        };
        let paths = &self.0.home.paths;
        let messages = config::answer(&paths.config(), &paths.last_config(), &request)?;
        self.configured(messages, sink).await
    }

    /// Takes into force what config.toml says now, and says what was changed in it.
    pub(super) async fn configured(&self, messages: Vec<Message>, sink: &Sink) -> Result<Exit, Failure> {
        self.set_config(ConfigFile::open(&self.0.home.paths.config())?.config().clone());
        for message in messages {
            sink.send(message).await?;
        }
        Ok(Exit::Done)
    }

    async fn answer_of_roster(&self, request: RosterRequest, sink: &Sink) -> Result<Exit, Failure> {
        match request {
            RosterRequest::Invite(asked) => self.invite(asked.name, asked.expires_secs, sink).await,
            RosterRequest::Join(asked) => self.join(&asked.ticket, asked.word, sink).await,
            RosterRequest::DeviceList => self.list_devices(sink).await,
            RosterRequest::Say(word) => self.say(&word, sink).await,
            RosterRequest::PeerList => self.list_peers(sink).await,
            RosterRequest::PeerEvict(asked) => self.evict(&asked.name, sink).await,
        }
    }

    async fn answer_of_catalog(&self, request: CatalogRequest, sink: &Sink) -> Result<Exit, Failure> {
        match request {
            CatalogRequest::Status(asked) if asked.paths.is_empty() => self.status(sink).await,
            CatalogRequest::Status(asked) => self.file_status(&asked.paths, sink).await,
            CatalogRequest::Queue(asked) => self.list_queue(asked.limit, sink).await,
            CatalogRequest::Doctor => self.doctor(sink).await,
            CatalogRequest::RunOnce(asked) => self.run_once(&asked, sink).await,
            CatalogRequest::Snapshots(filter) => self.list_snapshots(&filter, sink).await,
            CatalogRequest::Tag(asked) => self.tag(&asked, sink).await,
            CatalogRequest::Pin(asked) => self.pin(&asked.snapshots, asked.pinned, sink).await,
            CatalogRequest::List(asked) => self.list(asked, sink).await,
            CatalogRequest::Find(asked) => self.find(asked, sink).await,
            CatalogRequest::Cat(asked) => self.cat(&asked.snapshot, &asked.path, sink).await,
            CatalogRequest::Diff(asked) => self.diff(asked, sink).await,
            CatalogRequest::Dump(asked) => self.dump(asked, sink).await,
            CatalogRequest::Stats(asked) => self.stats(asked.snapshot.as_deref(), sink).await,
            CatalogRequest::Verify(asked) => self.verify(asked.files, sink).await,
            CatalogRequest::Restore(asked) => self.restore(asked, sink).await,
            CatalogRequest::Mount(asked) => self.mount(asked, sink).await,
            CatalogRequest::Forget(asked) => self.forget(asked, sink).await,
            CatalogRequest::Prune(asked) => self.prune(asked.dry_run, sink).await,
            CatalogRequest::Undelete(asked) => self.undelete(&asked.snapshots, sink).await,
            CatalogRequest::Check(asked) => self.check(asked.read_percent, sink).await,
            CatalogRequest::Repair(asked) => self.repair_and_settle(asked.once, sink).await,
            CatalogRequest::Recover(asked) => self.recover(asked, sink).await,
            CatalogRequest::DiskList => self.list_disks(sink).await,
            CatalogRequest::DiskInfo(asked) => self.disk_info(&asked.name, sink).await,
            CatalogRequest::DiskCreate(asked) => self.create_disk(asked, sink).await,
            CatalogRequest::DiskServe(asked) => self.serve_disk(asked, sink).await,
            CatalogRequest::DiskFlush(asked) => self.flush_disk(&asked.name, sink).await,
            CatalogRequest::DiskSnapshot(asked) => self.snapshot_disk(asked, sink).await,
            CatalogRequest::DiskSnapshotRemove(asked) => self.remove_disk_snapshot(asked, sink).await,
            CatalogRequest::DiskRollback(asked) => self.roll_disk_back(asked, sink).await,
            CatalogRequest::DiskResize(asked) => self.resize_disk(&asked, sink).await,
            CatalogRequest::DiskClone(asked) => self.clone_disk(asked, sink).await,
            CatalogRequest::DiskSalvage(asked) => self.salvage_disk(asked, sink).await,
            CatalogRequest::DiskExport(asked) => self.export_disk(asked, sink).await,
            CatalogRequest::DiskImport(asked) => self.import_disk(asked, sink).await,
            CatalogRequest::DiskCheck(asked) => self.check_disk(&asked, sink).await,
            CatalogRequest::DiskVoters(asked) => self.show_voters(&asked.name, sink).await,
            CatalogRequest::DiskVotersReplace(asked) => self.replace_voters(asked, sink).await,
            CatalogRequest::DiskErase(asked) => self.erase_disk(&asked.name, sink).await,
            CatalogRequest::DiskRemove(asked) => self.remove_disk(&asked, sink).await,
            CatalogRequest::PeerAdd(asked) => self.add_peer(&asked, sink).await,
            CatalogRequest::PeerRemove(asked) => self.remove_peer(&asked, sink).await,
            CatalogRequest::PeerSet(asked) => self.set_peer(&asked, sink).await,
        }
    }
}
