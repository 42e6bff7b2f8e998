//! CRC-32C (Castagnoli), the only checksum in use. Each file's header has its number.

/// The checksum's number in file headers.
pub(crate) const CRC32C: u8 = 1;

/// CRC-32C over `parts`, seeded so that the same bytes at another offset or in another file do not match.
pub(crate) fn crc32c_seeded(seed: u64, parts: &[&[u8]]) -> u32 {
    let mut crc = crc32c::crc32c(&seed.to_le_bytes());
    for part in parts {
        crc = crc32c::crc32c_append(crc, part);
    }
    crc
}
