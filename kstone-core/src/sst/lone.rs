//! An SST on its own, described by its own contents: for tools that look into a file without its database.

use std::path::Path;
use std::sync::Arc;

use super::context::TableContext;
use super::format::{self, FOOTER_LEN, SstHeader};
use super::table::Table;
use crate::coding::{Reader, part};
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN};
use crate::vfs::{OpenMode, VfsFile, Window, read_full_at};

/// Longest section directory and properties that are read: far more than any file has, and little memory.
const MOST_METADATA: usize = 1 << 20;
/// Longest sections that are read into memory. A file with longer ones is forged.
const MOST_SECTIONS: u64 = 1 << 30;
/// Bytes of a filter section before its bits.
const FILTER_HEADER: usize = 64;

/// The parts of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) blocks: usize,
    pub(crate) block_bytes: u64,
    pub(crate) index_bytes: u64,
    pub(crate) fence_bytes: u64,
    pub(crate) filter_bytes: u64,
    pub(crate) bits_per_key: f64,
    pub(crate) probes: u8,
    pub(crate) filter_keys: u64,
    /// The share of the filter's bits that are set.
    pub(crate) filter_fill: f64,
    /// Expected rate of false positives.
    pub(crate) false_positives: f64,
}

impl Table {
    /// The SST at `path`, whatever its name, and whether or not a manifest lists it. Its header, footer, directory and
    /// properties are checked. Takes little memory, whatever the file claims.
    pub(crate) fn alone(context: &Arc<TableContext>, path: &Path) -> Result<Self> {
        let file = context.vfs.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
        let len = file.len().map_err(Error::io("read the length of", path))?;
        let head = read(&*file, path, 0, HEADER_LEN)?;
        let header = FileHeader::decode(&head, FileKind::Sst, path, 0)?;
        let fields = SstHeader::decode(&header.extra, path)?;
        let footer_at = len.checked_sub(FOOTER_LEN as u64).filter(|&at| at >= HEADER_LEN as u64);
        let footer_at =
            footer_at.ok_or_else(|| Error::corrupt(path, len, format!("it ends after {len} bytes")))?;
        let footer = read(&*file, path, footer_at, FOOTER_LEN)?;
        let mut reader = Reader::new(&footer);
        let place = reader.u64().zip(reader.u32()).filter(|&(at, len)| {
            at.checked_add(len.into()) == Some(footer_at) && len as usize <= MOST_METADATA
        });
        let directory = place.ok_or_else(|| {
            let detail = "there is no footer: the file is cut short, or its end is damaged";
            Error::corrupt(path, footer_at, detail)
        })?;
        let mut meta = format::blank_meta(fields.id, fields.stripe, len, directory);
        (meta.keyspace, meta.origin, meta.created_ms) =
            (fields.keyspace, header.database_id, header.created_ms);
        let tail = read(&*file, path, directory.0, directory.1 as usize + FOOTER_LEN)?;
        let sections = format::decode_sections(&tail, &meta, path)?;
        let at = sections.properties.at.clone();
        let sections_len = directory.0.saturating_sub(sections.first as u64);
        if at.len() > MOST_METADATA || sections_len > MOST_SECTIONS {
            return Err(Error::corrupt(path, at.start as u64, "its sections are longer than any SST has"));
        }
        let bytes = read(&*file, path, at.start as u64, at.len())?;
        let body = sections.properties.checked(&bytes, at.start, &meta, path)?;
        if !format::decode_properties(body, &mut meta) {
            return Err(Error::corrupt(path, at.start as u64, "a property is missing or malformed"));
        }
        let checksum = Window::new(file, len).crc(0, 0..len).map_err(Error::io("read", path))?;
        meta.checksum = checksum.ok_or_else(|| Error::corrupt(path, 0, "the file became shorter"))?;
        Ok(Self::at(context, meta.into(), path.to_path_buf()))
    }

    /// Checks all sections, and returns their sizes and the properties of the filter.
    pub(crate) fn frame_sizes(&self) -> Result<Frame> {
        let open = self.opened()?;
        let bits = part(open.bytes(&open.filter_at), FILTER_HEADER..);
        let set: u64 = bits.iter().map(|byte| u64::from(byte.count_ones())).sum();
        Ok(Frame {
            blocks: open.fences.blocks(),
            block_bytes: open.blocks_end.saturating_sub(HEADER_LEN) as u64,
            index_bytes: open.index_section().len() as u64,
            fence_bytes: open.fence_section().len() as u64,
            filter_bytes: open.filter_at.len() as u64,
            bits_per_key: open.filter.bits_per_key(),
            probes: open.filter.probes(),
            filter_keys: open.filter.keys(),
            filter_fill: set as f64 / (8 * bits.len().max(1)) as f64,
            false_positives: f64::from(open.filter.expected()) / 1e9,
        })
    }
}

fn read(file: &dyn VfsFile, path: &Path, at: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let read = read_full_at(file, &mut bytes, at).map_err(Error::io("read", path))?;
    bytes.truncate(read);
    Ok(bytes)
}
