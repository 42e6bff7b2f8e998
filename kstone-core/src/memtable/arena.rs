//! The memory of a memtable: bytes that are appended once, never move, and are read without a lock.
//!
//! Records lie in chunks of 16 KiB, one after another; one larger than 2 KiB has a chunk of its own. The memory of chunks
//! comes from a pool and returns to it: touching a page for the first time costs more than writing all records in it.
//! The pool maps its memory from the system instead of allocating it, because an allocator keeps what lies between other
//! allocations, and a database would hold for ever what a load once took ([`ChunkPool::release`]).
//!
//! This is the place with `unsafe` code of the memtable, behind an interface that is safe for any caller:
//! 1. Bytes below `filled` of a chunk were written, and never change. They are all that [`Arena::bytes`] returns.
//! 2. Bytes above it are written only by the holder of the [`Tail`], under its lock, which then raises `filled`.
//! 3. A chunk is in one arena or free. What a free chunk holds is never read.

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use memmap2::{MmapMut, UncheckedAdvice};

use crate::coding::part;
use crate::slice::Slice;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Size of a chunk in bytes.
const CHUNK: usize = 16 << 10;
/// Bytes that are mapped at once, a multiple of [`CHUNK`].
const SLAB: usize = 1 << 20;
/// Longer records have a chunk of their own, which a value can then share instead of being copied.
const LARGE: usize = 2 << 10;
/// Records start at multiples of this.
pub(super) const ALIGN: usize = 8;
/// Bits of an [`Address`] that say where in its chunk a record starts, in units of [`ALIGN`].
const OFFSET_BITS: u32 = 11;
/// Bits of an [`Address`].
pub(super) const ADDRESS_BITS: u32 = 36;
/// Chunks of an arena that should take no further records. The addresses behind them suffice for the largest batch.
pub(super) const MANY_CHUNKS: u32 = 1 << (ADDRESS_BITS - OFFSET_BITS - 1);

/// Free chunks whose memory is kept while the database is idle, for the first records after that.
const KEPT_CHUNKS: usize = 256;

/// Where a record starts. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(pub(super) u64);

impl Address {
    /// `chunk` counts from 1.
    fn new(chunk: u32, offset: usize) -> Self {
        Self(u64::from(chunk) << OFFSET_BITS | (offset / ALIGN) as u64)
    }

    /// The address of what is `bytes`, a multiple of [`ALIGN`], behind.
    pub(super) fn plus(self, bytes: usize) -> Self {
        Self(self.0 + (bytes / ALIGN) as u64)
    }

    fn chunk(self) -> u32 {
        (self.0 >> OFFSET_BITS) as u32
    }

    fn offset(self) -> usize {
        (self.0 & ((1 << OFFSET_BITS) - 1)) as usize * ALIGN
    }
}

/// The memory of a chunk, which is written in parts, each once, while the parts written before are read.
struct Memory {
    start: NonNull<u8>,
    /// The mapping that has it.
    slab: Arc<MmapMut>,
}

#[expect(unsafe_code, reason = "shared between one writer and the readers of what it has written")]
// SAFETY: the mapping lives as long as this. The methods that reach the bytes state who may touch which: no byte is
// written while it is read.
unsafe impl Sync for Memory {}

#[expect(unsafe_code, reason = "chunks pass from one memtable to another")]
// SAFETY: the mapping lives as long as this, and any thread may access it.
unsafe impl Send for Memory {}

impl Memory {
    /// The chunks of a new mapping.
    fn slab() -> impl Iterator<Item = Self> {
        let mut map =
            MmapMut::map_anon(SLAB).unwrap_or_else(|_| handle_alloc_error(Layout::new::<[u8; SLAB]>()));
        let starts: Vec<_> = map.chunks_exact_mut(CHUNK).map(|chunk| NonNull::from(chunk).cast()).collect();
        let slab = Arc::new(map);
        starts.into_iter().map(move |start| Self { start, slab: Arc::clone(&slab) })
    }

    /// Its place in its slab.
    fn range(&self) -> Range<usize> {
        let at = self.start.addr().get() - self.slab.as_ptr().addr();
        at..at + CHUNK
    }

