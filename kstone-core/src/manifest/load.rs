//! Reads a manifest one item at a time, through a window: apart from the state, memory is bounded by the longest item,
//! not by the file. Nothing in a frame is trusted before its checksum matches. Writes nothing.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::edit::{self, Change, FRAME_HEAD_LEN, ITEM_HEAD_LEN};
use super::{Ids, Loaded, ManifestState};
use crate::checksum::crc32c_seeded;
use crate::coding::{Reader, part};
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN, Id};
use crate::vfs::{OpenMode, Vfs, VfsFile, Window};

/// A longer file is refused: it would hold some 5 million SSTs.
pub(super) const MAX_LEN: u64 = 1 << 30;

/// A frame whose checksum matches.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) number: u64,
    at: u64,
    pub(super) end: u64,
}

/// The frames of a manifest.
pub(super) struct Frames<'a> {
    file: Arc<dyn VfsFile>,
    window: Window,
    path: &'a Path,
    pub(super) database_id: Id,
}

/// Identifies the contents of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64, u128);

/// Computes the fingerprint of the whole file as it is now.
pub(super) fn fingerprint(vfs: &dyn Vfs, path: &Path) -> Result<Fingerprint> {
    fingerprint_of(&mut open(vfs, path)?.1, path)
}

/// Loads the state and the fingerprint from the same open file.
pub(super) fn load_marked(vfs: &dyn Vfs, path: &Path) -> Result<(Fingerprint, Result<Loaded>)> {
    let (file, mut window) = open(vfs, path)?;
    let found = fingerprint_of(&mut window, path)?;
    Ok((found, Frames::over(file, window, path).and_then(|(frames, header)| state_of(frames, &header))))
}

fn fingerprint_of(window: &mut Window, path: &Path) -> Result<Fingerprint> {
    let (mut hash, mut at) = (Xxh3::new(), 0);
    loop {
        let bytes = window.from(at, 1).map_err(Error::io("read", path))?;
        if bytes.is_empty() {
            return Ok(Fingerprint(window.len(), hash.digest128()));
        }
        hash.update(bytes);
        at += bytes.len() as u64;
    }
}

fn open(vfs: &dyn Vfs, path: &Path) -> Result<(Arc<dyn VfsFile>, Window)> {
    let file = vfs.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let len = file.len().map_err(Error::io("read", path))?;
    if len > MAX_LEN {
        let detail = format!("{len} bytes, but a manifest has at most {MAX_LEN}");
        return Err(Error::corrupt(path, MAX_LEN, detail));
    }
    Ok((Arc::clone(&file), Window::new(file, len)))
}

impl<'a> Frames<'a> {
    /// Opens the file at `path`. Returns its frames and its header.
    pub(super) fn open(vfs: &dyn Vfs, path: &'a Path) -> Result<(Self, FileHeader)> {
        let (file, window) = open(vfs, path)?;
        Self::over(file, window, path)
    }

    fn over(file: Arc<dyn VfsFile>, mut window: Window, path: &'a Path) -> Result<(Self, FileHeader)> {
        let head = window.from(0, HEADER_LEN as u64).map_err(Error::io("read", path))?;
        // A shorter file has no complete header, which decoding reports.
        let header = FileHeader::decode(head.get(..HEADER_LEN).unwrap_or(head), FileKind::Manifest, path, 0)?;
        Ok((Self { file, window, path, database_id: header.database_id }, header))
    }

    fn get(&mut self, at: u64, len: usize) -> Result<Option<&[u8]>> {
        self.window.get(at, len as u64).map_err(Error::io("read", self.path))
    }

    /// Returns the frame at `at`; `None` unless it is complete and its checksum matches.
    pub(super) fn frame(&mut self, at: u64) -> Result<Option<Frame>> {
        let id = self.database_id;
        let Some((head, stored)) =
            self.get(at, FRAME_HEAD_LEN)?.and_then(|head| Some((FrameHead::peek(head)?, head)))
        else {
            return Ok(None);
        };
        let seed = crc32c_seeded(head.number, &[&id, part(stored, edit::CRC_LEN..)]);
        let Some(end) = head.end(at, self.window.len()) else { return Ok(None) };
        let crc = self.window.crc(seed, at + FRAME_HEAD_LEN as u64..end);
        let holds = crc.map_err(Error::io("read", self.path))? == Some(head.crc);
        Ok(holds.then_some(Frame { number: head.number, at, end }))
    }

