//! `medevo-worker merge`: a whole model directory of a base and its adapter.

use std::process::ExitCode;

use anyhow::Context;
use medevo_model::{Adapter, Qwen25Vl, base_directory};
use tch::Device;

use crate::{cli::MergeArgs, fresh_dir};

/// Adds an adapter's terms to the weights of its base and writes the sum, in the base's number type.
///
/// # Errors
/// A directory that is no adapter, a base that it does not fit, or an output directory that is in use or
/// cannot be written.
pub fn merge(args: &MergeArgs) -> anyhow::Result<ExitCode> {
    let (adapter, out) = (&args.adapter, &args.out);
    anyhow::ensure!(
        Adapter::lies_in(adapter),
        "{} holds no adapter (no adapter_config.json); give a checkpoint of a run with [lora]",
        adapter.display()
    );
    fresh_dir::refuse_used(out)?;
    let base = match &args.base {
        Some(base) => base.clone(),
        None => base_directory(adapter).context("--base gives another directory")?,
    };
    let model = Qwen25Vl::load_as_stored(&base)
        .with_context(|| format!("cannot load the base model in {}", base.display()))?;
    let term = Adapter::read(adapter, &model.config, Device::Cpu)?;
    let merged = model.with_adapter(term).merge();
    fresh_dir::write(out, |beside| merged.save(beside).map(drop))?;
    println!("wrote {} with {} merged to {}", base.display(), adapter.display(), out.display());
    Ok(ExitCode::SUCCESS)
}
