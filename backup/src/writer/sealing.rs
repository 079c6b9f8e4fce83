//! A sealer: a thread that takes full packs, seals, codes and delivers them.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;
use upload_queue::uploader::UploadError;

use super::WriteError;
use super::commit::RecordChunks;
use super::packer::Parcel;
use super::run::Run;

impl Run<'_> {
    /// Seals and delivers what comes; `record` records the chunks of a pack.
    pub fn seal_parcels(&self, full: &Receiver<Parcel>, record: RecordChunks) -> Result<(), WriteError> {
        for parcel in full {
            match parcel {
                Parcel::End => break,
                _ if self.failed.load(Ordering::Relaxed) || self.stalled.load(Ordering::Relaxed) => {}
                Parcel::Data(pack) => self.unless_stalled(self.deliver_data(pack, record))?,
                Parcel::Inline(sections) => {
                    let _not_while_posting = self.gate.read().unwrap_or_else(PoisonError::into_inner);
                    self.unless_stalled(self.deliver_inline(sections))?;
                }
            }
        }
        Ok(())
    }

    /// No room in the spool and no peer to empty it: the run ends with what it has, the other jobs wait.
    fn unless_stalled(&self, delivered: Result<(), WriteError>) -> Result<(), WriteError> {
        if let Err(WriteError::Upload(UploadError::Stalled { .. })) = delivered {
            self.stalled.store(true, Ordering::Relaxed);
            return Ok(());
        }
        delivered
    }
}
