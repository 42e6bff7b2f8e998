//! Damage: what disks, tools and people do to files. An edit corrects a wrong checksum only by a chance of one in 2^32:
//! it changes a single byte by a chosen value, or a longer piece without choosing the result.

use super::Input;
use super::files::Files;

/// Maximum number of edits per input.
const MAX_EDITS: usize = 4;

/// What was done to the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// Number of edits that changed anything.
    pub(super) edits: usize,
    /// The bit flip, if it is the only change: file, and byte within it.
    pub(super) flip: Option<(usize, usize)>,
    /// Whether both the manifest and the log were changed, each of which vouches for the newest part of the other.
    pub(super) unvouched: bool,
}

/// Applies the edits described by the input. `older` holds earlier versions of the files.
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

/// Returns the position of a bit flip.
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
        // The same place in another file: a misdirected write.
        7 if len > 0 => {
            let piece = lent.get(at..end.min(lent.len())).unwrap_or_default();
            bytes[at..at + piece.len()].copy_from_slice(piece);
        }
        // Another place in the same file.
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
        // A copy: over another file, or under an unused name.
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

/// The name with a different number.
fn another_name(name: &str) -> String {
    match name.char_indices().rev().find(|(_, c)| c.is_ascii_digit()) {
        Some((at, digit)) => {
            let next = if digit == '9' { '0' } else { char::from(digit as u8 + 1) };
            format!("{}{next}{}", &name[..at], &name[at + 1..])
        }
        None => format!("{name}.copy"),
    }
}
