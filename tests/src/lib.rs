//! Tests with real processes, end to end and under chaos: the harness. The tests are in e2e/ and chaos/.

pub mod chaos;
pub mod cluster;
pub mod commands;
pub mod etcd;
pub mod footprint;
pub mod history;
pub mod k8s;
pub mod lab;
pub mod process;
pub mod s3;
pub mod slurm;
pub mod small_disk;
pub mod traces;
