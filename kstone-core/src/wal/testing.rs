//! A file system with injected failures, and helpers that write and read logs.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::error::Result;
use crate::parallel::Threads;
use crate::sync::Mutex;
use crate::types::LogCut;
use crate::vfs::{
    DirEntry, Floor, FreeSpace, Mapping, MemVfs, OpenMode, PathKind, SharedBytes, StoredByCalls, VfsFile,
    read_all, write_all_at,
};

pub(crate) const OWNER: LogOwner = LogOwner { database_id: [7; 16], incarnation: [8; 16] };

pub(crate) fn dir() -> &'static Path {
    Path::new("/")
}

/// The next failures, and counts of what happened.
#[derive(Debug, Default)]
pub(crate) struct Injections {
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
    pub(crate) dir_syncs: u64,
    /// Bytes passed to writes.
    pub(crate) written: u64,
    /// The write with this number, counted from now, takes only this many of its bytes and then fails.
    pub(crate) fail_write: Option<(u32, usize, io::ErrorKind)>,
    /// All writes after it fail, too.
    pub(crate) keep_failing: bool,
    pub(crate) fail_sync: Option<io::ErrorKind>,
    pub(crate) fail_allocate: Option<io::ErrorKind>,
    /// The next write to a segment fails.
    pub(crate) fail_segment_write: Option<io::ErrorKind>,
    /// No file can be written in place.
    pub(crate) fail_share: bool,
    /// The free bytes of the file system.
    pub(crate) free: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TestVfs {
    pub(crate) mem: MemVfs,
    pub(crate) plan: Arc<Mutex<Injections>>,
}

#[derive(Debug)]
struct TestFile {
    file: Arc<dyn VfsFile>,
    is_segment: bool,
    plan: Arc<Mutex<Injections>>,
}

impl Vfs for TestVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let is_segment = path.extension().is_some_and(|extension| extension == "log");
        Ok(Arc::new(TestFile { file: self.mem.open(path, mode)?, is_segment, plan: Arc::clone(&self.plan) }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.mem.list(dir)
    }
    fn kind(&self, path: &Path) -> io::Result<Option<PathKind>> {
        self.mem.kind(path)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.mem.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.mem.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.mem.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.plan.lock().dir_syncs += 1;
        self.mem.sync_dir(dir)
    }
    fn free_space(&self, _: &Path) -> io::Result<Option<FreeSpace>> {
        let free = self.plan.lock().free;
        Ok(free.map(|bytes| FreeSpace { bytes, of_bytes: bytes, inodes: None }))
    }
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        self.mem.lock(path, owner)
    }
    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.mem.lock_shared(path)
    }
}

impl VfsFile for TestFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut plan = self.plan.lock();
        plan.written += buf.len() as u64;
        plan.writes += 1;
        if let Some(kind) = plan.fail_segment_write.take_if(|_| self.is_segment) {
            return Err(kind.into());
        }
        let Some((left, taken, kind)) = plan.fail_write else { return self.file.write_at(buf, offset) };
        if left > 0 {
            plan.fail_write = Some((left - 1, taken, kind));
            return self.file.write_at(buf, offset);
        }
        if taken > 0 {
            plan.fail_write = Some((0, 0, kind));
            return self.file.write_at(&buf[..taken.min(buf.len())], offset);
        }
        if !plan.keep_failing {
            plan.fail_write = None;
        }
        Err(kind.into())
    }
    fn sync(&self) -> io::Result<()> {
        let mut plan = self.plan.lock();
        plan.syncs += 1;
        if let Some(kind) = plan.fail_sync.take() {
            return Err(kind.into());
        }
        drop(plan);
        // Long enough for other threads to start waiting.
        (0..20).for_each(|_| std::thread::yield_now());
        self.file.sync()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        match self.plan.lock().fail_allocate {
            Some(kind) => Err(kind.into()),
            None => self.file.allocate(len),
        }
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn map(&self, len: u64) -> io::Result<Mapping> {
        self.file.map(len)
    }
    fn share(&self, len: u64) -> io::Result<Box<dyn SharedBytes>> {
        if self.plan.lock().fail_share {
            return Err(io::ErrorKind::Unsupported.into());
        }
        StoredByCalls::of(Arc::clone(&self.file), len)
    }
}

impl TestVfs {
    pub(crate) fn read(&self, path: &Path) -> Vec<u8> {
        read_all(&*self.mem.open(path, OpenMode::Read).unwrap(), 1 << 30).unwrap()
    }

    pub(crate) fn overwrite(&self, path: &Path, bytes: &[u8]) {
        let file = self.mem.open(path, OpenMode::Truncate).unwrap();
        write_all_at(&*file, bytes, 0).unwrap();
    }

    /// Every file, in order of names.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = self.mem.list(dir()).unwrap();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let paths = files.into_iter().map(|entry| dir().join(entry.name));
        paths.map(|path| (path.clone(), self.read(&path))).collect()
    }
}

pub(crate) fn start() -> WalStart {
    WalStart {
        next_generation: 1,
        next_seq: 1,
        end: Lsn::ZERO,
        resume: false,
        segments: vec![],
        last_edit: 0,
    }
}

