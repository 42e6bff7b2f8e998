//! Which process this is: what was opened before a fork belongs to the process that opened it.
//!
//! A forked child has the memory of its parent and none of its threads; a lock that another thread held stays locked
//! for ever. So whatever the child calls must find out before it takes a lock, and at a cost that a get does not feel:
//! asking the system takes longer than much of a get. On Linux a page that reads as zeros in a forked child holds a mark
//! that is not zero; to compare it is one load.

#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A process, as what it made remembers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// Where a fork leaves zeros; `None` where there is no such thing.
    page: Option<&'static AtomicU64>,
    /// What is there in this process, or the number of it.
    mark: u64,
}

impl Process {
    /// This one.
    pub(crate) fn current() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Where the system cannot empty a page for a fork, the process id has to do.
        let Some(page) = page() else { return Self { page: None, mark: std::process::id().into() } };
        // In a forked child it is higher than any mark of the processes that it comes from.
        let mark = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let found = page.compare_exchange(0, mark, Ordering::Relaxed, Ordering::Relaxed);
        Self { page: Some(page), mark: found.err().unwrap_or(mark) }
    }

    /// One that this is not.
    #[cfg(test)]
    pub(crate) fn other() -> Self {
        Self { page: None, mark: 0 }
    }

    /// Whether the caller runs in it, and not in one that was forked off it.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        match self.page {
            Some(page) => page.load(Ordering::Relaxed) == self.mark,
            None => u64::from(std::process::id()) == self.mark,
        }
    }
}

/// A page of this process alone that reads as zeros in whatever is forked off it.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "only the system knows of forks, and there is no safe call that asks it for this"
)]
fn page() -> Option<&'static AtomicU64> {
    static PAGE: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // Never unmapped: handles refer to it for as long as the process lives.
        let map = Box::leak(Box::new(memmap2::MmapMut::map_anon(size_of::<AtomicU64>()).ok()?));
        let at = map.as_mut_ptr();
        // SAFETY: the mapping is private, anonymous, begins at a page, is longer than the number and is never unmapped;
        // nothing else refers to it. That its bytes become zeros happens in another process, which has a copy of it.
        unsafe {
            rustix::mm::madvise(at.cast(), map.len(), rustix::mm::Advice::LinuxWipeOnFork).ok()?;
            Some(AtomicU64::from_ptr(at.cast()))
        }
    })
}

/// Elsewhere the system is asked.
#[cfg(not(target_os = "linux"))]
fn page() -> Option<&'static AtomicU64> {
    None
}
