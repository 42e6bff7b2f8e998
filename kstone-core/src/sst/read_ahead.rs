//! Decides when a scan over a mapped SST has bytes ahead of it loaded.
//!
//! Mappings are advised for random access ([`crate::vfs::VfsFile::map`]), so the system loads only pages that are
//! accessed, and read-ahead has to be requested. A full scan requests it from its first block on; any other scan once
//! it reaches its third consecutive block, for twice as much each time, so that short queries read nothing in vain.
//! Blocks that were read before are likely still in memory, where the request, a system call, would be in vain: of those
//! it takes eight.

use std::ops::Range;

use crate::types::Direction;

/// What the consecutive blocks that a scan reads before it starts to read ahead add up to, where a block that nobody read
/// before counts as [`FIRST_READ`] and any other as 1.
const BEFORE: u32 = 8;
const FIRST_READ: u32 = 4;
const LEAST_AHEAD: usize = 16 << 10;
/// Maximum bytes that one scan over an SST has loaded ahead of it.
pub(crate) const MOST_AHEAD: usize = 256 << 10;
/// Maximum bytes for all scans that are merged into one.
const MOST_TOGETHER: usize = 32 << 20;

/// The maximum for each of `walks` scans that are merged into one. A scan of the whole database has several per stripe,
/// and what was loaded for one of them must not evict what was loaded for the others.
pub(crate) fn ahead_of_each(walks: usize) -> usize {
    (MOST_TOGETHER / walks.max(1)).clamp(LEAST_AHEAD, MOST_AHEAD)
}

/// The read-ahead state of one scan.
#[derive(Debug)]
pub(super) struct ReadAhead {
    direction: Direction,
    /// What is left of [`BEFORE`].
    wait: u32,
    /// Bytes of the next read-ahead.
    window: usize,
    /// Maximum value of `window`.
    most: usize,
    /// The end of the bytes requested so far; in reverse, their start.
    edge: Option<usize>,
}

impl ReadAhead {
    /// For a scan over everything or over a part, which may have `most` bytes loaded ahead of it.
    pub(super) fn new(direction: Direction, everything: bool, most: usize) -> Self {
        let (wait, window) = if everything { (0, most) } else { (BEFORE, LEAST_AHEAD.min(most)) };
        Self { direction, wait, window, most, edge: None }
    }

    /// Called when the scan reaches the block at `block`, which somebody may have `read` before; all blocks lie within
    /// `blocks`. Returns the bytes to load.
    pub(super) fn arrive(
        &mut self,
        block: &Range<usize>,
        read: bool,
        blocks: &Range<usize>,
    ) -> Option<Range<usize>> {
        if self.wait > 0 {
            self.wait = self.wait.saturating_sub(if read { 1 } else { FIRST_READ });
            return None;
        }
        let wanted = match self.direction {
            Direction::Forward => {
                let edge = self.edge.unwrap_or(block.start).max(block.start);
                if edge.saturating_sub(block.end) > self.window / 2 {
                    return None;
                }
                edge..edge.saturating_add(self.window).max(block.end).min(blocks.end)
            }
            Direction::Reverse => {
                let edge = self.edge.unwrap_or(block.end).min(block.end);
                if block.start.saturating_sub(edge) > self.window / 2 {
                    return None;
                }
                edge.saturating_sub(self.window).min(block.start).max(blocks.start)..edge
            }
        };
        if wanted.is_empty() {
            return None;
        }
        self.edge = Some(if self.direction == Direction::Forward { wanted.end } else { wanted.start });
        self.window = self.most.min(self.window * 2);
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 4_000;
    const BLOCKS: Range<usize> = 100..100 + 500 * BLOCK;

    fn walk(direction: Direction, everything: bool, count: usize) -> Vec<(usize, Range<usize>)> {
        walk_over(direction, everything, count, false)
    }

    /// Each block that led to a request, and the request. `read`: the blocks were read before.
    fn walk_over(
        direction: Direction,
        everything: bool,
        count: usize,
        read: bool,
    ) -> Vec<(usize, Range<usize>)> {
        let mut ahead = ReadAhead::new(direction, everything, MOST_AHEAD);
        let at = |n: usize| BLOCKS.start + n * BLOCK..BLOCKS.start + (n + 1) * BLOCK;
        let place = |n: usize| if direction == Direction::Forward { n } else { 499 - n };
        (0..count).filter_map(|n| Some((n, ahead.arrive(&at(place(n)), read, &BLOCKS)?))).collect()
    }

    #[test]
    fn short_queries_load_nothing_ahead() {
        for direction in [Direction::Forward, Direction::Reverse] {
            assert!(walk(direction, false, 2).is_empty());
            assert_eq!(walk(direction, false, 3).len(), 1);
            assert!(walk_over(direction, false, 8, true).is_empty());
            assert_eq!(walk_over(direction, false, 9, true).len(), 1);
        }
    }

    #[test]
    fn every_block_is_asked_for_once_and_before_it_is_reached() {
        for direction in [Direction::Forward, Direction::Reverse] {
            for everything in [true, false] {
                let asked = walk(direction, everything, 500);
                let first = if everything { 0 } else { 2 * BLOCK };
                let mut edge = first;
                for (n, range) in &asked {
                    assert!(*n * BLOCK <= edge, "block {n} was reached before {range:?}");
                    let from = if direction == Direction::Forward {
                        range.start - BLOCKS.start
                    } else {
                        BLOCKS.end - range.end
                    };
                    assert_eq!(from, edge, "{direction:?}");
                    edge += range.len();
                }
                assert_eq!(edge, 500 * BLOCK);
                let most = 500 * BLOCK / MOST_AHEAD + 5;
                assert!(asked.len() <= most, "{} calls", asked.len());
            }
        }
    }

    #[test]
    fn windows_double() {
        let asked = walk(Direction::Forward, false, 500);
        let lengths: Vec<usize> = asked.iter().map(|(_, range)| range.len()).collect();
        assert_eq!(lengths[..6], [16, 32, 64, 128, 256, 256].map(|kib| kib << 10));
        assert_eq!(walk(Direction::Forward, true, 500)[0], (0, BLOCKS.start..BLOCKS.start + MOST_AHEAD));
    }

    #[test]
    fn walks_that_are_merged_share() {
        assert_eq!([0, 1, 128].map(ahead_of_each), [MOST_AHEAD; 3]);
        assert_eq!([1_024, 10_000].map(ahead_of_each), [32 << 10, LEAST_AHEAD]);
        let mut ahead = ReadAhead::new(Direction::Forward, false, ahead_of_each(10_000));
        let asked: Vec<_> =
            (0..100).filter_map(|n| ahead.arrive(&(n * BLOCK..(n + 1) * BLOCK), false, &BLOCKS)).collect();
        assert!(asked.len() > 10 && asked.iter().all(|range| range.len() <= LEAST_AHEAD), "{asked:?}");
    }

    #[test]
    fn blocks_larger_than_a_window_are_loaded_whole() {
        let mut ahead = ReadAhead::new(Direction::Forward, true, MOST_AHEAD);
        assert_eq!(ahead.arrive(&(0..1 << 20), false, &(0..4 << 20)), Some(0..1 << 20));
        assert_eq!(ahead.arrive(&(1 << 20..2 << 20), false, &(0..4 << 20)), Some(1 << 20..2 << 20));
    }
}
