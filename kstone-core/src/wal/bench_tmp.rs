use super::testing::*;
#[test]
fn speed() {
    let mem = crate::vfs::MemVfs::new();
    let context = super::WalContext { vfs: std::sync::Arc::new(mem.clone()), dir: dir().to_path_buf(), clock: std::sync::Arc::new(crate::clock::SystemClock::new()), database_id: DB, incarnation: [8;16], health: Default::default() };
    let wal = super::Wal::new(context, start());
    for threads in [1usize, 2] {
        let t = crate::clock::SystemClock::new();
        use crate::clock::Clock;
        let n = 1_000_000;
        std::thread::scope(|s| for _ in 0..threads { s.spawn(|| { for _ in 0..n/threads { append(&wal, &[7; 200]).unwrap(); } }); });
        println!("{threads}: {:?} ns", t.monotonic().as_nanos() / n as u128);
        wal.sync().unwrap();
    }
    use crate::clock::Clock;
    let t = crate::clock::SystemClock::new();
    let segs = super::discover(&mem, dir(), DB).unwrap();
    let chain = super::validate(&mem, dir(), &segs, &Default::default()).unwrap();
    println!("validate {} MB {:?}", wal.live_bytes()>>20, t.monotonic());
    let t = crate::clock::SystemClock::new();
    let mut n = 0u64;
    super::replay(&mem, &chain, |r| { n += r.payload.len() as u64; Ok(()) }).unwrap();
    println!("replay {} {:?}", n, t.monotonic());
    // scan speed
    let t = crate::clock::SystemClock::new();
    let rules = super::LogRules { cuts: vec![super::LogCut { generation: 0, end: 0, next_generation: 1, seq: 0 }], ..Default::default() };
    let f = crate::vfs::Vfs::open(&mem, &chain.segments[0].path, crate::vfs::OpenMode::Write).unwrap();
    f.write_at(&[1], 1030).unwrap();
    println!("{:?}", super::validate(&mem, dir(), &segs, &rules).err());
    println!("scan all {:?}", t.monotonic());
}
