//! Everything that is asked of a home, as one table of verbs: what the command line asks in-process or over the API.
//!
//! A row is a verb's name, what it asks (a type whose fields are the API's), HTTP method, URI template, what it does and, where it
//! takes one, the power of a device. It stands in the group of what it needs. Nothing else lists verbs: `verb.rs` says what is made
//! of the table.
//!
//! Paths are absolute (the asking process knows its working directory, the daemon does not). A snapshot is named by
//! `latest`, a date or an id prefix, which the engine resolves.

use proto::keys::power;

mod backup;
mod care;
mod disks;
pub mod field;
mod peers;
mod restore;
mod settings;
mod snapshots;
pub mod verb;
mod word;

pub use backup::{Queue, RunOnce, Status};
pub use care::{Check, Forget, Prune, Repair, Undelete};
pub use disks::{
    DiskCheck, DiskClone, DiskCreate, DiskExport, DiskImport, DiskNamed, DiskRemove, DiskResize, DiskSalvage,
    DiskServe, DiskSnapshot, DiskSync, DiskVotersReplace, TakeOver,
};
pub use peers::{Invite, Join, PeerAdd, PeerEvict, PeerRemove, PeerSet, RemoveHow};
pub use restore::{Mount, Overwrite, Recover, Restore, Verify};
pub use settings::{ConfigGet, ConfigSet, Folders, Rules};
pub use snapshots::{Cat, Diff, Dump, DumpFormat, Find, GroupBy, List, Pin, SnapshotFilter, Stats, Tag};
pub use word::Word;

use verb::{Does, How, Needs, Verb, verbs};