    /// Copies `parts` to `at`, one after another; returns the end.
    ///
    /// # Safety
    /// The range is within the memory, and until this returns no other call reads or writes any of it.
    #[expect(unsafe_code, reason = "writes memory that others hold, beside the part that they read")]
    unsafe fn write<const N: usize>(&self, at: usize, parts: [&[u8]; N]) -> usize {
        let mut to = at;
        for part in parts {
            debug_assert!(to + part.len() <= CHUNK);
            // SAFETY: the caller keeps the range within the memory and to itself; `part` is elsewhere, since a
            // reference to it exists.
            unsafe {
                std::ptr::copy_nonoverlapping(part.as_ptr(), self.start.add(to).as_ptr(), part.len());
            }
            to += part.len();
        }
        to
    }

    /// The first `len` bytes.
    ///
    /// # Safety
    /// They are within the memory, were written, happened before this call, and are never written again while the
    /// result is in use.
    #[expect(unsafe_code, reason = "reads memory whose other parts are being written")]
    unsafe fn written(&self, len: usize) -> &[u8] {
        debug_assert!(len <= CHUNK);
        // SAFETY: the caller says that these bytes do not change; all bytes of a mapping are initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len) }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.range())
    }
}

#[derive(Debug)]
enum Bytes {
    Shared(Memory),
    /// A single record.
    Large(Arc<[u8]>),
}

/// Joins the parts of a record in one allocation.
fn joined(parts: [&[u8]; 3], len: usize) -> Arc<[u8]> {
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
    let mut rest = Arc::get_mut(&mut bytes);
    for part in parts {
        let halves = rest.take().and_then(|rest| rest.split_at_mut_checked(part.len()));
        debug_assert!(halves.is_some(), "an allocation just made is shared, or shorter than it was made");
        if let Some((here, behind)) = halves {
            here.copy_from_slice(part);
            rest = Some(behind);
        }
    }
    bytes
}

/// Memory for records. A chunk that was never begun has none.
#[derive(Debug, Default)]
struct Chunk {
    bytes: OnceLock<Bytes>,
    /// The number of bytes in use, from the start. Raised after they were written.
    filled: AtomicU32,
}

impl Chunk {
    fn memory(&self) -> Option<&Memory> {
        match self.bytes.get()? {
            Bytes::Shared(memory) => Some(memory),
            Bytes::Large(_) => None,
        }
    }

    #[inline]
    #[expect(unsafe_code, reason = "the only place that reads the bytes of memtables")]
    fn filled(&self) -> &[u8] {
        match self.bytes.get() {
            // SAFETY: `Arena::push` writes only behind `filled`, and raises it, with `Release`, after the bytes up to
            // there were written; it is never lowered.
            Some(Bytes::Shared(memory)) => unsafe {
                memory.written(self.filled.load(Ordering::Acquire) as usize)
            },
            Some(Bytes::Large(bytes)) => bytes,
            None => &[],
        }
    }
}

/// Chunks by number, in blocks of doubling size that never move.
#[derive(Debug, Default)]
struct Chunks {
    /// Block n has `16 << n` chunks.
    blocks: [OnceLock<Box<[Chunk]>>; (ADDRESS_BITS - OFFSET_BITS - Self::FIRST_BITS) as usize],
}

impl Chunks {
    const FIRST_BITS: u32 = 4;

    /// The block of a chunk, and its place there.
    #[inline]
    fn locate(number: u32) -> (usize, usize) {
        let from_first = number + (1 << Self::FIRST_BITS);
        let bits = from_first.ilog2();
        ((bits - Self::FIRST_BITS) as usize, (from_first - (1 << bits)) as usize)
    }

    #[inline]
    fn get(&self, number: u32) -> Option<&Chunk> {
        let (block, at) = Self::locate(number);
        self.blocks.get(block)?.get()?.get(at)
    }

    fn get_or_make(&self, number: u32) -> Option<&Chunk> {
        let (block, at) = Self::locate(number);
        let len = 1usize << (block as u32 + Self::FIRST_BITS);
        let make = || std::iter::repeat_with(Chunk::default).take(len).collect();
        self.blocks.get(block)?.get_or_init(make).get(at)
    }

    fn into_memory(self) -> impl Iterator<Item = Memory> {
        let chunks = self.blocks.into_iter().filter_map(OnceLock::into_inner).flatten();
        chunks.filter_map(|chunk| match chunk.bytes.into_inner() {
            Some(Bytes::Shared(memory)) => Some(memory),
            _ => None,
        })
    }
}

/// Memory of chunks that are not in use.
#[derive(Debug, Default)]
pub(crate) struct ChunkPool {
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// Chunks whose pages are likely in memory; the last one was used last.
    used: Vec<Memory>,
    /// Chunks without pages.
    unused: Vec<Memory>,
}

