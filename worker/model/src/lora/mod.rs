//! Low-rank adapters beside frozen weights (Hu et al. 2021, LoRA), as PEFT 0.21 makes, names and stores them.

mod adapter;
mod file;
mod peft_config;
mod targets;

pub use adapter::Adapter;
pub use file::base_directory;
