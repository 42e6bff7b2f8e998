//! `EVENTS.jsonl`: a log of events for people and tools that inspect the directory, one JSON object per line.
//!
//! ```text
//! {"seq":7,"unix_ms":1700000000000,"event":"flush","stripe":3,"records":1000,"bytes":81234,"nanos":2100000}
//! ```
//!
//! Best effort: nothing is synced, and an error loses lines but has no other effect. The file is created with the first
//! event other than a clean open or close. At [`ROTATE_AT`] it is renamed to `EVENTS.jsonl.1`, and so on up to `.3`.
//! With a limit on disk space, all these files together take at most a thirty-second of it: a description of the
//! database must not crowd it out.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::events::{Event, Stamped};
use crate::paths;
use crate::vfs::{Meter, OpenMode, PAGE, Vfs, VfsFile, read_full_at, write_all_at};

/// The length at which a file is rotated.
pub(crate) const ROTATE_AT: u64 = 1 << 20;
/// Under a limit on disk space: the fraction of the limit at which a file is rotated.
const SHARE: u64 = 32 * paths::EVENT_FILES as u64;
/// Bytes read from the end of an older file to find its last number: more than the longest line.
const TAIL: u64 = 16 << 10;

#[derive(Debug)]
pub(crate) struct EventLog {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    meter: Arc<Meter>,
    next_seq: u64,
    open: Option<Open>,
    rotate_at: u64,
    /// The event of a clean open, until there is another event to write.
    held: Vec<Stamped>,
}

#[derive(Debug)]
struct Open {
    file: Arc<dyn VfsFile>,
    len: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    unix_ms: u64,
    #[serde(flatten)]
    event: &'a Event,
}

impl EventLog {
    /// Does no I/O. The files take at most a fraction of the limit of `meter`.
    pub(crate) fn new(vfs: Arc<dyn Vfs>, dir: PathBuf, meter: Arc<Meter>) -> Self {
        Self { vfs, dir, meter, next_seq: 1, open: None, rotate_at: ROTATE_AT, held: Vec::new() }
    }

    /// Writes the event, or holds it back if it is only a clean open.
    pub(crate) fn append(&mut self, stamped: &Stamped) {
        let share = self.meter.limit() / SHARE;
        let rotate_at = (share - share % PAGE).clamp(PAGE, ROTATE_AT);
        if rotate_at < self.rotate_at {
            self.open = None; // the current file may be too long now
        }
        self.rotate_at = rotate_at;
        let plain =
            matches!(&stamped.event, Event::Opened { clean: true, .. } | Event::Closed { clean: true });
        if plain && self.open.is_none() {
            if !matches!(stamped.event, Event::Closed { .. }) {
                self.held.push(stamped.clone());
            }
            return;
        }
        let mut all = std::mem::take(&mut self.held);
        all.push(stamped.clone());
        if self.write(&all).is_err() {
            self.open = None; // the next event starts over
        }
    }