impl ChunkPool {
    fn take(&self) -> Memory {
        let mut free = self.free.lock();
        let Free { used, unused } = &mut *free;
        if used.is_empty() && unused.is_empty() {
            unused.extend(Memory::slab());
        }
        // A slab has chunks.
        used.pop().or_else(|| unused.pop()).unwrap_or_else(|| handle_alloc_error(Layout::new::<[u8; SLAB]>()))
    }

    /// The number of free chunks with and without memory.
    #[cfg(test)]
    pub(crate) fn free_chunks(&self) -> (usize, usize) {
        let free = self.free.lock();
        (free.used.len(), free.unused.len())
    }

    fn give_back(&self, chunks: impl Iterator<Item = Memory>) {
        self.free.lock().used.extend(chunks);
    }

    /// Returns the memory of free chunks, but for [`KEPT_CHUNKS`], to the system. They stay mapped: the pages come back
    /// as they are written to.
    pub(crate) fn release(&self) {
        let mut idle = {
            let used = &mut self.free.lock().used;
            let idle = used.len().saturating_sub(KEPT_CHUNKS);
            used.drain(..idle).collect::<Vec<_>>()
        };
        idle.sort_unstable_by_key(|memory| memory.start);
        // Neighbours together.
        let next_to =
            |a: &Memory, b: &Memory| Arc::ptr_eq(&a.slab, &b.slab) && a.range().end == b.range().start;
        for together in idle.chunk_by(next_to) {
            if let Some(first) = together.first() {
                let len = together.len() * CHUNK;
                #[expect(unsafe_code, reason = "the advice empties the pages")]
                // SAFETY: these chunks are free, and belong to nobody but `idle`: nothing reads what they hold.
                let advised = unsafe {
                    first.slab.unchecked_advise_range(UncheckedAdvice::DontNeed, first.range().start, len)
                };
                // If it is refused, the memory is only kept.
                drop(advised);
            }
        }
        self.free.lock().unused.append(&mut idle);
    }
}

/// Where the next record goes.
#[derive(Clone, Copy, Debug, Default)]
struct Tail {
    /// The chunk that takes records, by number; 0 before the first.
    chunk: u32,
    /// Bytes of it that are in use.
    filled: usize,
    /// Chunks begun. A large record has a chunk of its own; the chunk that takes the others stays the same.
    chunks: u32,
}

/// How far a reader of all records has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen(Tail);

/// Append-only memory.
#[derive(Debug)]
pub(super) struct Arena {
    chunks: Chunks,
    tail: Mutex<Tail>,
    pool: Arc<ChunkPool>,
}

impl Arena {
    pub(super) fn new(pool: &Arc<ChunkPool>) -> Self {
        Self { chunks: Chunks::default(), tail: Mutex::default(), pool: Arc::clone(pool) }
    }

    /// Whether no further records should be added: there are hardly any addresses left.
    pub(super) fn is_full(&self) -> bool {
        self.tail.lock().chunks >= MANY_CHUNKS
    }

    /// Starts appending; blocks other appends.
    pub(super) fn append(&self) -> Appender<'_> {
        Appender { arena: self, tail: self.tail.lock() }
    }

    /// The bytes from a record's start on: at least those that were appended there.
    #[inline]
    pub(super) fn bytes(&self, at: Address) -> &[u8] {
        let chunk = self.chunks.get(at.chunk()).map_or(&[][..], Chunk::filled);
        chunk.get(at.offset()..).unwrap_or_default()
    }

    /// The record that has a chunk of its own, to share instead of copying it.
    pub(super) fn shared(&self, at: Address) -> Option<Slice> {
        match self.chunks.get(at.chunk())?.bytes.get()? {
            Bytes::Large(bytes) => Some(Slice::from(Arc::clone(bytes))),
            Bytes::Shared(_) => None,
        }
    }

    /// Calls `visit` with all stretches of records that were appended since `seen`, and the address of each.
    pub(super) fn appended_since(&self, seen: &mut Seen, mut visit: impl FnMut(Address, &[u8])) {
        let tail = *self.tail.lock();
        let Seen(before) = *seen;
        let begun = (before.chunks + 1..=tail.chunks).map(|chunk| (chunk, 0));
        for (chunk, from) in [(before.chunk, before.filled)].into_iter().chain(begun) {
            let filled = self.chunks.get(chunk).map_or(&[][..], Chunk::filled);
            // More may have been appended since the tail was read.
            let upto = if chunk == tail.chunk { tail.filled } else { filled.len() };
            visit(Address::new(chunk, from), part(filled, from..upto));
        }
        *seen = Seen(tail);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.chunks).into_memory());
    }
}

