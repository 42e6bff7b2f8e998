//! Key filters: a Bloom filter over the distinct keys of one file, built from a single 64-bit hash per key.
//!
//! ```text
//!  0  1  algorithm: 1 cache-line blocked, 2 standard Bloom
//!  1  1  key hash: 1 XXH3-64 (seeded, of the encoded key)
//!  2  1  probes
//!  3  1  zero
//!  4  4  bits per key, in 1/256
//!  8  8  keys
//! 16 48  zero; the bits start on a cache line if the section does
//! 64     bits: whole lines of 64 bytes (1), or whole words of 8 bytes (2)
//! ```
//!
//! The hash is mixed into two 64-bit numbers, `a` and `b`. Standard: probe i is `a` scaled to the number of bits; after
//! each probe, `a += b` and `b += STEP`. Blocked: `a` scaled to the number of lines selects the line, the top 9 bits of
//! `b` the bit in it; after each probe, `b += rotated a` and `rotated a += STEP`. The mixing multiplications spread the
//! whole hash over their top bits, which makes those independent of the hash's own top and bottom bits, which the hash
//! index uses.

use crate::coding::{Reader, part};
use crate::prefetch::prefetch;

/// Number of `key::key_hash` in files.
pub(crate) const KEY_HASH_ID: u8 = 1;

const BLOCKED: u8 = 1;
const STANDARD: u8 = 2;
/// Up to this many bits per key, confining a lookup to one cache line costs little accuracy; from 11 bits on, the loss
/// matters.
const MAX_BLOCKED_BITS: u32 = 10;
const HEADER_LEN: usize = 64;
const LINE_BYTES: usize = 64;
const MAX_PROBES: u32 = 30;
/// A line has far fewer keys than this, except in a forged filter.
const MAX_LINE_KEYS: f64 = 4_096.0;

const MIX_A: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX_B: u64 = 0xbf58_476d_1ce4_e5b9;
const STEP: u64 = 0x94d0_49bb_1331_11eb;

/// The parameters of a filter; its bits remain in the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    blocked: bool,
    probes: u8,
    keys: u64,
    /// Number of lines if blocked, else of bits.
    units: u64,
    /// Expected false positive rate, in billionths.
    expected: u32,
}

/// Builds the filter section for the keys with these hashes.
pub(crate) fn build(hashes: &[u64], bits_per_key: u32) -> Vec<u8> {
    let blocked = bits_per_key <= MAX_BLOCKED_BITS;
    let bits = (hashes.len() as u64).saturating_mul(u64::from(bits_per_key)).max(1);
    let unit_bytes = if blocked { LINE_BYTES } else { 8 };
    let bytes = (bits.div_ceil(8 * unit_bytes as u64) as usize).saturating_mul(unit_bytes);
    let probes = if blocked { blocked_probes(bits_per_key) } else { standard_probes(bits_per_key) };

    let mut section = Vec::with_capacity(HEADER_LEN + bytes);
    section.extend_from_slice(&[if blocked { BLOCKED } else { STANDARD }, KEY_HASH_ID, probes, 0]);
    section.extend_from_slice(&bits_per_key.saturating_mul(256).to_le_bytes());
    section.extend_from_slice(&(hashes.len() as u64).to_le_bytes());
    section.resize(HEADER_LEN + bytes, 0);
    let units = if blocked { bytes / LINE_BYTES } else { bytes * 8 } as u64;
    let filter = Filter { blocked, probes, keys: hashes.len() as u64, units, expected: 0 };
    let target = section.get_mut(HEADER_LEN..).unwrap_or_default();
    for &hash in hashes {
        filter.probe(hash, |bit| {
            if let Some(byte) = target.get_mut((bit >> 3) as usize) {
                *byte |= 1 << (bit & 7);
            }
            true
        });
    }
    section
}

/// The best number of probes in a line of 512 bits: fewer than for the standard filter, because lines fill unevenly.
fn blocked_probes(bits_per_key: u32) -> u8 {
    match bits_per_key {
        0..=2 => 1,
        3 => 2,
        4..=5 => 3,
        6 => 4,
        7..=8 => 5,
        _ => 6,
    }
}

