//! Writes an SST front to back, from entries in order. Nothing is synced here; see [`super::Table::sync`].

use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fences::FencesBuilder;
use super::format::{
    FOOTER_LEN, SECTION_ALIGN, Section, SectionKind, SstHeader, encode_directory, encode_footer,
    encode_properties,
};
use super::index::{self, GroupAddress, MAX_BLOCKS};
use crate::bloom;
use crate::coding::shared_prefix;
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, Id};
use crate::key::key_hash;
use crate::key_sample::Sampler;
use crate::paths;
use crate::planted::{Bug, planted};
use crate::sst_block::{BlockBuilder, LZ4, MAX_ENTRY_BYTES, NO_CODEC, checksum_at};
use crate::types::{EntryKind, EntryRef, FileId, RunId, SeqNo, SstDetails, SstMeta};
use crate::vfs::{Mapping, OpenMode, Vfs, VfsFile, write_all_at};

/// Minimum size of a write: smaller ones cost twice as much.
const WRITE_UNIT: usize = 256 << 10;
/// Blocks that end shortly before a page of the system ends are padded up to it: so that most lie within the pages that
/// they need at least, and are loaded with one page where otherwise, of 4 KiB, nearly all would need two.
const PAGE: u64 = 4096;
/// Maximum bytes of padding. Entries of up to about this length fill all pages; blocks of longer ones are rarely padded,
/// because too much space would be wasted.
const MOST_PADDING: usize = 256;

/// The properties of an SST that are known before its first entry.
#[derive(Clone, Debug)]
pub(crate) struct SstParams {
    pub(crate) id: FileId,
    pub(crate) stripe: u16,
    pub(crate) keyspace: u32,
    pub(crate) run: RunId,
    pub(crate) part: u32,
    pub(crate) depth: u32,
    /// See [`SstMeta::run_seq`]. No entry lies outside this range.
    pub(crate) run_seq: (SeqNo, SeqNo),
    /// No key lies outside this range; the common prefix of the bounds is stored once.
    pub(crate) key_bounds: (Vec<u8>, Vec<u8>),
    pub(crate) block_size: usize,
    pub(crate) bits_per_key: u32,
    /// Whether to compress blocks where that saves a third.
    pub(crate) compress: bool,
    /// Whether blocks of short entries are padded to whole pages, for up to a sixteenth more space.
    pub(crate) pad: bool,
    /// Minimum bytes per write call; raised to 256 KiB if lower.
    pub(crate) write_unit: usize,
    pub(crate) database_id: Id,
    pub(crate) incarnation: Id,
    pub(crate) created_ms: u64,
}

