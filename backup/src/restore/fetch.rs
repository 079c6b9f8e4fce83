//! Bytes of packs from peers: the ranges of data shares first, k others where one is missing, damaged or slow.
//!
//! Nothing is trusted: every segment is opened with its pack's key, and when one does not open, the leaf tables tell
//! which peer's share is damaged.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;

use bytes::Bytes;
use futures::future::{BoxFuture, Shared};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use proto::cap_index::PackRecord;
use proto::pack::{PackError, PackKey};
use proto::shape::{PackShape, SEGMENT_BYTES, SEGMENT_PLAIN_BYTES};
use proto::{erasure, pack};
use upload_queue::packs::KnownPack;

use crate::restore::fetch_stats::FetchStats;
use crate::restore::holders::{Ask, Holders, ShareGot};
use crate::restore::segments::{PlainRun, ShareWant};
use crate::restore::{Reader, RestoreError, segments};

impl Reader {
    /// Plaintext ranges `(offset, len)` of a pack, in the order asked. Ranges are merged and fetched in parallel; damaged
    /// or missing shares are made up from others and named in `stats`. May be dropped at any time.
    pub async fn read_pack(
        &self,
        pack: &KnownPack,
        key: &PackKey,
        ranges: &[(u32, u32)],
        stats: &Mutex<FetchStats>,
    ) -> Result<Vec<Bytes>, RestoreError> {
        let shape = pack.manifest.shape;
        if !segments::all_inside(shape, ranges) || pack.manifest.shares.len() != usize::from(shape.n) {
            return Err(RestoreError::Damaged {
                what: format!("The index of pack {}", pack.manifest.pack.short()),
                reason: "it names bytes or shares outside of the pack".to_owned(),
            });
        }
        let shares = SharesReader {
            holders: Holders {
                reader: self,
                pack,
                stats,
            },
            key,
            gets: Mutex::default(),
        };
        let wants = segments::wants(shape, ranges);
        let opened = futures::future::try_join_all(wants.iter().map(|want| shares.read(want))).await?;
        let runs: Vec<PlainRun> = opened.into_iter().flatten().collect();
        Ok(ranges
            .iter()
            .map(|&(offset, len)| segments::cut(&runs, offset, len))
            .collect())
    }

    /// A pack's key.
    pub fn unwrap(&self, record: &PackRecord) -> Result<PackKey, RestoreError> {
        let key = self.keys.reader()?.unwrap(&record.wrapped_key);
        key.map_err(|error| RestoreError::Damaged {
            what: "A pack's key".to_owned(),
            reason: error.to_string(),
        })
    }
}

/// Gets that several wait for, by share and runs.
type SharedGets<'a> = HashMap<(u8, Vec<Range<u32>>), Shared<BoxFuture<'a, Option<ShareGot>>>>;

/// Reads data shares of one pack, whatever it takes.
struct SharesReader<'a> {
    holders: Holders<'a>,
    key: &'a PackKey,
    /// What was asked of the holders of shares: two shares that are rebuilt need the same others.
    gets: Mutex<SharedGets<'a>>,
}

