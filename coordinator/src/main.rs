//! The coordinator process.
fn main() {}