/// Bits per key times ln 2, rounded.
fn standard_probes(bits_per_key: u32) -> u8 {
    ((bits_per_key * 693 + 500) / 1000).clamp(1, MAX_PROBES) as u8
}

/// The expected false positive rate of a filter with this many bits per key, as a fraction of lookups for absent keys.
pub(crate) fn expected_false_positives(bits_per_key: u32) -> f64 {
    /// Enough keys that rounding to whole lines does not matter.
    const KEYS: u64 = 1 << 20;
    let bits = KEYS * u64::from(bits_per_key.max(1));
    if bits_per_key > MAX_BLOCKED_BITS {
        return expected_rate(false, standard_probes(bits_per_key), KEYS, bits);
    }
    expected_rate(true, blocked_probes(bits_per_key), KEYS, bits / (8 * LINE_BYTES as u64))
}

/// Scales `value` from the range 0..2^64 to 0..`of`. Serves as a modulo without a division.
fn scale(value: u64, of: u64) -> u64 {
    ((u128::from(value) * u128::from(of)) >> 64) as u64
}

/// The probability that an absent key passes the filter.
///
/// Standard (Bloom 1970): (1 - e^(-k/b))^k for b bits per key and k probes. Blocked (Putze, Sanders, Singler, "Cache-,
/// Hash- and Space-Efficient Bloom Filters", 2007): the mean of that over all lines, which have different numbers of
/// keys.
fn expected_rate(blocked: bool, probes: u8, keys: u64, units: u64) -> f64 {
    let (probes, keys) = (i32::from(probes), keys as f64);
    let passes = |set: f64| (1.0 - set).powi(probes);
    if !blocked {
        return passes((-f64::from(probes) * keys / units as f64).exp());
    }
    // The number of keys in a line is binomially distributed: sum the pass rates for 0, 1, 2, ... keys, weighted by the
    // probability of each number.
    let lines = units as f64;
    let bits = (8 * LINE_BYTES) as f64;
    let spared = (1.0 - 1.0 / bits).powi(probes);
    if units < 2 {
        return passes(spared.powf(keys));
    }
    let mean = keys / lines;
    let last = keys.min(mean + 12.0 * mean.sqrt() + 12.0);
    let (mut rate, mut zeros) = (0.0, 1.0);
    let mut likely = (keys * (-1.0 / lines).ln_1p()).exp();
    let mut count = 0.0;
    while count <= last && count < MAX_LINE_KEYS {
        rate += likely * passes(zeros);
        likely *= (keys - count) / (count + 1.0) / (lines - 1.0);
        zeros *= spared;
        count += 1.0;
    }
    rate
}

impl Filter {
    /// Parses the header of a section whose checksum was verified. `None` if this version does not support the
    /// parameters, or if the section's length does not match them.
    pub(crate) fn parse(section: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(section);
        let (algorithm, hash_id, probes) = (reader.u8()?, reader.u8()?, reader.u8()?);
        let (_zero, _bits_per_key, keys) = (reader.u8()?, reader.u32()?, reader.u64()?);
        let bytes = section.get(HEADER_LEN..)?.len();
        let (blocked, unit_bytes) = match algorithm {
            BLOCKED => (true, LINE_BYTES),
            STANDARD => (false, 8),
            _ => return None,
        };
        if hash_id != KEY_HASH_ID || !(1..=MAX_PROBES).contains(&u32::from(probes)) {
            return None;
        }
        if bytes == 0 || !bytes.is_multiple_of(unit_bytes) {
            return None;
        }
        let units = if blocked { (bytes / LINE_BYTES) as u64 } else { (bytes as u64).checked_mul(8)? };
        let rate = expected_rate(blocked, probes, keys, units);
        Some(Self { blocked, probes, keys, units, expected: (rate * 1e9) as u32 })
    }

    /// Returns the expected false positive rate, in billionths.
    pub(crate) fn expected(&self) -> u32 {
        self.expected
    }

