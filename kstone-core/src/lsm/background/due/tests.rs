//! A table of situations and the slots due in each, in order.

use super::Slot::{
    Checkpoint, Compact, Explore, Flush, LogSync, Open, ReleaseMemory, Removal, Seal, Segment, Stats,
    Watermark,
};
use super::*;

/// All inputs of the decision. Nothing is due in the situation that [`Situation::new`] creates.
#[derive(Default)]
struct Situation {
    may_write: bool,
    opened: bool,
    manual: bool,
    /// In seconds.
    now: u64,
    sync_interval: u64,
    last_sync: u64,
    checkpoint_interval: u64,
    last_checkpoint: u64,
    stats_interval: Option<u64>,
    last_stats: u64,
    removal: Option<u64>,
    wants_segment: bool,
    log_half_full: bool,
    seal_wanted: bool,
    sealed_last: bool,
    memory_idle: bool,
    dirty: bool,
    few_inodes: bool,
    frees_much: bool,
    limited: bool,
    running: Vec<Slot>,
    flush: Vec<usize>,
    explore: Vec<usize>,
    /// Queued stripes, with their number of runs and the bytes to merge, if any.
    compact: Vec<(usize, u64, Option<u64>)>,
    awaited: Vec<usize>,
    most_flushes: usize,
    most_compactions: usize,
    calm: Option<usize>,
    unsynced: bool,
    wants_watermark: bool,
    reclaiming: bool,
    idle: Option<usize>,
}

const CROWDED: u64 = 8;

impl Situation {
    fn new() -> Self {
        Self {
            may_write: true,
            opened: true,
            now: 1000,
            last_sync: 1000,
            checkpoint_interval: 10,
            last_checkpoint: 1000,
            last_stats: 1000,
            most_flushes: 2,
            most_compactions: 3,
            ..Self::default()
        }
    }

    /// The slots that are due, and the facts about stripes that were looked up for it.
    fn due(&self) -> (Vec<Slot>, Vec<LookedUp>) {
        let secs = Duration::from_secs;
        let view = View {
            may_write: self.may_write,
            opened: self.opened,
            manual: self.manual,
            now: secs(self.now),
            sync_interval: secs(self.sync_interval),
            last_sync: secs(self.last_sync),
            checkpoint_interval: secs(self.checkpoint_interval),
            last_checkpoint: secs(self.last_checkpoint),
            stats_interval: self.stats_interval.map(secs),
            last_stats: secs(self.last_stats),
            removal: self.removal.map(secs),
            wants_segment: self.wants_segment,
            log_half_full: self.log_half_full,
            seal_wanted: self.seal_wanted,
            sealed_last: self.sealed_last,
            memory_idle: self.memory_idle,
            dirty: self.dirty,
            few_inodes: self.few_inodes,
            frees_much: self.frees_much,
            limited: self.limited,
            running: &self.running.iter().copied().collect(),
            flush: &self.flush.iter().copied().collect(),
            explore: &self.explore.iter().copied().collect(),
            compact: &self.compact.iter().map(|&(stripe, ..)| stripe).collect(),
            awaited: &self.awaited.iter().map(|&stripe| (stripe, 1)).collect(),
            most_flushes: self.most_flushes,
            most_compactions: self.most_compactions,
            calm: self.calm,
            crowded: CROWDED,
        };
        let mut probe = Answers { situation: self, looked_up: Vec::new() };
        let due = due(&view, &mut probe);
        (due, probe.looked_up)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum LookedUp {
    Merge(usize),
    Idle,
}

struct Answers<'a> {
    situation: &'a Situation,
    looked_up: Vec<LookedUp>,
}

impl Answers<'_> {
    fn stripe(&self, stripe: usize) -> (usize, u64, Option<u64>) {
        *self.situation.compact.iter().find(|queued| queued.0 == stripe).unwrap()
    }
}

impl Probe for Answers<'_> {
    fn unsynced(&self) -> bool {
        self.situation.unsynced
    }

    fn wants_watermark(&self) -> bool {
        self.situation.wants_watermark
    }

    fn reclaiming(&self) -> bool {
        self.situation.reclaiming
    }

    fn runs(&self, stripe: usize) -> u64 {
        self.stripe(stripe).1
    }

    fn merge(&mut self, stripe: usize) -> Option<u64> {
        self.looked_up.push(LookedUp::Merge(stripe));
        self.stripe(stripe).2
    }

    fn idle(&mut self) -> Option<usize> {
        self.looked_up.push(LookedUp::Idle);
        self.situation.idle
    }
}

type Row = (&'static str, fn(&mut Situation), &'static [Slot]);

fn check(rows: &[Row]) {
    for (name, set, expected) in rows {
        let mut situation = Situation::new();
        set(&mut situation);
        assert_eq!(situation.due().0, *expected, "{name}");
    }
}

