//! What the current thread is reading.
//!
//! serde reads the fields of flattened structs, and of enums that are untagged or have their tag inside, in two steps:
//! into a buffer of its own, by `deserialize_any`, and from there. The buffer knows neither sets nor decimals, and the
//! types that do, [`Value`](crate::Value) and [`Number`](crate::Number), only see the buffer. So:
//!
//! * While a thread reads an item, `Value` takes what it is given for itself, not for DynamoDB JSON.
//! * `deserialize_any` gives a set as a sequence and a decimal as the nearest float, which is right for most types, and
//!   notes that it did. `Value` and `Number` note that they read from a buffer. If both happened, something may have been
//!   lost: the item is read again, with *marks*, maps of one name that no attribute can have, for sets and such
//!   decimals. Then either everything is exact or it fails.

use std::cell::Cell;

#[derive(Clone, Copy, Default)]
pub(super) struct State {
    /// An item is being read.
    pub(super) reading: bool,
    /// Sets and decimals that are not floats are marked.
    pub(super) marked: bool,
    /// A set or such a decimal was given without a mark.
    pub(super) lossy: bool,
    /// A `Value` or `Number` was read from a buffer.
    pub(super) taken: bool,
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State { reading: false, marked: false, lossy: false, taken: false }) };
}

pub(super) fn get() -> State {
    STATE.try_with(Cell::get).unwrap_or_default()
}

pub(super) fn update(change: impl FnOnce(&mut State)) {
    let mut state = get();
    change(&mut state);
    let _ = STATE.try_with(|cell| cell.set(state));
}

/// Restores the state when it is dropped: reads nest, and may panic in code that is not ours.
struct Restore(State);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ = STATE.try_with(|cell| cell.set(self.0));
    }
}

/// Calls `read` while an item is being read. Returns also whether it may have lost something.
pub(super) fn reading<T>(marked: bool, read: impl FnOnce() -> T) -> (T, bool) {
    let _restore = Restore(get());
    update(|state| *state = State { reading: true, marked, ..State::default() });
    let result = read();
    let state = get();
    (result, state.lossy && state.taken)
}