    /// Returns the number of distinct keys that the filter was built from.
    pub(crate) fn keys(&self) -> u64 {
        self.keys
    }

    /// Returns the number of bits that each key sets.
    pub(crate) fn probes(&self) -> u8 {
        self.probes
    }

    /// Prefetches the line that [`Filter::may_contain`] reads first.
    #[inline]
    pub(crate) fn prefetch(&self, section: &[u8], hash: u64) {
        self.probe(hash, |bit| {
            prefetch(section, HEADER_LEN + (bit >> 3) as usize);
            false
        });
    }

    /// Returns the bits per key, including the rounding up to whole lines.
    pub(crate) fn bits_per_key(&self) -> f64 {
        let unit = if self.blocked { 8 * LINE_BYTES as u64 } else { 1 };
        self.units as f64 * unit as f64 / self.keys.max(1) as f64
    }

    /// Returns whether the key with this hash may be in the file; never false for a key that is.
    pub(crate) fn may_contain(&self, section: &[u8], hash: u64) -> bool {
        let bits = part(section, HEADER_LEN..);
        // A bit beyond the section counts as set: that costs a read, whereas a negative result would lose a key.
        self.probe(hash, |bit| bits.get((bit >> 3) as usize).is_none_or(|byte| byte >> (bit & 7) & 1 == 1))
    }

