//! All of a disk at once: to a file, from one, read to its end, emptied, and what a machine that was taken over has of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use api::failure::{Exit, Failure};
use api::human::ByteSize;
use api::message::{DiskSummary, Phase, Problem, Progress, Summary};
use api::output::Sink;
use api::request::{DiskCheck, DiskExport, DiskImport, DiskSalvage};
use disk::running::salvage::salvage;
use disk::{Change, Device, DeviceError, ExtentKind};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use tokio::runtime::Handle;

use super::known::KnownDisk;
use super::{JOURNAL_BYTES, unusable};
use crate::{Engine, failures};

/// Bytes that are read or written at once.
const PIECE: u64 = 1 << 20;
/// Bytes whose extents are asked for at once: a region of the map.
const STRETCH: u64 = 256 << 20;
/// Problems that are named, of which there may be one for each piece.
const NAMED_MAX: u64 = 100;

/// What is done with a piece: where it begins, and its bytes.
type Each<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Failure> + 'a;

/// What goes through the whole of a disk.
struct Walk {
    device: Arc<dyn Device>,
    runtime: Handle,
    sink: Sink,
    summary: DiskSummary,
    begun: Instant,
}

impl Walk {
    fn new(device: Arc<dyn Device>, name: &str, sink: &Sink) -> Self {
        Self {
            summary: DiskSummary {
                name: name.to_owned(),
                size: device.size(),
                ..DiskSummary::default()
            },
            device,
            runtime: Handle::current(),
            sink: sink.clone(),
            begun: Instant::now(),
        }
    }

    /// Reads all that is not zeros, piece by piece. What cannot be read is named, and left out. Blocking.
    fn read_all(&mut self, each: &mut Each<'_>) -> Result<(), Failure> {
        let size = self.device.size();
        let mut at = 0;
        while at < size {
            let stretch = STRETCH.min(size - at);
            match self.device.extents(at, stretch) {
                Err(error) => self.failed(at, stretch, &error)?,
                Ok(extents) => {
                    let mut from = at;
                    for extent in extents {
                        if extent.kind == ExtentKind::Data {
                            self.read(from, extent.length, each)?;
                        }
                        from += extent.length;
                    }
                }
            }
            at += stretch;
        }
        Ok(())
    }

    fn read(&mut self, from: u64, length: u64, each: &mut Each<'_>) -> Result<(), Failure> {
        let mut at = from;
        while at < from + length {
            self.sink.go_on().map_err(|_| Failure::interrupted())?;
            let piece = PIECE.min(from + length - at);
            match self.runtime.block_on(self.device.read(at, piece as usize)) {
                Ok(bytes) => {
                    each(at, &bytes)?;
                    self.done(at + piece, piece);
                }
                Err(error) => self.failed(at, piece, &error)?,
            }
            at += piece;
        }
        Ok(())
    }

    fn done(&mut self, at: u64, bytes: u64) {
        self.summary.bytes_done += bytes;
        self.sink.progress(Progress {
            phase: Phase::Disk,
            bytes_done: at,
            bytes_total: Some(self.summary.size),
            ..Progress::default()
        });
    }

    fn failed(&mut self, at: u64, bytes: u64, error: &DeviceError) -> Result<(), Failure> {
        if self.summary.bytes_failed / PIECE < NAMED_MAX {
            let text = format!("{bytes} bytes at {at} of {}: {error}", self.summary.name);
            self.sink
                .send_blocking(Problem::new(text))
                .map_err(|_| Failure::interrupted())?;
        }
        self.summary.bytes_failed += bytes;
        Ok(())
    }

    /// Bytes that are not zeros, by the map.
    fn used(&self) -> Result<u64, Failure> {
        let size = self.device.size();
        let (mut at, mut used) = (0, 0);
        while at < size {
            let extents = self.device.extents(at, STRETCH.min(size - at));
            let extents = extents.map_err(|error| {
                let error = format!("What is in `{}` cannot be told: {error}", self.summary.name);
                failures::too_few_shares(error)
            })?;
            let data = extents.iter().filter(|extent| extent.kind == ExtentKind::Data);
            used += data.map(|extent| extent.length).sum::<u64>();
            at += STRETCH;
        }
        Ok(used)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.change(
            Change::Write {
                offset: at,
                data: bytes,
            },
            bytes.len() as u64,
        )?;
        self.done(at + bytes.len() as u64, bytes.len() as u64);
        Ok(())
    }

    fn trim(&self, offset: u64, length: u64) -> Result<(), Failure> {
        match length {
            0 => Ok(()),
            length => self.change(Change::Trim { offset, length }, 0),
        }
    }