    /// Passes the changes of a frame to `take`, in order. An error from `take` counts as damage to the frame.
    pub(super) fn changes(
        &mut self,
        frame: &Frame,
        mut take: impl FnMut(Change) -> Result<()>,
    ) -> Result<()> {
        let taken = self.items(frame, |path, kind, flags, at, body| match edit::decode_item(kind, body) {
            Ok(Some(change)) => take(change),
            Ok(None) => edit::check_optional(kind, flags, path),
            Err(why) => Err(Error::corrupt(path, at, format!("item of type {kind}: {why}"))),
        });
        // The frame may only look wrong for lack of an item that this version does not know; that is the error to
        // report then.
        if matches!(taken, Err(Error::Corruption { .. })) {
            self.items(frame, |path, kind, flags, _, _| match edit::is_known(kind) {
                true => Ok(()),
                false => edit::check_optional(kind, flags, path),
            })?;
        }
        taken
    }

    /// Calls `each` with path, type, flags, offset and body of each item.
    fn items(
        &mut self,
        frame: &Frame,
        mut each: impl FnMut(&Path, u16, u16, u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let (path, mut at) = (self.path, frame.at + FRAME_HEAD_LEN as u64);
        while at < frame.end {
            let cut_short = || Error::corrupt(path, at, "an item is longer than its edit");
            let head = self.get(at, ITEM_HEAD_LEN)?.and_then(edit::item_head);
            let (kind, flags, len) = head.ok_or_else(cut_short)?;
            let body = at + ITEM_HEAD_LEN as u64;
            let end = body + len as u64;
            if end > frame.end {
                return Err(cut_short());
            }
            edit::check_len(kind, len)
                .map_err(|why| Error::corrupt(path, at, format!("item of type {kind}: {why}")))?;
            each(path, kind, flags, at, self.get(body, len)?.ok_or_else(cut_short)?)?;
            at = end;
        }
        Ok(())
    }

    /// Applies a frame to a state; without a state, it must be the first frame. After an error the state may be partly
    /// changed.
    pub(super) fn apply(&mut self, frame: &Frame, state: &mut Option<ManifestState>) -> Result<()> {
        let path = self.path;
        let bad = |why: String| Error::corrupt(path, frame.at, why);
        self.changes(frame, |change| match (state.as_mut(), change) {
            (Some(state), change) => state.apply_one(change).map_err(bad),
            (None, Change::Facts(facts)) => {
                facts.check_supported(path)?;
                *state = Some(ManifestState::of(facts));
                Ok(())
            }
            (None, _) => Err(bad(NO_FACTS.into())),
        })?;
        let state = state.as_mut().ok_or_else(|| bad(NO_FACTS.into()))?;
        state.edit = frame.number;
        Ok(())
    }

    /// Whether the bytes from `at`, which do not start with edit `number`, contain neither that edit nor a later one.
    fn is_torn_tail(&mut self, at: u64, number: u64) -> Result<bool> {
        let len = self.window.len();
        let rest = len.saturating_sub(at);
        // A torn write leaves hardly any bytes that pass for the head of a later edit. Bytes forged to look like many
        // of them would take quadratic time to check, and are not a torn write either.
        let mut budget = rest.saturating_mul(2).saturating_add(1 << 20);
        let last = number.saturating_add(rest / FRAME_HEAD_LEN as u64);
        let mut scan = Window::new(Arc::clone(&self.file), len);
        let mut from = at + 1;
        loop {
            let bytes = scan.from(from, FRAME_HEAD_LEN as u64).map_err(Error::io("read", self.path))?;
            let heads = bytes.windows(FRAME_HEAD_LEN);
            let passed = heads.len() as u64;
            if passed == 0 {
                return Ok(true);
            }
            for (place, head) in (from..).zip(heads) {
                let Some(head) = FrameHead::peek(head).filter(|head| (number..=last).contains(&head.number))
                else {
                    continue;
                };
                let Some(end) = head.end(place, len) else { continue };
                let Some(left) = budget.checked_sub(end - place) else { return Ok(false) };
                budget = left;
                if self.frame(place)?.is_some() {
                    return Ok(false);
                }
            }
            from += passed;
        }
    }
}

const NO_FACTS: &str = "the first edit does not start with the database's facts";

/// A frame's head, unverified.
struct FrameHead {
    crc: u32,
    body_len: u32,
    number: u64,
}

impl FrameHead {
    #[inline]
    fn peek(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self { crc: reader.u32()?, body_len: reader.u32()?, number: reader.u64()? })
    }

    /// The end of a frame at `at`, if it is within `len`.
    fn end(&self, at: u64, len: u64) -> Option<u64> {
        at.checked_add(FRAME_HEAD_LEN as u64 + u64::from(self.body_len)).filter(|&end| end <= len)
    }
}

fn ids(header: &FileHeader) -> Ids {
    let &FileHeader { database_id, incarnation, created_ms, .. } = header;
    Ids { database_id, incarnation, created_ms }
}

