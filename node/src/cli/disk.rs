//! `disk`: virtual disks whose blocks lie on the grid.

use std::path::{Path, PathBuf};

use api::failure::{Exit, Failure};
use api::human::ByteSize;
use api::request::{
    DiskCheck, DiskClone, DiskCreate, DiskExport, DiskImport, DiskNamed, DiskRemove, DiskResize, DiskSalvage,
    DiskServe, DiskSnapshot, DiskSync, DiskVotersReplace, Request, TakeOver,
};

use super::choice::choice;
use super::context::{Context, absolute};

/// How NBD addresses of Unix sockets begin.
const UNIX: &str = "unix:";

#[derive(Debug, clap::Args)]
pub struct TakeOverArg {
    /// What becomes of a disk that another machine of this account wrote last
    #[arg(long, value_parser = choice(TakeOver::ALL, TakeOver::name, about_take_over), default_value_t)]
    take_over: TakeOver,
}

/// Arguments of `disk create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// A name for it
    name: String,
    /// Its size, for example 100G; a multiple of 4 KiB
    #[arg(long, value_name = "SIZE")]
    size: ByteSize,
    /// Folder for its journal, on a fast disk [default: in the home]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Bytes that the journal may take: what can be written while no peer takes anything [default: 2G]
    #[arg(long, value_name = "SIZE")]
    cache_size: Option<ByteSize>,
}

/// Arguments of `disk serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Its name, or the first digits of its id
    name: String,
    /// Where to listen: `unix:PATH` or, on this machine alone, `127.0.0.1:PORT`; may be repeated
    #[arg(long, value_name = "ADDR", required = true)]
    nbd: Vec<String>,
    /// What a flush waits for
    #[arg(long, value_parser = choice(DiskSync::ALL, DiskSync::name, about), default_value_t)]
    sync: DiskSync,
    #[command(flatten)]
    take_over: TakeOverArg,
}

/// Arguments of `disk mount`.
#[derive(Debug, clap::Args)]
pub struct MountArgs {
    /// Its name, or the first digits of its id
    name: String,
    /// The file; its folder must be there and empty, and is mounted on
    file: PathBuf,
    /// Let other users use the file, as far as its mode lets them
    #[arg(long)]
    allow_other: bool,
    /// What a flush waits for
    #[arg(long, value_parser = choice(DiskSync::ALL, DiskSync::name, about), default_value_t)]
    sync: DiskSync,
    #[command(flatten)]
    take_over: TakeOverArg,
}

