//! Run file, data sets and checkpoint manifests.

pub mod config;
pub mod dataset;
pub mod manifest;
pub mod mini_slake;
