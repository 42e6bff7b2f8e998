//! The log: segments are discovered, validated and replayed, and the operations in their batches decoded.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::edits;
use super::files::{Files, listed, on_disk};
use super::{Input, expect_corruption, is_about_bytes, seal};
use crate::clock::ManualClock;
use crate::error::Result;
use crate::record::{ITEMS, OpRef, Ops, encode};
use crate::types::{LogCut, Lsn, SeqNo};
use crate::vfs::{Floor, MemVfs, Vfs};
use crate::wal::{
    Chain, LogLimits, LogOwner, LogRules, Route, Wal, WalContext, WalStart, discover, harden, replay,
    validate,
};

const OWNER: LogOwner = LogOwner { database_id: [7; 16], incarnation: [8; 16] };

/// Position, first sequence, number of operations, and payload of a batch.
type Batch = (Lsn, SeqNo, u32, Vec<u8>);

/// A genuine log.
struct LogSample {
    files: Files,
    /// Earlier versions of the files.
    older: Files,
    rules: LogRules,
    /// The live batches.
    batches: Vec<Batch>,
}

/// Logs of all kinds: one segment, several, recovered, closed, partly retired.
static WRITTEN: LazyLock<Vec<LogSample>> =
    LazyLock::new(|| vec![written(1, 0), written(3, 0), written(3, 1), written(2, 2), written(4, 3)]);

/// Reads the segments described by the input.
pub fn log(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 3 {
        0 => damage(&mut input),
        1 => {
            let (open, rules) = (input.byte(), rules(&mut input));
            let mut files = files(&mut input);
            // Only the record whose number is `open` keeps a wrong checksum, so that most code is reached.
            files.iter_mut().for_each(|(_, file)| {
                *file = spread(file);
                seal::segment(file, Some(OWNER), |n| n + 1 == usize::from(open));
            });
            anything(&files, &rules);
        }
        _ => {
            let rules = rules(&mut input);
            anything(&files(&mut input), &rules);
        }
    }
}

/// A damaged genuine log: a read returns a prefix of it that includes everything known to be durable, or an error.
fn damage(input: &mut Input<'_>) {
    let written = &WRITTEN[input.below(WRITTEN.len())];
    let mut files = written.files.clone();
    let done = edits::apply(&mut files, &written.older, input);
    match read(&on_disk(dir(), &files), &written.rules) {
        Err(error) => {
            assert!(done.edits > 0, "{error}");
            expect_corruption(&error);
        }
        Ok((_, batches)) => {
            assert!(written.batches.starts_with(&batches), "{batches:?}");
            let durable = written.batches.iter().filter(|batch| batch.0 < written.rules.durable).count();
            assert!(batches.len() >= durable, "{} of {durable} durable batches", batches.len());
            let complete = written.rules.clean_end.is_none() || batches.len() == written.batches.len();
            assert!(complete, "a closed log lost something");
        }
    }
}

/// Arbitrary files: the result is consistent in itself, and reading again returns the same.
fn anything(files: &Files, rules: &LogRules) {
    let vfs = on_disk(dir(), files);
    let (chain, batches) = match read(&vfs, rules) {
        Ok(found) => found,
        Err(error) => return assert!(is_about_bytes(&error), "{error:?}"),
    };
    let total: usize = files.iter().map(|(_, file)| file.len()).sum();
    assert!(batches.iter().map(|batch| batch.3.len() + 48).sum::<usize>() <= total);
    let last = batches.iter().fold(0, |last, &(lsn, first, count, ref payload)| {
        assert!(first > last && count > 0 && lsn < chain.end);
        operations(payload);
        first + u64::from(count - 1)
    });
    assert!(last <= chain.last_seq);
    assert!(chain.segments.is_sorted_by(|a, b| a.generation < b.generation));
    assert!(chain.segments.iter().all(|info| info.generation <= chain.max_generation));
    // Recovery rewrites the same bytes, and reading is repeatable.
    let before = listed(dir(), &vfs);
    harden(&vfs, dir(), &chain, rules.durable).expect("the file system holds");
    assert_eq!(listed(dir(), &vfs), before);
    let again = read(&vfs, rules).expect("it was read before");
    assert_eq!((again.0.end, again.1), (chain.end, batches));
}