/// Arguments of `disk voters`.
#[derive(Debug, clap::Args)]
pub struct VotersArgs {
    /// Its name, or the first digits of its id
    name: String,
    /// Choose anew among the peers that answer
    #[arg(long)]
    replace: bool,
    /// A majority of them is lost for good. Those that do not answer must never come back together with a machine that wrote by them: it would go on
    /// beside this one, and what it wrote be lost
    #[arg(long, requires = "replace")]
    lost: bool,
    /// What becomes of a disk that another machine of this account wrote last
    #[arg(long, requires = "replace", value_parser = choice(TakeOver::ALL, TakeOver::name, about_take_over), default_value_t)]
    take_over: TakeOver,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a disk; it takes no room before something is written to it
    Create(CreateArgs),
    /// List the disks of this account
    Ls,
    /// All that is known of a disk
    #[command(visible_alias = "stats")]
    Info {
        /// Its name, or the first digits of its id
        name: String,
    },
    /// Serve a disk to NBD clients (QEMU, the kernel's nbd-client), until Ctrl-C
    Serve(ServeArgs),
    /// Show a disk as a file, for `losetup` and `mount -o loop`, until Ctrl-C
    Mount(MountArgs),
    /// Put all that was written to a disk on peers, now
    Flush {
        /// Its name, or the first digits of its id
        name: String,
    },
    /// Keep what a disk is now under a name; or delete such a snapshot
    Snapshot {
        /// The disk's name, or the first digits of its id
        name: String,
        /// The snapshot's name
        snapshot: String,
        /// Delete it
        #[arg(long)]
        delete: bool,
    },
    /// Make a disk what a snapshot of it is; what it was becomes a snapshot, too
    Rollback {
        /// The disk's name, or the first digits of its id
        name: String,
        /// The snapshot's name
        snapshot: String,
    },
    /// Make a new disk that begins as a snapshot of another one, without copying it
    Clone {
        /// The name of the disk there is, or the first digits of its id
        name: String,
        /// The new disk's name
        new: String,
        /// Which of its snapshots [default: one is taken now]
        #[arg(long, value_name = "NAME")]
        snapshot: Option<String>,
    },
    /// Give a disk another size; the file system on it is another matter
    Resize {
        /// Its name, or the first digits of its id
        name: String,
        /// Its new size
        size: ByteSize,
        /// Also if that is smaller: what is beyond is gone
        #[arg(long)]
        shrink: bool,
    },
    /// Write a disk to a new file, a raw image with holes
    Export {
        /// The disk's name, or the first digits of its id
        name: String,
        /// The file
        file: PathBuf,
        /// Which of its snapshots [default: the disk as it is]
        #[arg(long, value_name = "NAME")]
        snapshot: Option<String>,
        /// As of its last commit, whoever writes it, and without being its writer; asks no voter, and writes nothing to peers
        #[arg(long)]
        committed: bool,
    },
    /// Make a disk what a raw image is
    Import {
        /// The disk's name, or the first digits of its id
        name: String,
        /// The image
        file: PathBuf,
        /// Also onto a disk that has something in it, which is gone then
        #[arg(long)]
        force: bool,
    },
    /// Read all of a disk, and name what cannot be read
    Check {
        /// Its name, or the first digits of its id
        name: String,
        /// As of its last commit, whoever writes it, and without being its writer; asks no voter, and writes nothing to peers
        #[arg(long)]
        committed: bool,
    },
    /// Show which peers decide which machine writes a disk; or choose others
    Voters(VotersArgs),
    /// Make a disk empty; its snapshots stay
    Erase {
        /// Its name, or the first digits of its id
        name: String,
        /// Really
        #[arg(long)]
        force: bool,
    },
    /// Make a disk of what this machine has of one that another machine took over
    Salvage {
        /// The name of the disk that was taken over, or the first digits of its id
        name: String,
        /// The new disk's name
        new: String,
    },
    /// Remove a disk and all that is in it, for good
    Rm {
        /// Its name, or the first digits of its id
        name: String,
        /// Really
        #[arg(long)]
        force: bool,
        /// It cannot be opened any more, or was removed by another machine: what this machine says of it goes, and its packs stay with peers
        #[arg(long)]
        lost: bool,
    },
}

impl CreateArgs {
    fn request(self) -> Result<Request, Failure> {
        Ok(Request::DiskCreate(DiskCreate {
            name: self.name,
            size: self.size.0,
            cache: self.cache.as_deref().map(absolute).transpose()?,
            cache_size: self.cache_size.map(|size| size.0),
        }))
    }
}

impl ServeArgs {
    fn request(self) -> Result<Request, Failure> {
        let nbd = self.nbd.iter().map(|address| absolute_address(address));
        Ok(Request::DiskServe(DiskServe {
            name: self.name,
            nbd: nbd.collect::<Result<_, _>>()?,
            file: None,
            allow_other: false,
            sync: self.sync,
            take_over: self.take_over.take_over,
        }))
    }
}

impl MountArgs {
    fn request(self) -> Result<Request, Failure> {
        Ok(Request::DiskServe(DiskServe {
            name: self.name,
            nbd: Vec::new(),
            file: Some(absolute(&self.file)?),
            allow_other: self.allow_other,
            sync: self.sync,
            take_over: self.take_over.take_over,
        }))
    }
}