/// Some work of every kind.
fn everything(s: &mut Situation) {
    (s.sync_interval, s.last_sync, s.unsynced) = (1, 999, true);
    (s.dirty, s.last_checkpoint) = (true, 990);
    (s.stats_interval, s.last_stats, s.removal) = (Some(5), 995, Some(1000));
    (s.wants_segment, s.seal_wanted) = (true, true);
    (s.flush, s.explore) = (vec![4, 2], vec![7, 6]);
    s.compact = vec![(1, 2, Some(500)), (3, 2, Some(100)), (5, 2, None)];
    s.idle = Some(9);
}

#[test]
#[rustfmt::skip] // a row a line
fn whole_situations() {
    check(&[
        ("nothing", |_| {}, &[]),
        ("everything",
            everything,
            &[Segment, LogSync, Checkpoint, Seal, Stats, Removal, Flush(4), Flush(2), Explore(6),
                Explore(7), Compact(3), Compact(1)]),
        ("everything, after sealing",
            |s| { everything(s); s.sealed_last = true; },
            &[Segment, LogSync, Checkpoint, Stats, Removal, Flush(4), Flush(2), Explore(6), Explore(7),
                Compact(3), Compact(1), Seal]),
        ("what runs is not begun again",
            |s| { everything(s); s.running = vec![Segment, Checkpoint, Flush(4), Explore(6), Compact(3)]; },
            &[LogSync, Seal, Stats, Removal, Flush(2), Explore(7), Compact(1)]),
        ("everything, read only or poisoned", |s| { everything(s); s.may_write = false; }, &[]),
        ("everything, before the first write of a clean open",
            |s| { everything(s); s.opened = false; }, &[Open, Stats]),
    ]);
}

#[test]
#[rustfmt::skip] // a row a line
fn the_log_and_its_syncs() {
    check(&[
        ("a segment", |s| s.wants_segment = true, &[Segment]),
        ("unsynced, the interval over",
            |s| { (s.sync_interval, s.last_sync, s.unsynced) = (2, 998, true); }, &[LogSync]),
        ("unsynced, the interval not over",
            |s| { (s.sync_interval, s.last_sync, s.unsynced) = (2, 999, true); }, &[]),
        ("unsynced, on one thread",
            |s| { (s.sync_interval, s.unsynced, s.manual) = (2, true, true); }, &[LogSync]),
        ("unsynced, an interval of zero",
            |s| { (s.last_sync, s.unsynced, s.manual) = (0, true, true); }, &[]),
        ("idle, no watermark",
            |s| { (s.sync_interval, s.last_sync, s.wants_watermark) = (2, 998, true); }, &[Watermark]),
        ("unsynced, no watermark: the sync first",
            |s| { (s.sync_interval, s.last_sync, s.unsynced, s.wants_watermark) = (2, 998, true, true); },
            &[LogSync]),
        ("idle, the interval not over",
            |s| { (s.sync_interval, s.last_sync, s.wants_watermark) = (2, 999, true); }, &[]),
    ]);
}

#[test]
#[rustfmt::skip] // a row a line
fn checkpoints() {
    check(&[
        ("the interval over", |s| (s.dirty, s.last_checkpoint) = (true, 990), &[Checkpoint]),
        ("the interval over, nothing new", |s| s.last_checkpoint = 990, &[]),
        ("the interval not over", |s| (s.dirty, s.last_checkpoint) = (true, 991), &[]),
        ("on one thread", |s| (s.dirty, s.manual) = (true, true), &[Checkpoint]),
        ("the log half full", |s| (s.dirty, s.log_half_full) = (true, true), &[Checkpoint]),
        ("the log half full, nothing new", |s| s.log_half_full = true, &[]),
        ("the log half full, flushes first",
            |s| { (s.dirty, s.log_half_full, s.flush) = (true, true, vec![1]); }, &[Flush(1)]),
        ("few inodes", |s| (s.dirty, s.few_inodes) = (true, true), &[Checkpoint]),
        ("few inodes, nothing new", |s| s.few_inodes = true, &[]),
        ("few inodes: after the merges that cause it",
            |s| { (s.dirty, s.few_inodes, s.compact) = (true, true, vec![(1, 2, Some(10))]); },
            &[Compact(1), Checkpoint]),
        ("few inodes, the interval over: once",
            |s| { (s.dirty, s.few_inodes, s.last_checkpoint) = (true, true, 0); }, &[Checkpoint]),
        ("space is wanted, and nothing else gives some",
            |s| (s.dirty, s.reclaiming) = (true, true), &[Checkpoint]),
        ("space is wanted, nothing new", |s| s.reclaiming = true, &[]),
        ("space is wanted, and flushes come first",
            |s| { (s.dirty, s.reclaiming, s.flush) = (true, true, vec![1]); }, &[Flush(1)]),
        ("space is wanted, and merges share a checkpoint",
            |s| { (s.dirty, s.reclaiming, s.compact) = (true, true, vec![(1, 2, Some(10))]); },
            &[Compact(1)]),
        ("space is wanted, and a checkpoint gives back much",
            |s| {
                (s.dirty, s.reclaiming, s.frees_much) = (true, true, true);
                (s.flush, s.compact) = (vec![2], vec![(1, 2, Some(10))]);
            },
            &[Flush(2), Checkpoint, Compact(1)]),
        ("a checkpoint gives back much, and no space is wanted",
            |s| (s.dirty, s.frees_much) = (true, true), &[]),
        ("space is wanted, and as many merges run as may",
            |s| {
                (s.dirty, s.reclaiming, s.frees_much) = (true, true, true);
                (s.most_compactions, s.running) = (1, vec![Compact(1)]);
            },
            &[]),
        ("space is wanted, and no merge may begin beside one",
            |s| { (s.dirty, s.reclaiming, s.calm) = (true, true, Some(1)); s.running = vec![Compact(1)]; },
            &[]),
        ("one runs", |s| { (s.dirty, s.last_checkpoint, s.running) = (true, 0, vec![Checkpoint]); }, &[]),
    ]);
}