/// The right to append to an arena.
#[derive(Debug)]
pub(super) struct Appender<'a> {
    arena: &'a Arena,
    tail: MutexGuard<'a, Tail>,
}

impl Appender<'_> {
    /// Appends a record, the concatenation of `parts`. `None` if there is no address for it.
    pub(super) fn push(&mut self, parts: [&[u8]; 3]) -> Option<Address> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > LARGE {
            return self.begin(|| Bytes::Large(joined(parts, len)));
        }
        let padding = part(&[0; ALIGN], ..len.next_multiple_of(ALIGN) - len);
        let mut chunk = self.arena.chunks.get(self.tail.chunk);
        let mut memory = chunk.and_then(Chunk::memory);
        if memory.is_none() || CHUNK - self.tail.filled < len + padding.len() {
            self.tail.chunk = self.begin(|| Bytes::Shared(self.arena.pool.take()))?.chunk();
            self.tail.filled = 0;
            chunk = self.arena.chunks.get(self.tail.chunk);
            memory = chunk.and_then(Chunk::memory);
        }
        let at = self.tail.filled;
        let [first, second, third] = parts;
        #[expect(unsafe_code, reason = "the only place that writes to memtables")]
        // SAFETY: the tail is locked, so nothing else writes. What is written here fits behind it, as was just checked,
        // and readers are given only what is below `filled`, which is at most `at`.
        let filled = unsafe { memory?.write(at, [first, second, third, padding]) };
        chunk?.filled.store(filled as u32, Ordering::Release);
        self.tail.filled = filled;
        Some(Address::new(self.tail.chunk, at))
    }

    /// Begins the next chunk.
    fn begin(&mut self, make: impl FnOnce() -> Bytes) -> Option<Address> {
        let number = self.tail.chunks + 1;
        let set = self.arena.chunks.get_or_make(number)?.bytes.set(make());
        debug_assert!(set.is_ok(), "a chunk was begun twice");
        self.tail.chunks = number;
        Some(Address::new(number, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arena(pool: &Arc<ChunkPool>) -> Arena {
        Arena::new(pool)
    }

    #[test]
    fn every_chunk_has_a_place_of_its_own() {
        let mut expected = (0, 0);
        for number in 0..100_000 {
            let (block, at) = Chunks::locate(number);
            assert_eq!((block, at), expected);
            expected = if at + 1 < 16 << block { (block, at + 1) } else { (block + 1, 0) };
        }
        let last = (1 << (ADDRESS_BITS - OFFSET_BITS)) - 1;
        let chunks = Chunks::default();
        let (block, at) = Chunks::locate(last - 16);
        assert_eq!((block + 1, at + 1), (chunks.blocks.len(), 16 << block));
        assert!(chunks.get_or_make(last).is_none() && chunks.get(u32::MAX - 16).is_none());
    }

    proptest! {
        #[test]
        fn bytes_stay_where_they_were_appended(
            lens in proptest::collection::vec(prop_oneof![0usize..300, 1500usize..2500, Just(LARGE), 16_000usize..17_000], 0..80),
            looks in proptest::collection::vec(0usize..80, 0..8),
        ) {
            let arena = arena(&Arc::default());
            let (mut written, mut seen, mut found) = (Vec::new(), Seen::default(), Vec::new());
            let look = |seen: &mut Seen, found: &mut Vec<Address>, written: &[(Address, Vec<u8>)]| {
                arena.appended_since(seen, |start, bytes| {
                    let mut at = 0;
                    while at < bytes.len() {
                        let address = start.plus(at);
                        let (_, record) = written.iter().find(|(known, _)| *known == address).unwrap();
                        assert_eq!(&bytes[at..at + record.len()], &record[..]);
                        found.push(address);
                        at = (at + record.len()).next_multiple_of(ALIGN);
                    }
                });
            };
            for (n, len) in lens.iter().enumerate() {
                // An empty record has no address of its own.
                let record = vec![n as u8; len + 1];
                let (first, rest) = record.split_at(len / 3);
                let (second, third) = rest.split_at(rest.len() / 2);
                let address = arena.append().push([first, second, third]).unwrap();
                prop_assert_eq!(arena.shared(address).is_some(), record.len() > LARGE);
                written.push((address, record));
                if looks.contains(&n) {
                    look(&mut seen, &mut found, &written);
                }
            }
            look(&mut seen, &mut found, &written);
            for (address, record) in &written {
                prop_assert!(arena.bytes(*address).starts_with(record));
            }
            let in_order = |mut addresses: Vec<Address>| {
                addresses.sort_by_key(|address| address.0);
                addresses
            };
            prop_assert_eq!(in_order(found), in_order(written.into_iter().map(|(address, _)| address).collect()));
        }

        #[test]
        fn addresses_that_were_never_given_out_have_no_bytes(address in 0u64..1 << ADDRESS_BITS) {
            let arena = arena(&Arc::default());
            arena.append().push([&[1; 100], &[], &[]]).unwrap();
            prop_assert!(arena.bytes(Address(address)).len() <= 104);
        }
    }

    #[test]
    fn memory_is_used_again_and_a_large_record_outlives_its_arena() {
        let pool = Arc::<ChunkPool>::default();
        let fill = |arena: &Arena, byte: u8| {
            for _ in 0..100 {
                arena.append().push([&[byte; 1000], &[], &[]]).unwrap();
            }
        };
        let first = arena(&pool);
        fill(&first, 1);
        let large = first.append().push([&[2; 5000], &[3; 5000], &[4]]).unwrap();
        let large = first.shared(large).unwrap();
        let free = || pool.free_chunks();
        assert_eq!(free(), (0, SLAB / CHUNK - 7));
        drop(first);
        assert_eq!(free(), (7, SLAB / CHUNK - 7));
        let second = arena(&pool);
        fill(&second, 5);
        assert_eq!(free(), (0, SLAB / CHUNK - 7), "chunks were not taken from the pool");
        assert!(large[..5000] == [2; 5000] && large[5000..] == [[3; 5000].as_slice(), &[4]].concat());
    }

    #[test]
    fn free_memory_is_returned_and_used_again() {
        let pool = Arc::<ChunkPool>::default();
        let fill = |records: usize, byte: u8| {
            let arena = arena(&pool);
            let addresses: Vec<_> =
                (0..records).map(|_| arena.append().push([&[byte; 1000], &[], &[]]).unwrap()).collect();
            for address in addresses {
                assert!(arena.bytes(address).starts_with(&[byte; 1000]));
            }
            arena
        };
        let free = || pool.free_chunks();
        let (large, small) = (fill(16 * 3 * KEPT_CHUNKS, 1), fill(1600, 2));
        drop(large);
        assert_eq!(free().0, 3 * KEPT_CHUNKS);
        pool.release();
        let (used, unused) = free();
        assert!(used == KEPT_CHUNKS && unused >= 2 * KEPT_CHUNKS, "{used} {unused}");
        // The pages of what was returned are gone, those of others are not.
        let byte = |memory: &Memory| memory.slab[memory.range().start];
        if cfg!(target_os = "linux") {
            assert!(pool.free.lock().unused.iter().all(|memory| byte(memory) == 0));
        }
        assert!(pool.free.lock().used.iter().all(|memory| byte(memory) == 1));
        assert!(small.bytes(Address::new(1, 0)).starts_with(&[2; 1000]));
        drop(fill(16 * 3 * KEPT_CHUNKS, 3));
        assert_eq!(free().0 + free().1, used + unused, "no new memory");
    }

    #[test]
    fn what_was_appended_is_read_while_more_is_appended() {
        let arena = arena(&Arc::default());
        let newest = std::sync::atomic::AtomicU64::new(0);
        let records: u64 = if cfg!(miri) { 200 } else { 20_000 };
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..=records {
                    let bytes = n.to_le_bytes();
                    let address = arena.append().push([&bytes, &bytes, &[n as u8; 100]]).unwrap();
                    newest.store(address.0, Ordering::Release);
                }
            });
            let mut last = 0;
            while last < records && !writer.is_finished() {
                let address = newest.load(Ordering::Acquire);
                let bytes = if address == 0 { &[][..] } else { arena.bytes(Address(address)) };
                let Some((n, rest)) = bytes.split_first_chunk() else { continue };
                let n = u64::from_le_bytes(*n);
                assert!(n >= last && rest[..8] == n.to_le_bytes() && rest[8..108] == [n as u8; 100]);
                last = n;
            }
        });
    }
}