pub(crate) fn open(vfs: &TestVfs, start: WalStart, segment_size: u64) -> Wal {
    open_on(Arc::new(vfs.clone()), start, segment_size)
}

pub(crate) fn open_on(vfs: Arc<dyn Vfs>, start: WalStart, segment_size: u64) -> Wal {
    let context = WalContext {
        latencies: std::sync::Arc::default(),
        vfs,
        dir: dir().to_path_buf(),
        clock: Arc::new(ManualClock::new(u64::from(start.next_generation))),
        database_id: OWNER.database_id,
        incarnation: OWNER.incarnation,
        health: Arc::default(),
        meter: Arc::default(),
    };
    let wal = Wal::new(context, start);
    wal.set_limits(limits(segment_size));
    wal
}

/// No limits except the segment size.
pub(crate) fn limits(segment_size: u64) -> LogLimits {
    LogLimits { segment_size, limit: u64::MAX, oversized: u64::MAX, write_buffer: 1024, buffer: 0 }
}

pub(crate) fn reserve(wal: &Wal, len: usize) -> Result<crate::wal::segments::Reservation<'_>> {
    wal.try_reserve(len, Floor::NONE).map(|reservation| reservation.expect("the log is at its limit"))
}

pub(crate) fn append(wal: &Wal, payload: &[u8]) -> Result<crate::wal::append::Appended> {
    wal.append(reserve(wal, payload.len())?, 1, payload, Route::Buffered, |_| ())
}

pub(crate) type Batches = Vec<(SeqNo, Vec<u8>)>;

/// Recovers the log as opening a database does.
pub(crate) fn recover(vfs: &dyn Vfs, rules: &LogRules) -> Result<(Chain, Batches)> {
    let segments = discover(vfs, dir(), OWNER)?;
    let chain = validate(vfs, dir(), &segments, rules);
    // Several threads find the same.
    let chain_of_threads = validate_batches(vfs, dir(), &segments, rules, Threads::Exactly(3), None);
    assert_eq!(format!("{chain:?}"), format!("{:?}", chain_of_threads.map(|(chain, _)| chain)));
    let chain = chain?;
    let mut batches = Vec::new();
    replay(vfs, &chain, |record| {
        batches.push((record.first_seq, record.payload.to_vec()));
        Ok(())
    })?;
    let last = batches.last().map_or(0, |(seq, _)| *seq);
    assert!(chain.last_seq >= last);
    Ok((chain, batches))
}

/// The state that the manifest would keep across several recoveries.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    pub(crate) rules: LogRules,
}

impl Manifest {
    /// Recovers as the engine does after an unclean end. Returns the log to continue with, and the batches found.
    pub(crate) fn recover(&mut self, vfs: &TestVfs, segment_size: u64) -> (Wal, Batches) {
        let (chain, batches) = recover(vfs, &self.rules).unwrap();
        harden(vfs, dir(), &chain, chain.watermark).unwrap();
        let next_generation = chain.max_generation + 1;
        let (generation, end) = (chain.end.generation(), chain.end.offset());
        self.rules.cuts.retain(|cut| cut.generation != generation);
        self.rules.cuts.push(LogCut { generation, end, next_generation, seq: chain.last_seq });
        self.rules.durable = chain.end;
        let next_seq = chain.last_seq + 100;
        let segments = chain.segments;
        let start = WalStart { next_generation, next_seq, end: chain.end, segments, ..start() };
        (open(vfs, start, segment_size), batches)
    }
}

/// Loses random pieces of unsynced data.
pub(crate) fn power_cut(vfs: &TestVfs, synced: Lsn, random: &ManualClock) {
    for (path, mut bytes) in vfs.files() {
        let header = crate::wal::format::SegmentHeader::decode(&bytes, &path).unwrap();
        let from = match header.map(|header| header.generation.cmp(&synced.generation())) {
            Some(std::cmp::Ordering::Less) => continue,
            Some(std::cmp::Ordering::Equal) => synced.offset() as usize,
            Some(std::cmp::Ordering::Greater) => 1024,
            None => 0, // the log buffer is never synced
        };
        let tail = &mut bytes[from..];
        let lost_in_1000 = random.random() % 60;
        for piece in tail.chunks_mut(64) {
            match random.random() % 1000 {
                r if r < lost_in_1000 => piece.fill(0),
                r if r < lost_in_1000 + 5 => piece.fill(0xa5),
                _ => {}
            }
        }
        if random.random().is_multiple_of(4) {
            let keep = random.random() % (tail.len() as u64 + 1);
            bytes.truncate(from + keep as usize);
        }
        vfs.overwrite(&path, &bytes);
    }
}

impl Wal {
    /// Holds the log lock until this many threads wait for it, each with a record that fits into the write buffer.
    pub(crate) fn gather(&self, threads: usize, write: impl Fn(usize) + Sync) {
        let held = self.log.lock();
        std::thread::scope(|scope| {
            for n in 0..threads {
                let (before, write) = (self.waiting.load(Ordering::Relaxed), &write);
                let writer = scope.spawn(move || write(n));
                while self.waiting.load(Ordering::Relaxed) == before && !writer.is_finished() {
                    std::thread::yield_now();
                }
            }
            drop(held);
        });
    }
}