#[test]
#[rustfmt::skip] // a row a line
fn sealing_counters_and_removal() {
    check(&[
        ("sealing", |s| s.seal_wanted = true, &[Seal]),
        ("sealing before flushes", |s| (s.seal_wanted, s.flush) = (true, vec![1]), &[Seal, Flush(1)]),
        ("but not twice in a row",
            |s| { (s.seal_wanted, s.sealed_last, s.flush) = (true, true, vec![1]); }, &[Flush(1), Seal]),
        ("twice in a row when nothing else is due",
            |s| { (s.seal_wanted, s.sealed_last) = (true, true); }, &[Seal]),
        ("counters, the interval over", |s| (s.stats_interval, s.last_stats) = (Some(5), 995), &[Stats]),
        ("counters, the interval not over", |s| (s.stats_interval, s.last_stats) = (Some(5), 996), &[]),
        ("counters that are not written", |s| s.last_stats = 0, &[]),
        ("SSTs to be removed now", |s| s.removal = Some(1000), &[Removal]),
        ("SSTs to be removed later", |s| s.removal = Some(1001), &[]),
        ("memory, before an idle stripe", |s| (s.memory_idle, s.idle) = (true, Some(1)), &[ReleaseMemory]),
        ("gaps to look for", |s| s.explore = vec![2, 1], &[Explore(1), Explore(2)]),
    ]);
}

#[test]
#[rustfmt::skip] // a row a line
fn flushes() {
    check(&[
        ("in the order of sealing", |s| s.flush = vec![3, 1, 2], &[Flush(3), Flush(1), Flush(2)]),
        ("a stripe twice", |s| s.flush = vec![3, 3], &[Flush(3), Flush(3)]),
        ("beside one that runs", |s| (s.flush, s.running) = (vec![3, 1], vec![Flush(3)]), &[Flush(1)]),
        ("as many run as may", |s| (s.flush, s.running) = (vec![3, 1], vec![Flush(4), Flush(5)]), &[]),
        ("merges do not count",
            |s| { (s.flush, s.running) = (vec![3], vec![Compact(4), Compact(5), Compact(6)]); }, &[Flush(3)]),
    ]);
}

