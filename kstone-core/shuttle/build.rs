//! Compiles the sources of `kstone-core` with the locks of the `shuttle` crate.

fn main() {
    println!("cargo::rustc-cfg=shuttle");
    println!("cargo::rerun-if-changed=build.rs");
}
