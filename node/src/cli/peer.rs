//! `peer ls|add|rm|evict|set`: who keeps what for whom.

use std::path::Path;

use api::failure::{Exit, Failure};
use api::human::ByteSize;
use api::request::{PeerAdd, PeerEvict, PeerRemove, PeerSet, RemoveHow, Request};
use engine::config::PeerUrl;

use super::context::absolute;
use super::endpoint::EndpointArgs;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List friends, buckets and folders with what they give and take
    Ls,
    /// Add an S3 bucket or a folder (a USB disk, a NAS mount) as a peer
    Add(AddArgs),
    /// Remove a folder or bucket; or a friend from the grid, as its founder, or as one of more than half of those admitted by the founder
    Rm {
        /// Its name
        name: String,
        /// Also if files would be lost with it
        #[arg(long)]
        force: bool,
        /// Only say what it would cost
        #[arg(long, conflicts_with = "force")]
        dry_run: bool,
    },
    /// Remove for good what a friend stored here who has been silent for 180 days
    Evict {
        /// Its name
        name: String,
    },
    /// Change a peer's limits
    Set {
        /// Its name
        name: String,
        /// Bytes that it may hold for us; of a friend: that we hold for it
        #[arg(long, value_name = "SIZE")]
        quota: Option<ByteSize>,
        /// Shares of a pack that it may hold
        #[arg(long, value_name = "N")]
        shares: Option<u16>,
    },
}

/// Arguments of `peer add`.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// A name for it
    name: String,
    /// `dir:PATH` or `s3://BUCKET[/PREFIX]`
    url: String,
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// S3 storage class of shares, such as STANDARD_IA
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,
    /// Bytes that it may hold
    #[arg(long, value_name = "SIZE")]
    quota: Option<ByteSize>,
    /// Shares of each pack that a bucket holds
    #[arg(long, value_name = "N")]
    shares: Option<u16>,
}

impl Command {
    pub fn request(self) -> Result<Request, Failure> {
        Ok(match self {
            Self::Ls => Request::PeerList,
            Self::Add(args) => Request::PeerAdd(PeerAdd {
                url: absolute_url(&args.url)?,
                name: args.name,
                endpoint: args.endpoint.endpoint,
                region: args.endpoint.region,
                storage_class: args.storage_class,
                quota: args.quota.map(|size| size.0),
                shares: args.shares,
            }),
            Self::Rm { name, force, dry_run } => Request::PeerRemove(PeerRemove {
                name,
                how: match (force, dry_run) {
                    (true, _) => RemoveHow::Anyway,
                    (false, true) => RemoveHow::DryRun,
                    (false, false) => RemoveHow::Carefully,
                },
            }),
            Self::Evict { name } => Request::PeerEvict(PeerEvict { name }),
            Self::Set {
                quota: None,
                shares: None,
                ..
            } => {
                return Err(Failure::new(Exit::Usage, "Nothing to change is named").hint("use --quota or --shares"));
            }
            Self::Set { name, quota, shares } => Request::PeerSet(PeerSet {
                name,
                quota: quota.map(|size| size.0),
                shares,
            }),
        })
    }
}

/// A `dir:` URL with an absolute path; others as they are.
pub fn absolute_url(url: &str) -> Result<String, Failure> {
    match PeerUrl::of(url).and_then(PeerUrl::folder) {
        Some(path) => match absolute(path)?.to_path().to_str() {
            Some(path) => Ok(PeerUrl::Folder(Path::new(path)).to_string()),
            None => Err(Failure::new(
                Exit::Failed,
                format!(
                    "`{}` lies where a name is not UTF-8, which config.toml cannot hold",
                    path.display()
                ),
            )
            .hint("reach it through a link with another name")),
        },
        None => Ok(url.to_owned()),
    }
}