/// Re-encoding decoded operations gives bytes that decode to the same operations.
fn operations(payload: &[u8]) {
    let mut again = Vec::new();
    let mut decoded = Vec::new();
    for op in Ops::new(payload) {
        let Ok(op) = op else { return };
        encode(&mut again, ITEMS, op);
        decoded.push(op);
    }
    let twice: Vec<_> = Ops::new(&again).map(|op| op.expect("what was encoded")).collect();
    assert_eq!(twice, decoded);
}

fn read(vfs: &MemVfs, rules: &LogRules) -> Result<(Chain, Vec<Batch>)> {
    let segments = discover(vfs, dir(), OWNER)?;
    let chain = validate(vfs, dir(), &segments, rules)?;
    let mut batches = Vec::new();
    replay(vfs, &chain, |record| {
        batches.push((record.lsn, record.first_seq, record.count, record.payload.to_vec()));
        Ok(())
    })?;
    Ok((chain, batches))
}

/// Rules built from twelve bytes.
fn rules(input: &mut Input<'_>) -> LogRules {
    let flags = input.byte();
    let mut lsn = |wanted: bool| {
        let (generation, offset) = (input.byte(), input.short());
        if wanted { Lsn::new(u32::from(generation), u32::from(offset) * 8) } else { Lsn::ZERO }
    };
    let (log_start, durable, clean_end) = (lsn(flags & 1 > 0), lsn(flags & 2 > 0), lsn(flags & 4 > 0));
    let cut = lsn(flags & 8 > 0);
    let next_generation = cut.generation().saturating_add(1 + u32::from(flags >> 6));
    let cut = LogCut { generation: cut.generation(), end: cut.offset(), next_generation, seq: 0 };
    LogRules {
        log_start,
        cuts: if flags & 8 > 0 { vec![cut] } else { Vec::new() },
        durable,
        clean_end: (flags & 4 > 0).then_some(clean_end),
        last_edit: if flags & 16 > 0 { 0 } else { u64::MAX },
    }
}

/// Up to three files, each preceded by one byte for its number and two for its length.
fn files(input: &mut Input<'_>) -> Files {
    let mut files = Files::new();
    while !input.is_empty() && files.len() < 3 {
        let number = match input.byte() {
            255 => u32::MAX,
            n => u32::from(n),
        };
        let len = usize::from(input.short());
        let name = format!("wal-{number:06}.log");
        let file = input.bytes(len).to_vec();
        if files.iter().all(|(taken, _)| *taken != name) {
            files.push((name, file));
        }
    }
    files
}

/// Expands a header and records to a segment: the gap in between is mostly zero, and not worth the bytes in an input.
fn spread(short: &[u8]) -> Vec<u8> {
    let (header, records) = short.split_at(short.len().min(128));
    let mut file = header.to_vec();
    file.resize(1024, 0);
    file.extend_from_slice(records);
    file
}

fn dir() -> &'static Path {
    Path::new("/")
}