    fn change(&self, change: Change<'_>, bytes: u64) -> Result<(), Failure> {
        self.sink.go_on().map_err(|_| Failure::interrupted())?;
        let ready = self.runtime.block_on(self.device.ready(bytes));
        let changed = ready.and_then(|()| self.device.apply(&[change]));
        changed.map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("`{}` was not written: {error}", self.summary.name),
            )
        })
    }

    fn end(mut self) -> DiskSummary {
        self.summary.seconds = self.begun.elapsed().as_secs_f64();
        self.summary
    }
}

async fn summed_up(summary: DiskSummary, sink: &Sink) -> Result<Exit, Failure> {
    let exit = match summary.bytes_failed {
        0 => Exit::Done,
        _ => Exit::TooFewShares,
    };
    sink.send(Summary::Disk(summary)).await?;
    Ok(exit)
}

impl Engine {
    pub(crate) async fn export_disk(&self, asked: DiskExport, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(&asked.name).await?;
        let path = asked.file.to_path();
        let view = match asked.committed {
            true => Some(self.committed_view(&known, asked.snapshot.as_deref()).await?),
            false => None,
        };
        let file = File::create_new(&path).map_err(|error| unusable(&path, &error))?;
        let (name, of, snapshot) = (known.name.clone(), sink.clone(), asked.snapshot);
        if let Some(view) = view {
            let copying = move || export(Walk::new(view.device.clone(), &name, &of), &file, &path);
            let copied = tokio::task::spawn_blocking(copying).await;
            return summed_up(copied.map_err(failures::worker)??, sink).await;
        }
        let exporting = move |disk: &Arc<disks::open::OpenDisk>| {
            let device = match snapshot {
                None => disk.device(),
                Some(snapshot) => disk.snapshot(&snapshot).map_err(|error| {
                    Failure::new(Exit::Failed, format!("`{name}@{snapshot}` cannot be read: {error}"))
                })?,
            };
            export(Walk::new(device, &name, &of), &file, &path)
        };
        let summary = self.with_disk(&known, sink, exporting).await?;
        summed_up(summary, sink).await
    }

    pub(crate) async fn import_disk(&self, asked: DiskImport, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(&asked.name).await?;
        if self.0.disks.is_in_use(known.volume) {
            return Err(Failure::new(Exit::Failed, format!("`{}` is served", known.name)).hint("end that first"));
        }
        let path = asked.file.to_path();
        let file = File::open(&path).map_err(|error| unusable(&path, &error))?;
        let length = file.metadata().map_err(|error| unusable(&path, &error))?.len();
        let (name, of, force) = (known.name.clone(), sink.clone(), asked.force);
        let importing = move |disk: &Arc<disks::open::OpenDisk>| {
            let mut walk = Walk::new(disk.device(), &name, &of);
            if length > walk.summary.size {
                let error = format!(
                    "`{}` has {length} bytes, and `{name}` {}",
                    path.display(),
                    walk.summary.size
                );
                return Err(
                    Failure::new(Exit::Failed, error).hint("make the disk larger with `gridbackup disk resize`")
                );
            }
            let used = if force { 0 } else { walk.used()? };
            if used > 0 {
                let error = format!("`{name}` has {} in it, which would be gone", ByteSize(used));
                return Err(Failure::new(Exit::Failed, error)
                    .hint("if that is meant, say `--force`; `gridbackup disk snapshot` keeps it"));
            }
            import(&mut walk, &file, &path, length)?;
            Ok(walk.end())
        };
        let summary = self.with_disk(&known, sink, importing).await?;
        summed_up(summary, sink).await
    }

    pub(crate) async fn check_disk(&self, asked: &DiskCheck, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(&asked.name).await?;
        let (name, of) = (known.name.clone(), sink.clone());
        if asked.committed {
            let view = self.committed_view(&known, None).await?;
            let checking = move || {
                let mut walk = Walk::new(view.device.clone(), &name, &of);
                walk.read_all(&mut |_, _| Ok(())).map(|()| walk.end())
            };
            let checked = tokio::task::spawn_blocking(checking).await;
            return summed_up(checked.map_err(failures::worker)??, sink).await;
        }
        let checking = move |disk: &Arc<disks::open::OpenDisk>| {
            let mut walk = Walk::new(disk.device(), &name, &of);
            walk.read_all(&mut |_, _| Ok(()))?;
            Ok(walk.end())
        };
        let summary = self.with_disk(&known, sink, checking).await?;
        summed_up(summary, sink).await
    }