/// Keeps the system from evicting the inode of a file that is not synced yet. With the inode would go the record of a
/// failed writeback, which the sync, through another descriptor, would then not report. A mapping pins the inode
/// without holding a descriptor.
#[derive(Debug)]
pub(crate) struct Unsynced(#[expect(dead_code, reason = "held, never read")] Option<Mapping>);

impl Unsynced {
    fn new(file: &dyn VfsFile, len: u64) -> Self {
        // If there is no memory for the mapping, the sync still reports the error unless the inode was evicted, too.
        Self(file.map(len).ok())
    }
}

/// An SST being written. After any error it must be abandoned.
#[derive(Debug)]
pub(crate) struct SstWriter {
    vfs: Arc<dyn Vfs>,
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    params: SstParams,
    prefix_len: usize,
    /// Bytes not written yet, and the number of bytes before them.
    out: Vec<u8>,
    written: u64,
    /// CRC-32C of the bytes written.
    checksum: u32,
    block: BlockBuilder,
    /// Length of the current block with which it would end at the end of a page; 0 if it need not.
    to_page: usize,
    /// Whether the last block was compressed. Such blocks have any length, so their ends have nothing to do with pages.
    compressed: bool,
    fences: FencesBuilder,
    /// Hash and packed address of each distinct key.
    hashes: Vec<u64>,
    places: Vec<u32>,
    last_key: Vec<u8>,
    last_seq: SeqNo,
    /// The result of `finish`, as far as it is known.
    meta: SstMeta,
}

impl SstWriter {
    /// Creates the file, which must not exist.
    pub(crate) fn create(vfs: &Arc<dyn Vfs>, dir: &Path, params: SstParams) -> Result<Self> {
        Self::create_at(vfs, paths::sst(dir, usize::from(params.stripe), params.id), params)
    }

    /// The same under another name, which is to be renamed before anything looks for the file.
    pub(crate) fn create_at(vfs: &Arc<dyn Vfs>, path: PathBuf, params: SstParams) -> Result<Self> {
        let file = vfs.open(&path, OpenMode::Create).map_err(Error::io("create", &path))?;
        let header = SstHeader {
            id: params.id,
            base_seq: params.run_seq.0,
            keyspace: params.keyspace,
            stripe: params.stripe,
        };
        let header = FileHeader {
            kind: FileKind::Sst,
            database_id: params.database_id,
            incarnation: params.incarnation,
            created_ms: params.created_ms,
            extra: header.encode(),
        };
        let mut out = Vec::with_capacity(WRITE_UNIT + params.block_size);
        out.extend_from_slice(&header.encode());
        Ok(Self {
            vfs: Arc::clone(vfs),
            file,
            path,
            prefix_len: shared_prefix(&params.key_bounds.0, &params.key_bounds.1),
            out,
            written: 0,
            checksum: 0,
            block: BlockBuilder::new(params.compress),
            to_page: 0,
            compressed: false,
            fences: FencesBuilder::default(),
            hashes: Vec::new(),
            places: Vec::new(),
            last_key: Vec::new(),
            last_seq: 0,
            meta: new_meta(&params),
            params,
        })
    }

    /// Adds the next entry: a higher key than the last one, or an older version of it. `tombstone_ms` is when a
    /// tombstone was written, if known; otherwise the file's creation time is used.
    pub(crate) fn add(&mut self, entry: EntryRef<'_>, tombstone_ms: Option<u64>) -> Result<()> {
        let is_first = self.meta.entries == 0;
        let order = if is_first { Ordering::Greater } else { entry.key.cmp(&self.last_key) };
        self.check(&entry, order, is_first)?;
        let key = self.without_prefix(entry.key)?;
        let seq = entry.seq - self.params.run_seq.0;
        if self.block.is_full() || !self.block.is_empty() && self.ends_before(key, seq, entry.value) {
            self.finish_block()?;
        }
        if self.block.is_empty() {
            if self.fences.blocks() >= MAX_BLOCKS {
                return Err(self.refuse("the file has reached the maximum number of blocks"));
            }
            let last = if is_first { None } else { Some(self.without_prefix(&self.last_key)?) };
            let offset = self.written + self.out.len() as u64;
            if self.fences.push(last, key, offset).is_none() {
                return Err(self.refuse("the file's separators exceed their maximum length"));
            }
            self.to_page = self.to_page(offset);
        }
        let group = self.block.add(&mut self.out, key, entry.kind, seq, entry.value);
        if order.is_gt() {
            let hashed = if planted(Bug::FilterOfWrongKey) { &self.last_key } else { entry.key };
            self.hashes.push(key_hash(hashed));
            self.places.push(GroupAddress { block: self.fences.blocks() - 1, group }.pack());
            self.last_key.clear();
            self.last_key.extend_from_slice(entry.key);
        }
        self.last_seq = entry.seq;
        self.count(&entry, tombstone_ms);
        Ok(())
    }

    /// The length with which a block at `offset` ends at the end of a page: the longest within the block size, unless it
    /// is less than half of that.
    fn to_page(&self, offset: u64) -> usize {
        let size = self.params.block_size;
        let page_end = (offset + size as u64) / PAGE * PAGE;
        let len = page_end.saturating_sub(offset) as usize;
        if !self.params.pad || self.compressed || len < size / 2 { 0 } else { len }
    }

    /// Whether the current block ends before this entry: with it, the block would be too long, or end on another page.
    fn ends_before(&self, key: &[u8], seq: u64, value: &[u8]) -> bool {
        let len = self.block.len(&self.out);
        let with = len + self.block.len_of(key, seq, value);
        with > self.params.block_size || with > self.to_page && self.padding(len).is_some()
    }

    /// The bytes that are missing at the end of the page after a block of `len` bytes, unless they are too many.
    fn padding(&self, len: usize) -> Option<usize> {
        self.to_page.checked_sub(len).filter(|padding| *padding <= MOST_PADDING)
    }

    fn count(&mut self, entry: &EntryRef<'_>, tombstone_ms: Option<u64>) {
        let meta = &mut self.meta;
        if meta.entries == 0 {
            meta.keys.0 = entry.key.to_vec();
            meta.seq = (entry.seq, entry.seq);
        }
        meta.seq = (meta.seq.0.min(entry.seq), meta.seq.1.max(entry.seq));
        meta.entries += 1;
        meta.raw_bytes += (entry.key.len() + entry.value.len()) as u64;
        if entry.kind == EntryKind::Delete {
            let ms = tombstone_ms.unwrap_or(self.params.created_ms);
            let older = meta.tombstones == 0 || ms < meta.oldest_tombstone_ms;
            meta.oldest_tombstone_ms = if older { ms } else { meta.oldest_tombstone_ms };
            meta.tombstones += 1;
        }
    }

    /// Rejects entries that would produce an unreadable file. `order` is that of the key and the last one.
    fn check(&self, entry: &EntryRef<'_>, order: Ordering, is_first: bool) -> Result<()> {
        let (low, high) = &self.params.key_bounds;
        let (low_seq, high_seq) = self.params.run_seq;
        if order.is_lt() || order.is_eq() && entry.seq >= self.last_seq {
            return Err(self.refuse("it is not above the previous entry"));
        }
        // The others are above the first one.
        if is_first && entry.key < low.as_slice() || order.is_gt() && entry.key > high.as_slice() {
            return Err(self.refuse("its key is outside the file's key bounds"));
        }
        if entry.seq < low_seq || entry.seq > high_seq {
            return Err(self.refuse("its sequence is outside the run's range"));
        }
        if entry.key.len().saturating_add(entry.value.len()) >= MAX_ENTRY_BYTES {
            return Err(self.refuse("it is too long"));
        }
        Ok(())
    }

    fn without_prefix<'k>(&self, key: &'k [u8]) -> Result<&'k [u8]> {
        key.get(self.prefix_len..).ok_or_else(|| self.no_prefix())
    }

    #[cold]
    fn no_prefix(&self) -> Error {
        self.refuse("its key lacks the prefix that the bounds share")
    }

    fn refuse(&self, why: &'static str) -> Error {
        Error::io("add an entry to", &self.path)(io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    /// The number of entries added.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> u64 {
        self.meta.entries
    }

    /// The key added last; empty before the first.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Bytes written to the file so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Approximate length of the file if it were finished now.
    pub(crate) fn estimated_len(&self) -> u64 {
        let blocks = self.out.len() + self.block.pending_len();
        let filter = self.hashes.len().saturating_mul(self.params.bits_per_key as usize) / 8;
        let frame = 8 * SECTION_ALIGN + FOOTER_LEN + 2 * self.last_key.len();
        self.written
            + (blocks + index::section_len(self.hashes.len()) + self.fences.len() + filter + frame) as u64
    }

    /// Whether to start a new part before the next new key: the file has reached `target` bytes, or half of the maximum
    /// number of blocks (the other half is for further versions of its last key).
    pub(crate) fn is_full(&self, target: u64) -> bool {
        self.fences.blocks() >= MAX_BLOCKS / 2 || self.estimated_len() >= target
    }

    fn finish_block(&mut self) -> Result<()> {
        let padding = self.padding(self.block.len(&self.out)).unwrap_or(0);
        self.finish_padded_block(padding)
    }

    fn finish_padded_block(&mut self, padding: usize) -> Result<()> {
        self.compressed = self.block.finish(&mut self.out, self.params.id, self.written, padding);
        if self.out.len() >= self.params.write_unit.max(WRITE_UNIT) { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<()> {
        self.checksum = crc32c::crc32c_append(self.checksum, &self.out);
        write_all_at(&*self.file, &self.out, self.written).map_err(Error::io("write", &self.path))?;
        self.written += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    /// Writes the rest and returns the file's description. The file is not synced yet. `parts` is right if this is the
    /// run's last part; otherwise the caller sets it when the run ends.
    pub(crate) fn finish(&mut self) -> Result<(SstMeta, Unsynced)> {
        self.finish_file()?;
        Ok((self.meta.clone(), Unsynced::new(&*self.file, self.written)))
    }

    fn finish_file(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Err(self.refuse("a file without entries is not allowed"));
        }
        self.finish_padded_block(0)?;
        let blocks_end = self.written + self.out.len() as u64;
        self.meta.keys.1 = std::mem::take(&mut self.last_key);
        self.meta.details = Some(Arc::new(self.details()));
        let Some(prefix) = self.meta.keys.0.get(..self.prefix_len) else { return Err(self.no_prefix()) };
        let bodies = [
            (SectionKind::Index, index::build(&self.hashes, &self.places)),
            (SectionKind::Fences, self.fences.finish(prefix, blocks_end)),
            (SectionKind::Filter, bloom::build(&self.hashes, self.params.bits_per_key)),
            (SectionKind::Properties, encode_properties(&self.meta)),
        ];
        let id = self.params.id;
        let sections = bodies.map(|(kind, body)| {
            let offset = self.append_aligned(&body);
            Section { kind, offset, len: body.len() as u64, crc: checksum_at(id, offset, &body) }
        });
        let directory = encode_directory(&sections);
        let directory_at = self.append_aligned(&directory);
        self.out.extend_from_slice(&encode_footer(directory_at, &directory, id));
        self.write_out()?;
        self.meta.len = self.written;
        self.meta.directory = (directory_at, directory.len() as u32);
        self.meta.checksum = self.checksum;
        Ok(())
    }

    fn details(&self) -> SstDetails {
        let mut sampler = Sampler::default();
        self.hashes.iter().for_each(|&hash| sampler.add(hash));
        SstDetails {
            keys: self.hashes.len() as u64,
            sample: sampler.finish(),
            bits_per_key: self.params.bits_per_key,
            block_size: u32::try_from(self.params.block_size).unwrap_or(u32::MAX),
            codec: if self.params.compress { LZ4 } else { NO_CODEC },
        }
    }

    /// Appends a section at the next aligned offset, which is returned.
    fn append_aligned(&mut self, body: &[u8]) -> u64 {
        let end = self.written + self.out.len() as u64;
        let offset = end.next_multiple_of(SECTION_ALIGN as u64);
        self.out.resize(self.out.len() + (offset - end) as usize, 0);
        self.out.extend_from_slice(body);
        offset
    }

    /// Removes the file. If that fails, it is left as an orphan, which recovery removes.
    pub(crate) fn abandon(self) -> std::io::Result<()> {
        drop(self.file);
        self.vfs.remove(&self.path)
    }
}

fn new_meta(params: &SstParams) -> SstMeta {
    SstMeta {
        id: params.id,
        stripe: params.stripe,
        keyspace: params.keyspace,
        run: params.run,
        part: params.part,
        parts: params.part.saturating_add(1),
        depth: params.depth,
        run_seq: params.run_seq,
        seq: (0, 0),
        keys: (Vec::new(), Vec::new()),
        entries: 0,
        tombstones: 0,
        raw_bytes: 0,
        len: 0,
        directory: (0, 0),
        checksum: 0,
        oldest_tombstone_ms: 0,
        created_ms: params.created_ms,
        origin: params.database_id,
        details: None,
    }
}