/// A log of several segments. `kind` 1: cut by a recovery and continued by a second handle; 2: closed; 3: its first
/// segments were retired after a checkpoint.
fn written(segments: usize, kind: u8) -> LogSample {
    let vfs = MemVfs::new();
    let (mut rules, mut batches) = (LogRules::default(), Vec::new());
    let mut start = WalStart {
        next_generation: 1,
        next_seq: 1,
        end: Lsn::ZERO,
        resume: false,
        segments: Vec::new(),
        last_edit: 0,
    };
    let mut older = Files::new();
    for handle in 0..if kind == 1 { 2 } else { 1 } {
        let wal = open(&vfs, start.clone(), handle);
        for n in 0..segments * 5 {
            append(&wal, n, &mut batches);
            if n == segments * 3 {
                wal.sync().expect("memory");
                older = listed(dir(), &vfs);
            }
        }
        rules.durable = wal.synced();
        if kind == 2 {
            let end = wal.close().expect("memory").end;
            (rules.clean_end, rules.durable) = (Some(end), end);
        }
        if kind == 1 && handle == 0 {
            drop(wal);
            let (chain, found) = read(&vfs, &rules).expect("a log that was written");
            assert_eq!(found, batches);
            let next_generation = chain.max_generation + 1;
            let (generation, end) = (chain.end.generation(), chain.end.offset());
            rules.cuts.push(LogCut { generation, end, next_generation, seq: chain.last_seq });
            rules.durable = chain.end;
            start.next_generation = next_generation;
            (start.next_seq, start.end) = (chain.last_seq + 100, chain.end);
            start.segments = chain.segments;
        } else if kind == 3 {
            rules.log_start = batches[batches.len() / 2].0;
            for path in wal.retire(rules.log_start.generation()) {
                vfs.remove(&path).expect("memory");
            }
            batches.retain(|batch| batch.0 >= rules.log_start);
        }
    }
    LogSample { files: listed(dir(), &vfs), older, rules, batches }
}

fn open(vfs: &MemVfs, start: WalStart, seed: u64) -> Wal {
    let context = WalContext {
        latencies: Arc::default(),
        vfs: Arc::new(vfs.clone()),
        dir: dir().to_path_buf(),
        clock: Arc::new(ManualClock::new(seed)),
        database_id: OWNER.database_id,
        incarnation: OWNER.incarnation,
        health: Arc::default(),
        meter: Arc::default(),
    };
    let wal = Wal::new(context, start);
    // Segments hold a few records each.
    wal.set_limits(LogLimits {
        segment_size: 1600,
        limit: u64::MAX,
        oversized: u64::MAX,
        write_buffer: 1024,
        buffer: 0,
    });
    wal
}

fn append(wal: &Wal, n: usize, batches: &mut Vec<Batch>) {
    let (mut payload, count) = (Vec::new(), 1 + n % 3);
    for op in 0..count {
        let key = format!("k{n}\0\u{1}s{op}").into_bytes();
        let value = vec![n as u8; 5 + 9 * op];
        let op = if op == 2 { OpRef::delete(&key) } else { OpRef::put(&key, &value) };
        encode(&mut payload, ITEMS, op);
    }
    let reservation = wal.try_reserve(payload.len(), Floor::NONE).expect("memory").expect("no limit");
    let appended = wal.append(reservation, count as u32, &payload, Route::Buffered, |_| ()).expect("memory");
    batches.push((appended.lsn, appended.first_seq, count as u32, payload));
}

/// Initial inputs.
pub fn log_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (n, written) in WRITTEN.iter().enumerate() {
        seeds.push(vec![0, n as u8]);
        for op in 0..14 {
            seeds.push(vec![0, n as u8, op, 1, 80, 4, 3]);
        }
        let mut files = vec![1, 0, 16];
        files.resize(15, 0);
        for (name, file) in written.files.iter().take(3) {
            let used = file.len() - file.iter().rev().take_while(|byte| **byte == 0).count();
            let short =
                [&file[..128], &file[1024..used.next_multiple_of(8).clamp(1024, file.len())]].concat();
            files.push(name.as_bytes().get(9).map_or(0, |digit| digit - b'0'));
            files.extend_from_slice(&(short.len() as u16).to_le_bytes());
            files.extend_from_slice(&short);
        }
        seeds.push(files);
    }
    let first = &WRITTEN[0].files[0].1;
    let len = (first.len() as u16).to_le_bytes();
    seeds.push([&[2][..], &[0; 13], &[1], &len, first].concat());
    seeds
}
