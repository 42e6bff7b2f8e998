//! Entry points for fuzzers: a function for each decoder, which takes any bytes and panics when a promise is broken.
//! Not part of the library: behind the feature `fuzzing`, which only `kstone-core/fuzz` and the tests that replay its corpus
//! switch on.
//!
//! The first byte of an input chooses what is done with the rest:
//!
//! * *Damage.* A few edits are applied to files that were really written and whose content is known. What is read must
//!   then be an error or what was written, never anything else. Edits cannot forge a checksum (`edits`).
//! * *Sealed.* The rest is the file, and all checksums in it are made right first: what is behind them is reached by
//!   any change. There is no truth to compare with, so this looks for panics, for time and memory out of proportion,
//!   and for answers that contradict each other.
//! * *Raw.* The rest is the file as it is.
//! * *Built.* The rest is what to write: it must be found again.

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
pub use key::{key, key_seeds};
pub use log::{log, log_seeds};
pub use manifest::{manifest, manifest_seeds};
pub use mutate::{Mutator, replay};
pub use ops::{ops, ops_seeds};
pub use sst::{sst, sst_seeds};

use crate::error::Error;

/// Takes numbers and bytes from the front of an input; past its end all is zero.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// From the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
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

    /// This many bytes, or what is left.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        head
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// Whether an error is one that bytes from elsewhere may cause: it names what is wrong with them.
fn is_about_bytes(error: &Error) -> bool {
    matches!(error, Error::Corruption { .. } | Error::UnsupportedFormat { .. })
}

/// What bytes that are no longer what was written must be called.
fn expect_corruption(error: &Error) {
    assert!(matches!(error, Error::Corruption { .. }), "damage is reported as {error:?}");
}