impl VotersArgs {
    fn request(self) -> Request {
        match self.replace {
            false => Request::DiskVoters(DiskNamed { name: self.name }),
            true => Request::DiskVotersReplace(DiskVotersReplace {
                name: self.name,
                lost: self.lost,
                take_over: self.take_over,
            }),
        }
    }
}

impl Command {
    /// As a request.
    pub fn request(self) -> Result<Request, Failure> {
        Ok(match self {
            Self::Create(args) => args.request()?,
            Self::Ls => Request::DiskList,
            Self::Info { name } => Request::DiskInfo(DiskNamed { name }),
            Self::Serve(args) => args.request()?,
            Self::Mount(args) => args.request()?,
            Self::Flush { name } => Request::DiskFlush(DiskNamed { name }),
            Self::Snapshot { name, snapshot, delete } => match delete {
                false => Request::DiskSnapshot(DiskSnapshot { name, snapshot }),
                true => Request::DiskSnapshotRemove(DiskSnapshot { name, snapshot }),
            },
            Self::Rollback { name, snapshot } => Request::DiskRollback(DiskSnapshot { name, snapshot }),
            Self::Clone { name, new, snapshot } => Request::DiskClone(DiskClone { name, snapshot, new }),
            Self::Resize { name, size, shrink } => Request::DiskResize(DiskResize {
                name,
                size: size.0,
                shrink,
            }),
            Self::Export {
                name,
                file,
                snapshot,
                committed,
            } => Request::DiskExport(DiskExport {
                name,
                snapshot,
                committed,
                file: absolute(&file)?,
            }),
            Self::Import { name, file, force } => Request::DiskImport(DiskImport {
                name,
                file: absolute(&file)?,
                force,
            }),
            Self::Check { name, committed } => Request::DiskCheck(DiskCheck { name, committed }),
            Self::Voters(args) => args.request(),
            Self::Erase { name, force: true } => Request::DiskErase(DiskNamed { name }),
            Self::Salvage { name, new } => Request::DiskSalvage(DiskSalvage { name, new }),
            Self::Rm {
                name,
                force: true,
                lost,
            } => Request::DiskRemove(DiskRemove { name, lost }),
            Self::Rm { name, .. } | Self::Erase { name, .. } => {
                let error = format!("All that is in `{name}` would be gone");
                return Err(Failure::new(Exit::Usage, error).hint("if that is meant, say `--force`"));
            }
        })
    }
}

fn about(sync: DiskSync) -> &'static str {
    match sync {
        DiskSync::Local => "The disk of this machine: what it loses, the last commit on peers does not have",
        DiskSync::Grid => "Enough peers: it takes seconds",
    }
}

fn about_take_over(take_over: TakeOver) -> &'static str {
    match take_over {
        TakeOver::Never => "It is left to that machine",
        TakeOver::Wait => {
            "It is this machine's, from a minute on, in which that machine comes to acknowledge nothing more"
        }
        TakeOver::Now => "It is this machine's at once: what that machine acknowledges for another minute is not in it",
    }
}

/// Executes one; a signal is how serving ends.
pub async fn run(mut context: Context, command: Command) -> Result<Exit, Failure> {
    context.options.long = matches!(command, Command::Info { .. });
    let is_serving = matches!(command, Command::Serve(_) | Command::Mount(_));
    match context.execute(command.request()?).await {
        Ok(Exit::Interrupted) if is_serving => Ok(Exit::Done),
        ending => ending,
    }
}

/// The daemon does not know in which folder this was typed.
fn absolute_address(address: &str) -> Result<String, Failure> {
    let Some(path) = address.strip_prefix(UNIX).filter(|path| !path.is_empty()) else {
        return Ok(address.to_owned());
    };
    let path = absolute(Path::new(path))?.to_path();
    match path.to_str() {
        Some(path) => Ok(format!("{UNIX}{path}")),
        None => Err(Failure::new(
            Exit::Failed,
            format!("`{}` is not UTF-8, which no NBD client could be told", path.display()),
        )),
    }
}
