//! Entry points for fuzzers: one function per decoder, which takes arbitrary bytes and panics if a promise is violated.
//! Not part of the library: behind the feature `fuzzing`, which only `kstone-core/fuzz` and the tests that replay its
//! corpus enable.
//!
//! The first byte of an input selects the use of the rest:
//!
//! * *Damage.* A few edits are applied to genuine files with known content. Reading them must then return an error or
//!   the original content, never anything else. Edits cannot forge a checksum (`edits`).
//! * *Sealed.* The rest is the file, and all checksums in it are corrected first, so that any mutation reaches the code
//!   behind them. There is no truth to compare with, so this looks for panics, for disproportionate time and memory,
//!   and for contradictory answers.
//! * *Raw.* The rest is the file, unchanged.
//! * *Built.* The rest describes the content to write, which must then be found again.

mod agree;
mod directory;
mod edits;
mod files;
mod forged;
mod key;
mod log;
mod manifest;
mod mutate;
mod ops;
mod seal;
mod sst;

pub use agree::Agreed;
pub use directory::{directory, directory_seeds};
pub use forged::forged;
pub use key::{key, key_seeds, key_text};
pub use log::{log, log_seeds};
pub use manifest::{manifest, manifest_seeds};
pub use mutate::{Mutator, replay};
pub use ops::{ops, ops_seeds};
pub use sst::{sst, sst_seeds};

use crate::error::Error;

/// Reads numbers and bytes from the front of an input; past its end everything is zero.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// An input, from its first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether the input is used up.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// The next two bytes as a number.
    pub fn short(&mut self) -> u16 {
        u16::from(self.byte()) | u16::from(self.byte()) << 8
    }

    /// A number below `end`, from one byte.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    /// The next `len` bytes, or the rest if it is shorter.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        head
    }

    /// The rest of the input.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// Whether an error may be caused by foreign bytes: it states what is wrong with them.
fn is_about_bytes(error: &Error) -> bool {
    matches!(error, Error::Corruption { .. } | Error::UnsupportedFormat { .. })
}

/// Asserts that bytes which differ from those written are reported as corruption.
fn expect_corruption(error: &Error) {
    assert!(matches!(error, Error::Corruption { .. }), "damage is reported as {error:?}");
}