#[test]
#[rustfmt::skip] // a row a line
fn compactions() {
    fn four(s: &mut Situation) {
        s.compact = vec![(1, 2, Some(40)), (2, 2, Some(10)), (3, 2, Some(30)), (4, 2, Some(20))];
    }
    check(&[
        ("the smallest first", four, &[Compact(2), Compact(4), Compact(3), Compact(1)]),
        ("the same size: by number",
            |s| s.compact = vec![(2, 2, Some(1)), (1, 2, Some(1))], &[Compact(1), Compact(2)]),
        ("nothing to merge", |s| s.compact = vec![(1, 2, None)], &[]),
        ("those that writers wait for before all others",
            |s| { four(s); s.awaited = vec![1, 3]; }, &[Compact(3), Compact(1), Compact(2), Compact(4)]),
        ("as many run as may",
            |s| { four(s); (s.most_compactions, s.running) = (1, vec![Compact(9)]); }, &[]),
        ("as many run as may, also of those that writers wait for",
            |s| { four(s); (s.most_compactions, s.running, s.awaited) = (1, vec![Compact(9)], vec![1]); },
            &[]),
        ("one fewer runs than may", |s| { four(s); (s.most_compactions, s.running) = (2, vec![Compact(2)]); },
            &[Compact(4), Compact(3), Compact(1)]),
        ("flushes do not count",
            |s| {
                (s.compact, s.most_compactions) = (vec![(1, 2, Some(4))], 1);
                s.running = vec![Flush(1), Flush(2)];
            },
            &[Compact(1)]),
        ("calm, and none runs",
            |s| { four(s); s.calm = Some(1); }, &[Compact(2), Compact(4), Compact(3), Compact(1)]),
        ("calm, and one runs", |s| { four(s); (s.calm, s.running) = (Some(1), vec![Compact(2)]); }, &[]),
        ("calm, and writers wait for a stripe",
            |s| { four(s); (s.calm, s.running, s.awaited) = (Some(1), vec![Compact(2)], vec![1]); },
            &[Compact(1)]),
        ("calm, and a stripe is crowded",
            |s| {
                four(s);
                (s.calm, s.running) = (Some(1), vec![Compact(2)]);
                (s.compact[0].1, s.compact[3].1) = (CROWDED, CROWDED - 1);
            },
            &[Compact(1)]),
        ("calm, and space is wanted under a limit",
            |s| {
                four(s);
                (s.calm, s.running, s.limited, s.reclaiming) = (Some(1), vec![Compact(2)], true, true);
            },
            &[Compact(4), Compact(3), Compact(1)]),
        ("calm, and space is wanted without a limit",
            |s| { four(s); (s.calm, s.running, s.reclaiming) = (Some(1), vec![Compact(2)], true); }, &[]),
        ("calm, and a limit is far",
            |s| { four(s); (s.calm, s.running, s.limited) = (Some(1), vec![Compact(2)], true); }, &[]),
    ]);
}

#[test]
#[rustfmt::skip] // a row a line
fn idle_stripes() {
    check(&[
        ("nothing else is due", |s| s.idle = Some(9), &[Compact(9)]),
        ("something else is due", |s| (s.idle, s.explore) = (Some(9), vec![1]), &[Explore(1)]),
        ("something runs", |s| (s.idle, s.running) = (Some(9), vec![Stats]), &[]),
        ("what is due runs already",
            |s| { (s.idle, s.flush, s.running) = (Some(9), vec![1], vec![Flush(1)]); }, &[]),
    ]);
}

#[test]
#[rustfmt::skip] // a row a line
fn before_the_first_write_of_a_clean_open() {
    fn closed(s: &mut Situation) {
        s.opened = false;
    }
    check(&[
        ("nothing", closed, &[]),
        ("what the log asks for waits for a write",
            |s| {
                closed(s);
                (s.wants_segment, s.sync_interval, s.last_sync, s.unsynced) = (true, 1, 0, true);
                (s.removal, s.explore) = (Some(0), vec![1]);
            },
            &[]),
        ("counters", |s| { closed(s); (s.stats_interval, s.last_stats) = (Some(5), 0); }, &[Stats]),
        ("memory", |s| { closed(s); s.memory_idle = true; }, &[ReleaseMemory]),
        ("a flush", |s| { closed(s); s.flush = vec![1]; }, &[Open]),
        ("a merge", |s| { closed(s); s.compact = vec![(1, 2, Some(1))]; }, &[Open]),
        ("an idle stripe", |s| { closed(s); s.idle = Some(1); }, &[Open]),
        ("sealing", |s| { closed(s); s.seal_wanted = true; }, &[Open]),
        ("a checkpoint", |s| { closed(s); (s.dirty, s.last_checkpoint) = (true, 0); }, &[Open]),
        ("a flush, and the database is being opened",
            |s| { closed(s); (s.flush, s.running) = (vec![1], vec![Open]); }, &[]),
    ]);
}

/// Reading the runs of a stripe is not cheap, and the decision is made under the queue's lock.
#[test]
fn stripes_are_looked_at_only_when_the_decision_depends_on_it() {
    let looked_up = |set: fn(&mut Situation)| {
        let mut situation = Situation::new();
        situation.compact = vec![(1, 2, Some(1)), (2, 2, None), (3, CROWDED, Some(3))];
        set(&mut situation);
        situation.due().1
    };
    use LookedUp::{Idle, Merge};
    assert_eq!(looked_up(|_| {}), [Merge(1), Merge(2), Merge(3)]);
    assert_eq!(looked_up(|s| s.may_write = false), []);
    assert_eq!(looked_up(|s| s.running = vec![Compact(1)]), [Merge(2), Merge(3)]);
    assert_eq!(looked_up(|s| (s.calm, s.running) = (Some(1), vec![Compact(1)])), [Merge(3)]);
    assert_eq!(looked_up(|s| (s.most_compactions, s.running) = (1, vec![Compact(1)])), []);
    assert_eq!(looked_up(|s| s.compact.clear()), [Idle]);
}
