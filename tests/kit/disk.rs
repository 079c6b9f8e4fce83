//! A node's store on a disk of its own, which refuses writes on demand although it reports room: an in-memory file system in the
//! node's own mount namespace, out of inodes.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::grid::Node;
use crate::home::{Home, path_str};

/// Mounts the disk at `$0`, then becomes the program.
const MOUNT: &str = r#"mkdir -p "$0" && mount -t tmpfs -o size=1g,nr_inodes=10000 tmpfs "$0" && exec "$@""#;

/// Why there can be no such disk here, if there is a reason: some systems let no program make namespaces.
pub fn missing() -> Option<String> {
    let tried = Command::new("unshare")
        .args(["-Urm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"])
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "no disk in a namespace of its own: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("there is no unshare: {error}")),
    }
}

/// The disk of a running node.
pub struct Disk {
    pid: u32,
    store: PathBuf,
}

impl Disk {
    /// Starts a node in `home` whose store is on an empty disk.
    pub fn start(home: &Home) -> Result<(Node, Self)> {
        let store = home.dir.join("store");
        let unshare = ["unshare", "-Urm", "sh", "-c", MOUNT, path_str(&store)?];
        let mut on_disk = home.clone();
        on_disk.prefix = unshare.map(str::to_owned).to_vec();
        let node = Node::start(&on_disk)?;
        let pid = node.pid();
        Ok((node, Self { pid, store }))
    }

    /// From now on nothing new can be written to it; the room that it reports stays.
    pub fn refuse(&self) -> Result<()> {
        self.inside(
            r#"mount -o remount,nr_inodes=$(($(df --output=iused "$0" | tail -1) + 64)) "$0" && mkdir -p "$0/lost+found" &&
               i=0 && while touch "$0/lost+found/$i" 2>/dev/null; do i=$((i + 1)); done"#,
        )
    }

    /// It is well again.
    pub fn accept(&self) -> Result<()> {
        self.inside(r#"mount -o remount,nr_inodes=10000 "$0""#)
    }

    /// Runs a script in the node's view of files; `$0` is the store.
    pub fn inside(&self, script: &str) -> Result<()> {
        let pid = self.pid.to_string();
        let args = ["-t", &pid, "-U", "-m", "--preserve-credentials", "sh", "-c", script];
        let status = Command::new("nsenter").args(args).arg(&self.store).status()?;
        ensure!(status.success(), "`{script}` failed at {}", self.store.display());
        Ok(())
    }
}
