//! What callers ask of an open database, as the input of the cost model.

use super::stats::EngineStats;
use crate::model::Workload;

/// Bytes of a key where nothing was written since open.
const USUAL_KEY: u64 = 24;
/// No key or value is longer.
const MOST_BYTES: u64 = 1 << 32;
/// Bytes that an entry takes in an SST beyond key and value, approximately.
const SST_OVERHEAD: u64 = 20;

impl Workload {
    /// The load since open, and the data that is there. The mean rates, the mix, the share of misses and the sizes are
    /// those measured; sizes are taken from the SSTs where nothing was written. Skewed writes count as fewer stripes: as
    /// many as would share them evenly with the same probability that two writes meet in one (the inverse of the Simpson
    /// index). Whether writes are synced, and how much memory there is, the caller adds.
    pub fn observed(stats: &EngineStats) -> Self {
        let stored: u64 = stats.stripes.iter().map(|stripe| stripe.entries).fold(0, u64::saturating_add);
        let sizes = stats.written_sizes;
        let (key_bytes, value_bytes) = match sizes.values.count {
            0 => {
                let entry = stats.sst_bytes.checked_div(stored).unwrap_or(0);
                (USUAL_KEY, entry.saturating_sub(USUAL_KEY + SST_OVERHEAD))
            }
            // A file of counters may contain anything.
            _ => (sizes.keys.mean.min(MOST_BYTES), sizes.values.mean.min(MOST_BYTES)),
        };
        let operations = &stats.operations;
        let per_second = |count: u64| count as f64 * 1e3 / stats.uptime_ms.max(1) as f64;
        let misses: u64 = stats.reads.misses.iter().copied().fold(0, u64::saturating_add);
        let items = stats.items_estimate.max(1);
        let writes = operations.puts.saturating_add(operations.deletes);
        Self {
            writes: items.max(writes),
            writes_per_second: per_second(writes),
            reads_per_second: per_second(operations.gets),
            miss_share: misses as f64 / operations.gets.max(1) as f64,
            stripes: even_stripes(stats),
            ..Self::inserts(items, key_bytes, value_bytes)
        }
    }
}

/// Stripes that the writes would fill evenly; judged by the stored entries where nothing was written.
fn even_stripes(stats: &EngineStats) -> usize {
    let of = |count: fn(&super::StripeStats) -> u64| -> Option<f64> {
        let counts = || stats.stripes.iter().map(count).filter(|&count| count > 0).map(|count| count as f64);
        let sum: f64 = counts().sum();
        let squares: f64 = counts().map(|count| count * count).sum();
        (squares > 0.0).then(|| sum * sum / squares)
    };
    let even = of(|stripe| stripe.writes).or_else(|| of(|stripe| stripe.entries));
    even.map_or(stats.stripe_count.max(1), |even| even.round().max(1.0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workload_is_that_of_the_counters() {
        let mut stats: EngineStats = serde_json::from_str("{}").unwrap();
        (stats.stripe_count, stats.uptime_ms, stats.items_estimate) = (256, 2_000, 500);
        (stats.operations.puts, stats.operations.deletes, stats.operations.gets) = (900, 100, 4_000);
        (stats.reads.misses[0], stats.reads.misses[3]) = (600, 400);
        stats.written_sizes.keys.mean = 12;
        (stats.written_sizes.values.count, stats.written_sizes.values.mean) = (15, 300);
        let stripe = |stripe: usize, writes: u64| {
            serde_json::from_value::<super::super::StripeStats>(serde_json::json!({
                "stripe": stripe, "writes": writes, "entries": 1000,
            }))
        };
        stats.stripes = (0..4).map(|n| stripe(n, 250).unwrap()).collect();
        let workload = Workload::observed(&stats);
        assert_eq!((workload.items, workload.writes, workload.stripes), (500, 1_000, 4));
        assert_eq!((workload.key_bytes, workload.value_bytes), (12, 300));
        assert_eq!((workload.writes_per_second, workload.reads_per_second), (500.0, 2_000.0));
        assert_eq!(workload.miss_share, 0.25);
        // Nearly all writes go to one stripe.
        stats.stripes[0].writes = 1_000_000;
        assert_eq!(Workload::observed(&stats).stripes, 1);
        // Without counters, the files tell.
        (stats.written_sizes, stats.sst_bytes) = (Default::default(), 4_000 * 144);
        stats.stripes.iter_mut().for_each(|stripe| stripe.writes = 0);
        let workload = Workload::observed(&stats);
        assert_eq!((workload.key_bytes + workload.value_bytes, workload.stripes), (124, 4));
    }
}