    fn write(&mut self, events: &[Stamped]) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        for Stamped { unix_ms, event } in events {
            let line = Line { seq: self.next_seq, unix_ms: *unix_ms, event };
            let mut line = serde_json::to_vec(&line)?;
            line.push(b'\n');
            if open.len + line.len() as u64 > self.rotate_at && open.len > 0 {
                open = self.rotate()?;
            }
            write_all_at(&*open.file, &line, open.len)?;
            open.len += line.len() as u64;
            // A foreign line may have used the highest possible number.
            self.next_seq = self.next_seq.saturating_add(1);
        }
        self.open = Some(open);
        Ok(())
    }

    /// Opens the file, or creates it, and determines the next number.
    fn open(&mut self) -> io::Result<Open> {
        let path = paths::events(&self.dir, 0);
        let (file, len) = match self.vfs.open(&path, OpenMode::Write) {
            Ok(file) => {
                let len = file.len()?;
                (file, len)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => (self.vfs.open(&path, OpenMode::Create)?, 0),
            // A symbolic link, a FIFO, or a hard link to a file elsewhere: the name is rotated away, and its target
            // left alone.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => return self.rotate(),
            Err(e) => return Err(e),
        };
        let mut tail = tail(&*file, len)?;
        let torn = !tail.is_empty() && !tail.ends_with(b"\n");
        let mut last = last_seq(&tail);
        if last.is_none()
            && let Ok(older) = self.vfs.open(&paths::events(&self.dir, 1), OpenMode::Read)
        {
            tail = self::tail(&*older, older.len()?)?;
            last = last_seq(&tail);
        }
        self.next_seq = self.next_seq.max(last.map_or(1, |last| last.saturating_add(1)));
        self.remove_too_long()?;
        let mut open = Open { file, len };
        if torn && len < self.rotate_at {
            write_all_at(&*open.file, b"\n", len)?;
            open.len += 1;
        }
        Ok(open)
    }

    fn rotate(&self) -> io::Result<Open> {
        for n in (0..paths::EVENT_FILES - 1).rev() {
            match self.vfs.rename(&paths::events(&self.dir, n), &paths::events(&self.dir, n + 1)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        self.remove_too_long()?;
        let file = self.vfs.open(&paths::events(&self.dir, 0), OpenMode::Create)?;
        Ok(Open { file, len: 0 })
    }

    /// Removes older files that exceed the current rotation length: they were written under a higher limit on disk
    /// space.
    fn remove_too_long(&self) -> io::Result<()> {
        for path in (1..paths::EVENT_FILES).map(|n| paths::events(&self.dir, n)) {
            if let Ok(file) = self.vfs.open(&path, OpenMode::Read)
                && file.len()? > self.rotate_at
            {
                self.vfs.remove(&path)?;
            }
        }
        Ok(())
    }
}

fn tail(file: &dyn VfsFile, len: u64) -> io::Result<Vec<u8>> {
    let from = len.saturating_sub(TAIL);
    let mut bytes = vec![0; (len - from) as usize];
    let read = read_full_at(file, &mut bytes, from)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The number in the last line that has one.
fn last_seq(tail: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        seq: u64,
    }
    let numbered = |line| serde_json::from_slice::<Numbered>(line).ok();
    tail.rsplit(|&byte| byte == b'\n').find_map(numbered).map(|line| line.seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{MemVfs, read_all};

    fn dir() -> PathBuf {
        PathBuf::from("db")
    }

    fn event(len: usize) -> Stamped {
        let event = Event::BackgroundError { job: "flush".into(), error: "e".repeat(len) };
        Stamped { unix_ms: 5, event }
    }

    fn lines(vfs: &MemVfs, n: usize) -> Vec<serde_json::Value> {
        let Ok(file) = vfs.open(&paths::events(&dir(), n), OpenMode::Read) else { return Vec::new() };
        let bytes = read_all(&*file, ROTATE_AT).unwrap();
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap_or_default()).collect()
    }

    fn seqs(vfs: &MemVfs, n: usize) -> Vec<u64> {
        lines(vfs, n).iter().filter_map(|line| line.get("seq")?.as_u64()).collect()
    }

    fn vfs() -> MemVfs {
        let vfs = MemVfs::new();
        vfs.create_dir(&dir()).unwrap();
        vfs
    }

    fn new_log(vfs: &MemVfs) -> EventLog {
        EventLog::new(Arc::new(vfs.clone()), dir(), Arc::default())
    }

    #[test]
    fn numbers_go_on_after_a_reopen_and_after_a_torn_line() {
        let vfs = vfs();
        new_log(&vfs).append(&event(1));
        new_log(&vfs).append(&event(1));
        assert_eq!(seqs(&vfs, 0), [1, 2]);
        let file = vfs.open(&paths::events(&dir(), 0), OpenMode::Write).unwrap();
        write_all_at(&*file, b"{\"seq\":3,\"uni", file.len().unwrap()).unwrap();
        let mut log = new_log(&vfs);
        log.append(&event(1));
        log.append(&event(1));
        assert_eq!((seqs(&vfs, 0), lines(&vfs, 0).len()), (vec![1, 2, 3, 4], 5));
    }

    #[test]
    fn a_number_that_leaves_none_is_survived() {
        let vfs = vfs();
        let file = vfs.open(&paths::events(&dir(), 0), OpenMode::Create).unwrap();
        write_all_at(&*file, format!("{{\"seq\":{}}}\n", u64::MAX).as_bytes(), 0).unwrap();
        let mut log = new_log(&vfs);
        (0..3).for_each(|_| log.append(&event(1)));
        assert_eq!(seqs(&vfs, 0), [u64::MAX; 4]);
    }

    #[test]
    fn under_a_limit_on_disk_space_the_files_take_a_small_part_of_it() {
        let vfs = vfs();
        let mut log = new_log(&vfs);
        let mut bytes = |events: usize, quota: u64| {
            log.meter.set_limit(quota, 0);
            (0..events).for_each(|_| log.append(&event(1000)));
            vfs.list(&dir()).unwrap().iter().map(|file| file.len).sum::<u64>()
        };
        assert!(bytes(5000, u64::MAX) > 3 << 20);
        // After lowering the limit, no old file is left after a few events.
        assert!(bytes(20, 1 << 20) <= 1 << 15);
        assert!(bytes(300, 512 << 10) <= 1 << 14);
        assert!(bytes(5000, 1 << 40) > 3 << 20);
    }

    #[test]
    fn four_files_of_one_mebibyte_are_kept() {
        let vfs = vfs();
        let mut log = new_log(&vfs);
        for _ in 0..600 {
            log.append(&event(10_000));
        }
        let kept: Vec<Vec<u64>> = (0..paths::EVENT_FILES).map(|n| seqs(&vfs, n)).collect();
        assert_eq!(kept[0].last(), Some(&600));
        for (newer, older) in kept.iter().zip(&kept[1..]) {
            assert!(older.len() > 100, "{older:?}");
            assert_eq!(older.last().unwrap() + 1, newer[0]);
        }
        assert!(vfs.open(&paths::events(&dir(), paths::EVENT_FILES), OpenMode::Read).is_err());
        // After a crash between the rename and the creation of the next file, the number comes from the older file.
        vfs.remove(&paths::events(&dir(), 0)).unwrap();
        let last = *kept[1].last().unwrap();
        new_log(&vfs).append(&event(1));
        assert_eq!(seqs(&vfs, 0), [last + 1]);
    }

    #[test]
    fn opening_and_closing_alone_leave_no_file() {
        let vfs = vfs();
        let opened = |created| Event::Opened {
            created,
            clean: true,
            read_only: false,
            replayed_records: 0,
            replayed_bytes: 0,
            duration: std::time::Duration::ZERO,
        };
        let at = |event| Stamped { unix_ms: 1, event };
        let mut log = new_log(&vfs);
        log.append(&at(opened(true)));
        log.append(&at(Event::Closed { clean: true }));
        assert!(vfs.list(&dir()).unwrap().is_empty());
        let mut log = new_log(&vfs);
        log.append(&at(opened(false)));
        log.append(&event(1));
        log.append(&at(Event::Closed { clean: true }));
        let names: Vec<_> = lines(&vfs, 0).into_iter().map(|line| line["event"].clone()).collect();
        assert_eq!(names, ["opened", "background_error", "closed"]);
    }
}
