//! Prefetching: asks the processor to bring memory into its cache before it is read, so that several cache misses
//! overlap instead of being waited for one after the other.

/// Length of a cache line in bytes.
pub(crate) const LINE: usize = 64;

/// Requests the cache line with the byte at `at`, if there is one.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8], at: usize) {
    if let Some(byte) = bytes.get(at) {
        prefetch_line(byte);
    }
}

/// Requests the cache line with the start of a value. Does nothing on processors whose instruction for this Rust does not
/// offer yet.
#[inline(always)]
#[cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "the standard library offers the instruction only as an unsafe call")
)]
pub(crate) fn prefetch_line<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the pointer comes from a reference; and the instruction neither reads nor writes as far as the program
        // can tell, nor faults, whatever the address. Every x86-64 processor has it (SSE).
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
