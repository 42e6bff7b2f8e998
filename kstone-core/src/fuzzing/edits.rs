//! Damage: what disks, tools and people do to files. None of it can make a wrong checksum right but by a chance of one
//! in 2^32: an edit changes a single byte by a chosen value, or a longer piece without choosing what it becomes.

use super::Input;
use super::files::Files;

/// Edits of an input, at most.
const MAX_EDITS: usize = 4;

/// What was done to the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// How many edits changed anything.
    pub(super) edits: usize,
    /// The one bit that was flipped, when that is all: file, and byte in it.
    pub(super) flip: Option<(usize, usize)>,
    /// Whether both the manifest and the log, which vouch for each other's newest part, were changed.
    pub(super) unvouched: bool,
}

/// Applies the edits that the input describes. `older` holds earlier content of files with the same name.
pub(super) fn apply(files: &mut Files, older: &Files, input: &mut Input<'_>) -> Done {
    let mut done = Done::default();
    for _ in 0..MAX_EDITS {
        if input.is_empty() || files.is_empty() {
            break;
        }
        let before = files.clone();
        let flip = apply_one(files, older, input);
        if *files != before {
            done.edits += 1;
            done.flip = flip.filter(|_| done.edits == 1);
        }
    }
    done
}

/// A bit flip says where it was.
fn apply_one(files: &mut Files, older: &Files, input: &mut Input<'_>) -> Option<(usize, usize)> {
    let (op, file) = (input.byte() % 14, input.below(files.len()));
    let (place, argument) = (usize::from(input.short()), usize::from(input.byte()));
    let other = argument % files.len();
    let lent = files[other].1.clone();
    let (name, bytes) = &mut files[file];
    let len = bytes.len();
    let at = place % len.max(1);
    let end = (at + 1 + argument).min(len);
    match op {
        0..=2 if len > 0 => {
            bytes[at] ^= 1 << (argument % 8);
            return Some((file, at));
        }
        3 if len > 0 => bytes[at] ^= argument as u8,
        4 => bytes.truncate(at),
        5 if len > 0 => bytes[at..end].fill(0),
        6 if len > 0 => bytes[at..end].fill(0xa5),
        // The same place of another file: a write that went astray.
        7 if len > 0 => {
            let piece = lent.get(at..end.min(lent.len())).unwrap_or_default();
            bytes[at..at + piece.len()].copy_from_slice(piece);
        }
        // Another place of the same file.
        8 if len > 0 => {
            let from = (argument * 64) % len;
            let piece = bytes[from..(from + 64).min(len)].to_vec();
            let piece = &piece[..piece.len().min(len - at)];
            bytes[at..at + piece.len()].copy_from_slice(piece);
        }
        9 => bytes.resize(len + 16 * argument, 0),
        10 => drop(files.remove(file)),
        11 => {
            let here = std::mem::replace(bytes, lent);
            files[other].1 = here;
        }
        // A copy: over another file, or under a name that nobody has.
        12 if argument % 2 == 0 => *bytes = lent,
        12 => {
            let name = another_name(name);
            if files.iter().all(|(taken, _)| *taken != name) {
                files.push((name, lent));
            }
        }
        13 => {
            if let Some((_, earlier)) = older.iter().find(|(earlier, _)| earlier == name) {
                bytes.clone_from(earlier);
            }
        }
        _ => {}
    }
    None
}

/// The name with another number.
fn another_name(name: &str) -> String {
    match name.char_indices().rev().find(|(_, c)| c.is_ascii_digit()) {
        Some((at, digit)) => {
            let next = if digit == '9' { '0' } else { char::from(digit as u8 + 1) };
            format!("{}{next}{}", &name[..at], &name[at + 1..])
        }
        None => format!("{name}.copy"),
    }
}
