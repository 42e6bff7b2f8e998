//! Section 23.3, "Bloom Filter Tuning".

use kstone_api::DatabaseConfig;

use super::database_works;

#[test]
#[rustfmt::skip]
fn bits_per_key_configuration() {
    // In kstone-core/src/sst_block.rs
    const BITS_PER_KEY: usize = 10;  // Default: 10 bits/key (~1% FPR)
    assert_eq!(kstone_core::sst_block::BITS_PER_KEY, BITS_PER_KEY);
    assert_eq!(DatabaseConfig::default().bloom_bits_per_key, BITS_PER_KEY);
}

/// Every row of "Memory vs. False Positive Rate" is a valid setting.
#[test]
fn every_row_of_the_table_is_a_setting() {
    for bits in [6, 8, 10, 12, 16, 20] {
        database_works(DatabaseConfig::new().with_bloom_bits_per_key(bits));
    }
}

#[test]
#[rustfmt::skip]
fn tuning_recommendations() {
    {
        // Optimize for minimal false positives
        const BITS_PER_KEY: usize = 16;
        database_works(DatabaseConfig::new().with_bloom_bits_per_key(BITS_PER_KEY));
    }
    {
        // Minimize memory footprint
        const BITS_PER_KEY: usize = 8;
        database_works(DatabaseConfig::new().with_bloom_bits_per_key(BITS_PER_KEY));
    }
    {
        // Balance creation speed and effectiveness
        const BITS_PER_KEY: usize = 8;  // Faster to build, still effective
        database_works(DatabaseConfig::new().with_bloom_bits_per_key(BITS_PER_KEY));
    }
}
