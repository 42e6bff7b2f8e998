//! KeystoneDB, items on the engine.
