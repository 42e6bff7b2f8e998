//! Identity of the current process: handles opened before a fork belong to the process that opened them.
//!
//! A forked child has the memory of its parent but none of its threads; a lock that another thread held at the fork
//! stays locked forever. So every call must detect a fork before it takes a lock, at a cost that a get does not notice:
//! a system call takes longer than much of a get. On Linux, a page that reads as zeros in a forked child holds a
//! nonzero mark; comparing it is a single load.

#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The process that created an object, remembered by that object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// The word that a fork zeroes; `None` where the system has no such pages.
    page: Option<&'static AtomicU64>,
    /// The value at `page` in this process, or the process id.
    mark: u64,
}

impl Process {
    /// The current process.
    pub(crate) fn current() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Without pages that a fork zeroes, the process id has to do.
        let Some(page) = page() else { return Self { page: None, mark: std::process::id().into() } };
        // In a forked child this is higher than the marks of all its ancestors.
        let mark = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let found = page.compare_exchange(0, mark, Ordering::Relaxed, Ordering::Relaxed);
        Self { page: Some(page), mark: found.err().unwrap_or(mark) }
    }

    /// A process that is not the current one.
    #[cfg(test)]
    pub(crate) fn other() -> Self {
        Self { page: None, mark: 0 }
    }

    /// Whether the caller runs in this process rather than in one forked from it.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        match self.page {
            Some(page) => page.load(Ordering::Relaxed) == self.mark,
            None => u64::from(std::process::id()) == self.mark,
        }
    }
}

/// A page private to this process that reads as zeros in any process forked from it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "only the system knows of forks, and no safe call requests such a page")]
fn page() -> Option<&'static AtomicU64> {
    static PAGE: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // Never unmapped: handles refer to it for as long as the process lives.
        let map = Box::leak(Box::new(memmap2::MmapMut::map_anon(size_of::<AtomicU64>()).ok()?));
        let at = map.as_mut_ptr();
        // SAFETY: the mapping is private, anonymous, page-aligned, longer than the number and never unmapped; nothing
        // else refers to it. The kernel zeroes its bytes only in another process, which has its own copy.
        unsafe {
            rustix::mm::madvise(at.cast(), map.len(), rustix::mm::Advice::LinuxWipeOnFork).ok()?;
            Some(AtomicU64::from_ptr(at.cast()))
        }
    })
}

/// Other systems: [`Process`] compares process ids.
#[cfg(not(target_os = "linux"))]
fn page() -> Option<&'static AtomicU64> {
    None
}
