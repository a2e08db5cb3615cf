//! End-to-end tests with real processes: the harness. The tests are in e2e/.

pub mod etcd;
pub mod footprint;
pub mod history;
pub mod lab;
pub mod process;