    pub(crate) async fn erase_disk(&self, name: &str, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(name).await?;
        if self.0.disks.is_in_use(known.volume) {
            return Err(Failure::new(Exit::Failed, format!("`{}` is served", known.name)).hint("end that first"));
        }
        let (name, of) = (known.name.clone(), sink.clone());
        let erasing = move |disk: &Arc<disks::open::OpenDisk>| {
            let walk = Walk::new(disk.device(), &name, &of);
            walk.trim(0, walk.summary.size)?;
            Ok(walk.end())
        };
        let summary = self.with_disk(&known, sink, erasing).await?;
        summed_up(summary, sink).await
    }

    /// Copies what this machine has of a disk that another one took over to a disk of its own. What was here of the other disk goes
    /// when all of it is on peers.
    pub(crate) async fn salvage_disk(&self, asked: DiskSalvage, sink: &Sink) -> Result<Exit, Failure> {
        let known = self.find_disk(&asked.name).await?;
        let Some(record) = known.record.clone().filter(|record| record.is_ahead) else {
            let error = format!("Of `{}` this machine has nothing that is not on peers", known.name);
            return Err(Failure::new(Exit::Failed, error));
        };
        let _in_use = self.0.disks.take(&known)?;
        let (records, packs) = (self.disk_records(), self.disk_packs().await?);
        let (cache, scratch) = (
            records.cache_of(&record),
            records.folder_of(known.volume).join("salvage"),
        );
        // Its cache goes in the end, and with it what only this disk would have had of it.
        if known.head.is_some() && known.machine.is_none() && !self.is_overtaken(&known, &cache)? {
            let error = format!("Nobody has taken `{}` over: what is here is still its own", known.name);
            return Err(
                Failure::new(Exit::Failed, error).hint("serve it, or put it on peers with `gridbackup disk flush`")
            );
        }
        let (runtime, volume, of) = (Handle::current(), known.volume, scratch.clone());
        let opening = move || salvage(&cache, &of, volume, packs, runtime);
        let opened = tokio::task::spawn_blocking(opening).await.map_err(failures::worker)?;
        let device = opened.map_err(|error| super::open::not_opened(&known.name, error))?;
        let new = self
            .make_disk(&asked.new, device.size(), None, JOURNAL_BYTES, sink)
            .await?;
        let summary = self.copy(device, &new, sink).await?;
        if summary.bytes_failed == 0 {
            let removed = records.remove(&record);
            removed.map_err(|error| unusable(&records.folder_of(known.volume), &error))?;
        }
        let _scratch = std::fs::remove_dir_all(&scratch);
        summed_up(summary, sink).await
    }

    async fn copy(&self, from: Arc<dyn Device>, to: &KnownDisk, sink: &Sink) -> Result<DiskSummary, Failure> {
        let (name, of) = (to.name.clone(), sink.clone());
        let copying = move |disk: &Arc<disks::open::OpenDisk>| {
            let (mut reading, mut writing) = (Walk::new(from, &name, &of), Walk::new(disk.device(), &name, &of));
            reading.read_all(&mut |at, bytes| writing.write(at, bytes))?;
            Ok(reading.end())
        };
        self.with_disk(to, sink, copying).await
    }
}

/// Makes the file, which is new, what the disk is; its holes are the disk's zeros.
fn export(mut walk: Walk, file: &File, path: &Path) -> Result<DiskSummary, Failure> {
    file.set_len(walk.summary.size)
        .map_err(|error| unusable(path, &error))?;
    walk.read_all(&mut |at, bytes| file.write_all_at(bytes, at).map_err(|error| unusable(path, &error)))?;
    durable::sync(file, path).map_err(|error| unusable(path, &error))?;
    Ok(walk.end())
}

/// Makes the disk what the file is: its holes, and what is behind its end, are zeros.
fn import(walk: &mut Walk, file: &File, path: &Path, length: u64) -> Result<(), Failure> {
    let mut buffer = vec![0; PIECE as usize];
    let mut at = 0;
    while at < length {
        let (data, hole) = next_data(file, at, length).map_err(|error| unusable(path, &error))?;
        walk.trim(at, data - at)?;
        at = data;
        while at < hole {
            let piece = &mut buffer[..PIECE.min(hole - at) as usize];
            file.read_exact_at(piece, at).map_err(|error| unusable(path, &error))?;
            walk.write(at, piece)?;
            at += piece.len() as u64;
        }
    }
    walk.trim(length, walk.summary.size - length)
}

/// From where on and up to where a file has data, from an offset on.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<(u64, u64)> {
    let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.min(length),
        Err(Errno::NXIO) => return Ok((length, length)),
        // A file system that cannot tell has no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, length)),
        Err(error) => return Err(error.into()),
    };
    let hole = rustix::fs::seek(file, SeekFrom::Hole(data))?;
    Ok((data, hole.clamp(data, length)))
}
