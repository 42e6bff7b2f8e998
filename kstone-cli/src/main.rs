//! The `kstone` binary.
fn main() {}
