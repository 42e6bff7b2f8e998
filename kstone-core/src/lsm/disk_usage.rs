//! How much disk space the database takes and may take, and how its exhaustion is reported.

use super::LsmEngine;
use super::events::Event;
use super::job::Slot;
use super::observe::{Running, WriteTotals};
use super::state::Shared;
use crate::error::{Error, Result};
use crate::quota::{Claim, Exhausted, Inodes};
use crate::types::SeqNo;
use crate::vfs::Usage;

/// With less free space the file system counts as full: not even the log can grow.
const LEAST_BYTES: u64 = 64 << 10;

/// The disk space of a database, in bytes; files count in whole pages of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DiskUsage {
    /// The size of all files in the directory now: `log + ssts + manifest + other`.
    pub used: u64,
    /// [`crate::DatabaseConfig::max_total_disk_bytes`].
    pub limit: Option<u64>,
    /// Space kept free below the limit: for flushing memtables, for running merges and the largest possible one, for
    /// the manifest, and for deletes. 0 without a limit.
    pub reserved: u64,
    /// Space that puts may still take, in log and SSTs: `limit - used - reserved`. `None` without a limit.
    pub available_for_writes: Option<u64>,
    /// The log's segments, including space reserved ahead.
    pub log: u64,
    /// SSTs, including those being written, and merged ones that a reader or a manifest still needs.
    pub ssts: u64,
    /// The manifest, including one being written.
    pub manifest: u64,
    /// The lock file and any other files.
    pub other: u64,
    /// Space that the file system has left for this user, in bytes. `None` if unknown.
    pub free_bytes: Option<u64>,
    /// The number of files that can still be created there; `None` if it is unknown or unlimited.
    pub free_inodes: Option<u64>,
    /// The resource that keeps puts from being accepted now, if any: the reason why writes fail with
    /// [`Error::DiskFull`].
    pub exhausted: Option<Exhausted>,
}

impl std::fmt::Display for DiskUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(f, "{:.1} MiB used", mib(self.used))?;
        if let (Some(limit), Some(available)) = (self.limit, self.available_for_writes) {
            let (limit, reserved) = (mib(limit), mib(self.reserved));
            let available = mib(available);
            write!(f, " of {limit:.1}, {reserved:.1} reserved, {available:.1} available for writes")?;
        }
        let [log, ssts, manifest, other] = [self.log, self.ssts, self.manifest, self.other].map(mib);
        write!(f, " (log {log:.1}, SSTs {ssts:.1}, manifest {manifest:.1}, other {other:.1})")?;
        if let Some(exhausted) = self.exhausted {
            write!(f, "; {}", self.figures(exhausted))?;
        }
        Ok(())
    }
}

impl DiskUsage {
    /// The resource that has run out, or would be the next to run out, and a description with its figures: the detail
    /// for a write that was rejected with [`Error::DiskFull`].
    pub fn shortage(&self) -> (Exhausted, String) {
        let exhausted = self.exhausted.unwrap_or_else(|| self.ran_out());
        (exhausted, self.figures(exhausted))
    }

    fn figures(&self, exhausted: Exhausted) -> String {
        match exhausted {
            Exhausted::Quota => format!(
                "the limit of the database is reached: {} bytes used and {} kept for flushes, merges and deletes, of \
                 {} (max_total_disk_bytes)",
                self.used,
                self.reserved,
                self.limit.unwrap_or_default()
            ),
            Exhausted::Bytes => {
                format!("the file system is full: {} bytes are free", self.free_bytes.unwrap_or_default())
            }
            Exhausted::Inodes => format!(
                "the file system has no inodes left for more files: {} are free, and as many are kept for flushes and \
                 merges",
                self.free_inodes.unwrap_or_default()
            ),
        }
    }

    /// The cause of the rejection of a write that has just failed.
    fn ran_out(&self) -> Exhausted {
        let (free, left) = (self.free_bytes.unwrap_or(u64::MAX), self.available_for_writes);
        match (self.free_inodes, left) {
            (Some(inodes), _) if inodes <= Inodes::Put.leave() => Exhausted::Inodes,
            (_, Some(left)) if left <= free => Exhausted::Quota,
            _ => Exhausted::Bytes,
        }
    }
}

impl LsmEngine {
    /// Returns how much disk space the database takes, and how much it may take; a read-only handle: as of when it was
    /// opened.
    ///
    /// # Errors
    /// `Closed`.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        self.shared.life.check_open()?;
        self.shared.disk_usage()
    }
}

impl Shared {
    fn disk_usage(&self) -> Result<DiskUsage> {
        let shared = self;
        let usage = shared.life.usage().unwrap_or_else(|| shared.space.usage());
        let limit = shared.settings.load().database.max_total_disk_bytes;
        let used = usage.total();
        let reserved = limit.map_or(0, |_| shared.keep(Claim::Put));
        let Usage { log, ssts, manifest, other } = usage;
        let available_for_writes = limit.map(|limit| limit.saturating_sub(used).saturating_sub(reserved));
        let free = shared.free_space();
        let usage = DiskUsage {
            used,
            limit,
            reserved,
            available_for_writes,
            log,
            ssts,
            manifest,
            other,
            free_bytes: free.map(|free| free.bytes),
            free_inodes: free.and_then(|free| free.inodes),
            exhausted: None,
        };
        let full = available_for_writes == Some(0)
            || usage.free_bytes.is_some_and(|bytes| bytes < LEAST_BYTES)
            || usage.free_inodes.is_some_and(|inodes| inodes <= Inodes::Put.leave())
            || shared.space.is_starved()
            || shared.space.lacks_inodes();
        let exhausted = if shared.space.lacks_inodes() { Exhausted::Inodes } else { usage.ran_out() };
        Ok(DiskUsage { exhausted: full.then_some(exhausted), ..usage })
    }

    /// The resource that has run out, and a description with figures, for the message of a rejection.
    fn why_full(&self) -> (Exhausted, String) {
        // Only for a message: without figures it still says that the disk is full.
        self.disk_usage().unwrap_or_default().shortage()
    }

    /// Raises the event after an operation failed for lack of space.
    fn raise_disk_full(&self) {
        self.observed.events().raise_disk_full(|| self.why_full());
    }

    /// Records the end of a write.
    #[inline]
    pub(crate) fn wrote(&self, running: &Running<'_>, written: WriteTotals, result: &Result<SeqNo>) {
        match result {
            Ok(_) => self.observed.wrote(running, written),
            Err(error) if error.is_out_of_space() => self.raise_disk_full(),
            Err(_) => {}
        }
    }

    /// Records that a job failed and will be retried later. Returns the message to report.
    pub(crate) fn job_failed(&self, slot: Slot, error: &Error) -> String {
        let mut text = error.to_string();
        if error.is_out_of_space() {
            self.raise_disk_full();
            text = format!("{text}: {}", self.why_full().1);
        }
        // Otherwise a close stopped it.
        if !matches!(error, Error::Closed) {
            self.observed.events().raise(Event::BackgroundError { job: slot.name(), error: text.clone() });
        }
        text
    }
}
