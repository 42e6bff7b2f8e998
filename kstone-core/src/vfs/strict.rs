//! A file system that loses at a crash whatever was not synced. (being written)

/// What a crash keeps.
#[derive(Clone, Copy, Debug)]
pub enum CrashMode {
    /// Only what was synced.
    Strict,
}

/// Files in memory with durable and pending state.
#[derive(Clone, Debug, Default)]
pub struct StrictVfs;