verbs! {
    /// What is asked of a process.
    Process(ProcessRequest) {
        /// The daemon's `ready` message.
        "ready" Ready: GET "/node", Shows;
        /// Stops the daemon.
        "stop" Stop: POST "/node/stop", Works;
    }

    /// What is asked of config.toml alone.
    Settings(SettingsRequest) {
        /// Lists the folders.
        "folder_list" FolderList: GET "/folders", Shows;
        /// Adds folders to what is backed up.
        "folder_add" FolderAdd(Folders): POST "/folders", Works;
        /// Removes folders; what is backed up of them stays.
        "folder_remove" FolderRemove(Folders): DELETE "/folders{?paths*}", Works;
        /// Lists the exclude rules.
        "exclude_list" ExcludeList: GET "/rules", Shows;
        /// Adds exclude rules.
        "exclude_add" ExcludeAdd(Rules): POST "/rules", Works;
        /// Removes exclude rules, written as they were added.
        "exclude_remove" ExcludeRemove(Rules): DELETE "/rules{?patterns*}", Works;
        /// A setting, or all of them.
        "config_get" ConfigGet(ConfigGet): GET "/settings{?key}", Shows;
        /// Changes a setting.
        "config_set" ConfigSet(ConfigSet): PUT "/settings/{key}", Works;
    }

    /// What is asked about who belongs.
    Roster(RosterRequest) {
        /// Makes a one-use ticket.
        "invite" Invite(Invite): POST "/invites", Works;
        /// Joins the inviter's grid.
        "join" Join(Join): POST "/memberships", Works;
        /// Lists the devices of this account.
        "device_list" DeviceList: GET "/devices", Shows;
        /// Tells everybody what this account says of itself: which devices it has revoked, which grids it has left.
        "say" Say(Word): POST "/words", Works;
        /// Lists the peers.
        "peer_list" PeerList: GET "/peers", Shows;
        /// Removes what a friend stored here who has been silent for half a year.
        "peer_evict" PeerEvict(PeerEvict): DELETE "/peers/{name}/shares", Works;
    }

    /// What is asked of the catalog, and of what it knows of peers.
    Catalog(CatalogRequest) {
        /// Is everything safe; with paths: are these.
        "status" Status(Status): GET "/status{?paths*}", Shows;
        /// What goes up next, and why.
        "queue" Queue(Queue): GET "/queue{?limit}", Shows;
        /// What is wrong with this node and its links, and what to do about it.
        "doctor" Doctor: GET "/doctor", Shows;
        /// One snapshot of these paths, then upload until nothing more can be placed.
        "run_once" RunOnce(RunOnce): POST "/runs", Works;
        /// Lists the snapshots.
        "snapshots" Snapshots(SnapshotFilter): GET "/snapshots{?device,path,tags*,last,group_by*}", Shows;
        /// Changes the tags of snapshots.
        "tag" Tag(Tag): PATCH "/snapshots", Works;
        /// Keeps snapshots from being forgotten by a policy, or lets them go.
        "pin" Pin(Pin): POST "/pins", Works;
        /// Lists a folder of a snapshot.
        "list" List(List): GET "/snapshots/{snapshot}/entries{?path,recursive}", Shows;
        /// Entries by name, in one snapshot or in all.
        "find" Find(Find): GET "/entries{?pattern,snapshot,path,newer,older,kind}", Shows;
        /// A file's content, as bytes.
        "cat" Cat(Cat): GET "/snapshots/{snapshot}/content{?path}", Shows READ;
        /// What changed between two snapshots.
        "diff" Diff(Diff): GET "/snapshots/{before}/changes{?after,path}", Shows;
        /// A snapshot, or a part of it, as an archive, in bytes.
        "dump" Dump(Dump): GET "/snapshots/{snapshot}/archive{?path,format}", Streams READ;
        /// What snapshots take; which one, or all.
        "stats" Stats(Stats): GET "/statistics{?snapshot}", Shows;
        /// A drill: reads random files from the grid and compares them with the disk.
        "verify" Verify(Verify): POST "/verifications", Reads READ;
        /// Restores.
        "restore" Restore(Restore): POST "/restores", Reads READ;
        /// Shows the snapshots as folders until the answer is no longer read.
        "mount" Mount(Mount): POST "/mounts", Streams READ;
        /// Forgets snapshots.
        "forget" Forget(Forget): POST "/retentions", Works;
        /// Gives up what no snapshot wants.
        "prune" Prune(Prune): POST "/prunings", Works GIVE_UP;
        /// Brings forgotten snapshots back.
        "undelete" Undelete(Undelete): POST "/undeletions", Works GIVE_UP;
        /// Is every share where it should be, and intact.
        "check" Check(Check): POST "/checks", Works;
        /// Builds shares anew that are lost, and brings doubled ones to distinct places.
        "repair" Repair(Repair): POST "/repairs", Works;
        /// Rebuilds the local state of a home that was just made from the phrase.
        "recover" Recover(Recover): POST "/recoveries", Works READ;
        /// Lists the disks.
        "disk_list" DiskList: GET "/disks", Shows READ;
        /// What is known of a disk.
        "disk_info" DiskInfo(DiskNamed): GET "/disks/{name}", Shows READ;
        /// Makes a disk.
        "disk_create" DiskCreate(DiskCreate): POST "/disks", Works READ;
        /// Serves a disk until the answer is no longer read.
        "disk_serve" DiskServe(DiskServe): POST "/disks/{name}/servings", Serves READ;
        /// Puts all that was written to a disk on peers.
        "disk_flush" DiskFlush(DiskNamed): POST "/disks/{name}/commits", Works READ;
        /// Keeps what a disk is now under a name.
        "disk_snapshot" DiskSnapshot(DiskSnapshot): POST "/disks/{name}/snapshots", Works READ;
        /// Deletes a snapshot of a disk.
        "disk_snapshot_remove" DiskSnapshotRemove(DiskSnapshot): DELETE "/disks/{name}/snapshots/{snapshot}", Works READ;
        /// Makes a disk what a snapshot of it is.
        "disk_rollback" DiskRollback(DiskSnapshot): POST "/disks/{name}/rollbacks", Works READ;
        /// Gives a disk another size.
        "disk_resize" DiskResize(DiskResize): PATCH "/disks/{name}", Works READ;
        /// Makes a disk of a snapshot of another one.
        "disk_clone" DiskClone(DiskClone): POST "/disks/{name}/clones", Works READ;
        /// Makes a disk of what this machine has of one that another machine took over.
        "disk_salvage" DiskSalvage(DiskSalvage): POST "/disks/{name}/salvages", Works READ;
        /// Writes a disk to a file.
        "disk_export" DiskExport(DiskExport): POST "/disks/{name}/exports", Works READ;
        /// Writes a file to a disk.
        "disk_import" DiskImport(DiskImport): POST "/disks/{name}/imports", Works READ;
        /// Reads all of a disk.
        "disk_check" DiskCheck(DiskCheck): POST "/disks/{name}/checks", Works READ;
        /// Who decides which machine writes a disk.
        "disk_voters" DiskVoters(DiskNamed): GET "/disks/{name}/voters", Shows READ;
        /// Gives a disk other voters.
        "disk_voters_replace" DiskVotersReplace(DiskVotersReplace): POST "/disks/{name}/voters", Works READ;
        /// Makes a disk empty.
        "disk_erase" DiskErase(DiskNamed): POST "/disks/{name}/erasures", Works READ;
        /// Removes a disk and all that is in it.
        "disk_remove" DiskRemove(DiskRemove): DELETE "/disks/{name}{?lost}", Works READ;
        /// Adds an S3 bucket or a folder as a peer.
        "peer_add" PeerAdd(PeerAdd): POST "/peers", Works;
        /// Removes a peer.
        "peer_remove" PeerRemove(PeerRemove): DELETE "/peers/{name}{?how}", Works;
        /// Changes a peer.
        "peer_set" PeerSet(PeerSet): PATCH "/peers/{name}", Works;
    }
}
