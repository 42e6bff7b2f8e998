//! Inputs without a fuzzer: seeded mutations of a corpus, for tests that run everywhere.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Mutates inputs slightly, in the same way for the same seed.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
}

/// Boundary values.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, i64::MAX as u64, u64::MAX];
/// Maximum length of an input.
const MAX_LEN: usize = 16 << 10;

impl Mutator {
    /// A mutator whose choices follow from the seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % (end as u64).max(1)) as usize
    }

    /// Makes one to four changes to `input`; some of them take bytes from `other`.
    pub fn mutate(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..1 + self.below(4) {
            self.change(input, other);
        }
        input.truncate(MAX_LEN);
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let len = input.len();
        let at = self.below(len);
        match self.below(10) {
            0 | 1 if len > 0 => input[at] ^= 1 << self.below(8),
            2 if len > 0 => input[at] = self.next() as u8,
            3 if len > 0 => {
                let change = self.below(16) as u8;
                input[at] = input[at].wrapping_add(change).wrapping_sub(8);
            }
            4 => {
                let (edge, width) = (EDGES[self.below(EDGES.len())].to_le_bytes(), 1 << self.below(4));
                input.iter_mut().skip(at).zip(&edge[..width]).for_each(|(to, from)| *to = *from);
            }
            5 => {
                let bytes: Vec<u8> = (0..1 + self.below(8)).map(|_| self.next() as u8).collect();
                drop(input.splice(at..at, bytes));
            }
            6 if len > 0 => drop(input.drain(at..(at + 1 + self.below(16)).min(len))),
            7 if len > 0 => {
                let from = self.below(len);
                let bytes = input[from..(from + 1 + self.below(64)).min(len)].to_vec();
                drop(input.splice(at..at, bytes));
            }
            8 if !other.is_empty() => {
                let from = self.below(other.len());
                let bytes = &other[from..(from + 1 + self.below(64)).min(other.len())];
                drop(input.splice(at..(at + bytes.len()).min(len), bytes.iter().copied()));
            }
            _ => input.truncate(len - self.below(len.min(64))),
        }
    }
}

/// Runs a target with every input and then with `mutations` mutations of these; returns the number of runs. An input
/// that makes it panic is written to `failures`, and named in the message.
pub fn replay(inputs: &[Vec<u8>], mutations: usize, failures: &Path, target: fn(&[u8])) -> usize {
    let mut runs = 0;
    for (n, input) in inputs.iter().enumerate() {
        run(input, &format!("input-{n}"), failures, target);
        runs += 1;
    }
    let mut mutator = Mutator::new(mutations as u64);
    for n in 0..mutations {
        let mut input = inputs[mutator.below(inputs.len())].clone();
        let other = mutator.below(inputs.len());
        mutator.mutate(&mut input, &inputs[other]);
        run(&input, &format!("mutation-{n}"), failures, target);
        runs += 1;
    }
    runs
}

fn run(input: &[u8], name: &str, failures: &Path, target: fn(&[u8])) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_ok() {
        return;
    }
    let file = failures.join(name);
    let written = std::fs::create_dir_all(failures).and_then(|()| std::fs::write(&file, input));
    panic!("{name} of {} bytes fails, see above; saved in {} ({written:?})", input.len(), file.display());
}