    /// Calls `visit` with each bit position of this hash until it returns false. Returns whether it never did.
    #[inline]
    fn probe(&self, hash: u64, mut visit: impl FnMut(u64) -> bool) -> bool {
        let mut a = hash.wrapping_mul(MIX_A);
        let mut b = hash.rotate_left(32).wrapping_mul(MIX_B);
        if self.blocked {
            let line = scale(a, self.units) * (8 * LINE_BYTES as u64);
            let mut step = a.rotate_left(32);
            (0..self.probes).all(|_| {
                let bit = line + (b >> 55);
                b = b.wrapping_add(step);
                step = step.wrapping_add(STEP);
                visit(bit)
            })
        } else {
            (0..self.probes).all(|_| {
                let bit = scale(a, self.units);
                a = a.wrapping_add(b);
                b = b.wrapping_add(STEP);
                visit(bit)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::key_hash;
    use proptest::prelude::*;

    fn hashes(from: u64, count: u64) -> Vec<u64> {
        (from..from + count).map(|n| key_hash(format!("user#{n:012}\0\0").as_bytes())).collect()
    }

    /// Measured and predicted false positives, in per cent, of `probes` absent keys.
    fn false_positives(bits_per_key: u32, keys: u64, probes: u64) -> (f64, f64) {
        let section = build(&hashes(0, keys), bits_per_key);
        let filter = Filter::parse(&section).unwrap();
        let absent = (0..probes).map(|n| key_hash(&(n + (1 << 40)).to_le_bytes()));
        let hits = absent.filter(|&hash| filter.may_contain(&section, hash)).count();
        (100.0 * hits as f64 / probes as f64, f64::from(filter.expected()) / 1e7)
    }

    /// Bits per key, and the false positive rate in per cent that the documentation of the setting promises.
    const PROMISED: [(u32, f64); 6] = [(6, 6.0), (8, 2.0), (10, 1.0), (12, 0.4), (16, 0.05), (20, 0.008)];

    fn check_promises(promised: &[(u32, f64)], probes: u64) {
        for &(bits, percent) in promised {
            for keys in [1_000, 100_000] {
                let (got, predicted) = false_positives(bits, keys, probes);
                println!(
                    "{bits} bits, {keys} keys: {got:.4} %, predicted {predicted:.4}, promised {percent}"
                );
                assert!(got <= percent * 1.2, "{bits} bits, {keys} keys: {got} %");
                // Within a tenth of the prediction plus three standard errors of the measurement. A single small filter
                // is itself a sample: its own rate deviates by another tenth.
                let error = 3.0 * (predicted / 100.0 / probes as f64).sqrt() * 100.0;
                let tolerance = predicted * if keys == 1_000 { 0.2 } else { 0.1 } + error;
                assert!(
                    (got - predicted).abs() <= tolerance,
                    "{bits} bits, {keys} keys: {got} %, {predicted}"
                );
            }
        }
    }

    #[test]
    fn false_positives_are_as_promised() {
        check_promises(&PROMISED, 1_000_000);
    }

    #[test]
    #[ignore = "40 million probes: for an optimised build"]
    fn false_positives_are_as_promised_where_they_are_rare() {
        check_promises(&[(16, 0.05), (20, 0.008)], 10_000_000);
    }

    #[test]
    fn a_million_keys_take_the_memory_that_is_promised() {
        for (bits, megabytes) in [(6, 0.75), (8, 1.0), (10, 1.25), (12, 1.5), (16, 2.0), (20, 2.5)] {
            let hashes: Vec<u64> = (0..1_000_000u64).map(|n| n.wrapping_mul(MIX_A)).collect();
            let bytes = build(&hashes, bits).len() as f64;
            println!("{bits} bits: {bytes} bytes for a million keys");
            assert!((bytes / 1e6 / megabytes - 1.0).abs() < 0.1, "{bits} bits: {bytes} bytes");
        }
    }

    #[test]
    fn predictions_of_forged_filters_are_rates() {
        for blocked in [false, true] {
            for keys in [0, 1, 5, 1 << 20, u64::MAX] {
                for units in [1, 2, 3, 1 << 20, u64::MAX] {
                    for probes in [1, 6, 30] {
                        let rate = expected_rate(blocked, probes, keys, units);
                        assert!(
                            (0.0..=1.000_001).contains(&rate),
                            "{blocked} {keys} {units} {probes}: {rate}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn no_false_negatives_whatever_the_size() {
        for bits in [1, 2, 3, 6, 10, 11, 12, 20, 64] {
            for keys in [1, 2, 7, 100, 1_000] {
                let all = hashes(0, keys);
                let section = build(&all, bits);
                let filter = Filter::parse(&section).unwrap();
                assert_eq!(filter.keys(), keys);
                assert!(all.iter().all(|&h| filter.may_contain(&section, h)), "{bits} bits, {keys} keys");
            }
        }
    }

    #[test]
    fn size_is_what_was_asked_for() {
        for bits in [6, 10, 12, 20] {
            let bytes = build(&hashes(0, 1_000), bits).len() - HEADER_LEN;
            assert!((bytes * 8) as u32 - 1_000 * bits < 512, "{bits} bits: {bytes} bytes");
        }
    }

    #[test]
    fn filter_and_index_bits_are_independent() {
        // Keys that share the top 8 bits, or the bottom 8, must not look alike to the filter.
        for shift in [0, 56] {
            let alike = |h: &u64| (h >> shift) & 0xff == 7;
            let all: Vec<_> = hashes(0, 200_000).into_iter().filter(alike).collect();
            let section = build(&all, 10);
            let filter = Filter::parse(&section).unwrap();
            let others: Vec<_> = hashes(1 << 40, 2_000_000).into_iter().filter(alike).collect();
            let hits = others.iter().filter(|&&h| filter.may_contain(&section, h)).count();
            let percent = 100.0 * hits as f64 / others.len() as f64;
            assert!(percent < 1.4, "{percent} % of {} keys", others.len());
        }
    }

    #[test]
    fn unknown_parameters_and_wrong_lengths_are_refused() {
        let good = build(&hashes(0, 100), 10);
        for len in 0..good.len() {
            if let Some(filter) = Filter::parse(&good[..len]) {
                assert!(len > HEADER_LEN && (len - HEADER_LEN).is_multiple_of(LINE_BYTES), "length {len}");
                filter.may_contain(&good[..len], 1);
            }
        }
        for (at, value) in [(0, 0), (0, 3), (1, 2), (2, 0), (2, 255)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Filter::parse(&bad), None, "byte {at} = {value}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), hash in any::<u64>()) {
            if let Some(filter) = Filter::parse(&bytes) {
                filter.may_contain(&bytes, hash);
            }
        }
    }
}