/// Loads a manifest. A truncated last edit is left out; any other damage is `Corruption`.
pub(super) fn load(vfs: &dyn Vfs, path: &Path) -> Result<Loaded> {
    let (frames, header) = Frames::open(vfs, path)?;
    state_of(frames, &header)
}

fn state_of(mut frames: Frames<'_>, header: &FileHeader) -> Result<Loaded> {
    let path = frames.path;
    let mut number = first_edit(header);
    let (mut state, mut at) = (None, HEADER_LEN as u64);
    while let Some(frame) = frames.frame(at)? {
        let bad = |why: String| Error::corrupt(path, at, why);
        if frame.number != number {
            return Err(bad(format!("edit {} in the place of edit {number}", frame.number)));
        }
        frames.apply(&frame, &mut state)?;
        number = number.checked_add(1).ok_or_else(|| bad("edit numbers are exhausted".into()))?;
        at = frame.end;
    }
    let bad = |why: String| Error::corrupt(path, at, why);
    let state = state.ok_or_else(|| bad("the first edit is damaged".into()))?;
    if !frames.is_torn_tail(at, number)? {
        return Err(bad(format!("edit {number} is damaged, but it is not the last one")));
    }
    state.check_supported(path)?;
    state.check().map_err(bad)?;
    Ok(Loaded { ids: ids(header), state, len: at, torn: at < frames.window.len() })
}

/// Passes the changes to `each` until it breaks. See [`super::each_edit`].
pub(super) fn each_edit(
    vfs: &dyn Vfs,
    path: &Path,
    each: &mut dyn FnMut(u64, u64, Change) -> ControlFlow<()>,
) -> Result<(u64, bool)> {
    let (mut frames, header) = Frames::open(vfs, path)?;
    let mut number = first_edit(&header);
    let (mut at, mut flow) = (HEADER_LEN as u64, ControlFlow::Continue(()));
    while let Some(frame) = frames.frame(at)? {
        if frame.number != number {
            let detail = format!("edit {} in the place of edit {number}", frame.number);
            return Err(Error::corrupt(path, at, detail));
        }
        frames.changes(&frame, |change| {
            if flow.is_continue() {
                flow = each(number, at, change);
            }
            Ok(())
        })?;
        (number, at) = (number.saturating_add(1), frame.end);
        if flow.is_break() {
            return Ok((at, false));
        }
    }
    if at == HEADER_LEN as u64 {
        return Err(Error::corrupt(path, at, "the first edit is damaged"));
    }
    if !frames.is_torn_tail(at, number)? {
        return Err(Error::corrupt(
            path,
            at,
            format!("edit {number} is damaged, but it is not the last one"),
        ));
    }
    Ok((at, at < frames.window.len()))
}

/// The number of the first edit.
fn first_edit(header: &FileHeader) -> u64 {
    header.extra.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// Recovers the last state that can be read from a damaged manifest, which may be old; `None` if there is none. Fails
/// only on a read error or a newer format.
pub(super) fn load_what_passes(vfs: &dyn Vfs, path: &Path) -> Result<(Option<Ids>, Option<ManifestState>)> {
    let (mut frames, header) = match Frames::open(vfs, path) {
        Ok(opened) => opened,
        Err(error @ Error::UnsupportedFormat { .. }) => return Err(error),
        // Missing, not a regular file, or damaged.
        Err(Error::Corruption { .. } | Error::Io { op: "open", .. }) => return Ok((None, None)),
        Err(error) => return Err(error),
    };
    let mut most = frames.fold(u64::MAX)?.0;
    loop {
        let state = frames.fold(most)?.1;
        // Each edit was checked before it was written, so the first attempt passes unless the file is forged.
        if most == 0 || state.as_ref().is_some_and(|state| state.check().is_ok()) {
            state.iter().try_for_each(|state| state.check_supported(path))?;
            return Ok((Some(ids(&header)), state));
        }
        most /= 2;
    }
}

impl Frames<'_> {
    /// Returns the number of frames applied, at most `most`, and the state after them; no state if a frame could not be
    /// applied.
    fn fold(&mut self, most: u64) -> Result<(u64, Option<ManifestState>)> {
        let (mut state, mut at, mut applied) = (None, HEADER_LEN as u64, 0);
        while applied < most
            && let Some(frame) = self.frame(at)?
        {
            match self.apply(&frame, &mut state) {
                Ok(()) => {}
                Err(Error::Corruption { .. }) => return Ok((applied, None)),
                Err(error) => return Err(error),
            }
            (applied, at) = (applied + 1, frame.end);
        }
        Ok((applied, state))
    }
}
