//! `medevo-worker init`: a model directory with random weights, for demos and tests.

use std::process::ExitCode;

use medevo_model::{ModelConfig, Qwen25Vl};
use tch::Device;

use crate::{cli::InitArgs, fresh_dir};

/// Draws weights for a configuration and writes them with its files.
///
/// # Errors
/// The configuration cannot be read, or the output directory is in use or cannot be written.
pub fn init(args: &InitArgs) -> anyhow::Result<ExitCode> {
    fresh_dir::refuse_used(&args.out)?;
    let config = ModelConfig::load(&args.config)?;
    let model = Qwen25Vl::random(config, args.seed, Device::Cpu);
    fresh_dir::write(&args.out, |beside| model.save(beside).map(drop))?;
    println!("wrote random weights (seed {}) to {}", args.seed, args.out.display());
    Ok(ExitCode::SUCCESS)
}
