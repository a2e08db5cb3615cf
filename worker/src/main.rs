//! One worker process.
fn main() {}