impl SharesReader<'_> {
    fn shape(&self) -> PackShape {
        self.holders.pack.manifest.shape
    }

    /// Ranges of a share from whoever is known to hold it, fetched once however often they are asked for.
    async fn get(&self, index: u8, runs: &[Range<u32>]) -> Option<ShareGot> {
        let get = {
            let mut gets = self.gets.lock().expect("no panic while the gets are locked");
            let entry = gets.entry((index, runs.to_vec()));
            let (holders, runs) = (self.holders, runs.to_vec());
            let fresh = || {
                async move { holders.get(index, &runs, Ask::Holder).await }
                    .boxed()
                    .shared()
            };
            entry.or_insert_with(fresh).clone()
        };
        get.await
    }

    /// The share's runs, opened: from its holder, or else rebuilt. A holder that takes long is raced by the others, and not
    /// asked at all for a while.
    async fn read(&self, want: &ShareWant) -> Result<Vec<PlainRun>, RestoreError> {
        if self.holders.is_better_rebuilt(want.index) {
            return self.rebuild(want).await;
        }
        let direct = self.direct(want);
        tokio::pin!(direct);
        tokio::select! {
            opened = &mut direct => match opened? {
                Some(runs) => return Ok(runs),
                None => return self.rebuild(want).await,
            },
            () = self.holders.doubt(&want.runs) => self.holders.note_slow(want.index),
        }
        let rebuilt = self.rebuild(want);
        tokio::pin!(rebuilt);
        tokio::select! {
            opened = &mut direct => match opened? {
                Some(runs) => Ok(runs),
                None => rebuilt.await,
            },
            outcome = &mut rebuilt => match outcome {
                Ok(runs) => Ok(runs),
                Err(error) => direct.await?.ok_or(error),
            },
        }
    }

    /// From the share itself; `None` if it cannot be had or is damaged.
    async fn direct(&self, want: &ShareWant) -> Result<Option<Vec<PlainRun>>, RestoreError> {
        let Some(got) = self.get(want.index, &want.runs).await else {
            return Ok(None);
        };
        match self.open(want, got.runs.clone()).await? {
            Ok(runs) => Ok(Some(runs)),
            Err(error) if self.holders.is_good(&got, &want.runs).await => Err(self.does_not_open(&error)),
            Err(_) => Ok(None),
        }
    }

    /// From k other shares. As many as needed are asked for at a time, another for each that fails or takes long; when all
    /// have failed, everyone is asked for everything.
    async fn rebuild(&self, want: &ShareWant) -> Result<Vec<PlainRun>, RestoreError> {
        let k = usize::from(self.shape().k);
        let mut gathered = Gathered::default();
        let mut asked = FuturesUnordered::new();
        for ask in [Ask::Holder, Ask::Everyone] {
            let mut left = self.others(want.index, ask, &gathered);
            loop {
                while asked.len() + gathered.shares.len() < k {
                    let Some(index) = left.pop() else { break };
                    asked.push(self.ask(index, want, ask));
                }
                tokio::select! {
                    answer = asked.next() => match answer {
                        None => break,
                        Some(None) => {}
                        Some(Some(got)) => {
                            if let Some(runs) = self.add(want, &mut gathered, got).await? {
                                return Ok(runs);
                            }
                        }
                    },
                    () = self.holders.doubt(&want.runs), if !left.is_empty() => {
                        let index = left.pop().expect("checked by the branch's condition");
                        asked.push(self.ask(index, want, ask));
                    }
                }
            }
        }
        Err(self.too_few(&gathered))
    }

    async fn ask(&self, index: u8, want: &ShareWant, ask: Ask) -> Option<ShareGot> {
        match ask {
            Ask::Holder => self.get(index, &want.runs).await,
            Ask::Everyone => self.holders.get(index, &want.runs, ask).await,
        }
    }

    /// Shares to ask for, the best last: those whose holder is known and answers. The wanted share itself has failed
    /// already, but is asked for again when everyone is asked.
    fn others(&self, want: u8, ask: Ask, gathered: &Gathered) -> Vec<u8> {
        let mut others: Vec<u8> = (0..self.shape().n)
            .rev()
            .filter(|index| *index != want || ask == Ask::Everyone)
            .filter(|index| gathered.shares.iter().all(|got| got.index != *index))
            .collect();
        others.sort_by_key(|index| self.holders.promise(*index));
        others
    }

    /// Takes one more share in; the runs, once there are enough good shares to open them.
    async fn add(
        &self,
        want: &ShareWant,
        gathered: &mut Gathered,
        got: ShareGot,
    ) -> Result<Option<Vec<PlainRun>>, RestoreError> {
        if gathered.check_each && !self.holders.is_good(&got, &want.runs).await {
            return Ok(None);
        }
        gathered.shares.push(got);
        if gathered.shares.len() < usize::from(self.shape().k) {
            return Ok(None);
        }
        let error = match self.rebuild_and_open(want, &gathered.shares).await? {
            Ok(runs) => return Ok(Some(runs)),
            Err(error) => error,
        };
        if gathered.check_each {
            return Err(self.does_not_open(&error));
        }
        // One of them is damaged: find out which, and take no other in unchecked.
        gathered.check_each = true;
        for got in std::mem::take(&mut gathered.shares) {
            if self.holders.is_good(&got, &want.runs).await {
                gathered.shares.push(got);
            }
        }
        if gathered.shares.len() < usize::from(self.shape().k) {
            return Ok(None);
        }
        Err(self.does_not_open(&error))
    }

    async fn rebuild_and_open(
        &self,
        want: &ShareWant,
        shares: &[ShareGot],
    ) -> Result<Result<Vec<PlainRun>, PackError>, RestoreError> {
        if let Some(itself) = shares.iter().find(|got| got.index == want.index) {
            return self.open(want, itself.runs.clone()).await;
        }
        let shape = self.shape();
        let have: Vec<(u8, Vec<Bytes>)> = shares
            .iter()
            .take(usize::from(shape.k))
            .map(|got| (got.index, got.runs.clone()))
            .collect();
        let (index, runs) = (want.index, want.runs.len());
        let rebuilt = tokio::task::spawn_blocking(move || {
            (0..runs)
                .map(|run| {
                    let have: Vec<(u8, &[u8])> = have.iter().map(|(index, runs)| (*index, &runs[run][..])).collect();
                    erasure::rebuild(shape.k, shape.n, &have, index).map(Bytes::from)
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .await?
        .map_err(|error| RestoreError::Damaged {
            what: format!("The manifest of pack {}", self.holders.pack.manifest.pack.short()),
            reason: error.to_string(),
        })?;
        self.open(want, rebuilt).await
    }

    async fn open(
        &self,
        want: &ShareWant,
        sealed: Vec<Bytes>,
    ) -> Result<Result<Vec<PlainRun>, PackError>, RestoreError> {
        let first = u32::from(want.index) * self.shape().segments_per_share();
        let (key, runs) = (self.key.clone(), want.runs.clone());
        Ok(tokio::task::spawn_blocking(move || open_runs(&key, first, &runs, &sealed)).await?)
    }

    fn does_not_open(&self, error: &PackError) -> RestoreError {
        RestoreError::Damaged {
            what: format!("Pack {}", self.holders.pack.manifest.pack.short()),
            reason: format!("its shares are as they were sealed, but {error}"),
        }
    }

    fn too_few(&self, gathered: &Gathered) -> RestoreError {
        let mut missing: Vec<String> = (0..self.shape().n)
            .filter(|index| gathered.shares.iter().all(|got| got.index != *index))
            .map(|index| self.holders.whereabouts(index))
            .collect();
        missing.sort();
        missing.dedup();
        RestoreError::TooFewShares {
            have: gathered.shares.len(),
            need: usize::from(self.shape().k),
            missing: missing.join(", "),
        }
    }
}

/// Shares to rebuild from.
#[derive(Default)]
struct Gathered {
    shares: Vec<ShareGot>,
    /// One was damaged: check the others one by one.
    check_each: bool,
}

fn open_runs(key: &PackKey, first: u32, runs: &[Range<u32>], sealed: &[Bytes]) -> Result<Vec<PlainRun>, PackError> {
    let mut segment = vec![0; SEGMENT_BYTES];
    let mut opened = Vec::with_capacity(runs.len());
    for (run, sealed) in runs.iter().zip(sealed) {
        let mut plain = Vec::with_capacity(run.len() * SEGMENT_PLAIN_BYTES);
        for (number, ciphertext) in (first + run.start..).zip(sealed.chunks_exact(SEGMENT_BYTES)) {
            segment.copy_from_slice(ciphertext);
            plain.extend_from_slice(pack::open_segment(key, number, &mut segment)?);
        }
        opened.push(PlainRun {
            first: first + run.start,
            bytes: plain.into(),
        });
    }
    Ok(opened)
}
