//! `medevo-worker init`: a model directory with random weights, for demos and tests.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use medevo_model::{ModelConfig, Qwen25Vl};
use tch::Device;

use crate::cli::InitArgs;

/// Draws weights for a configuration and writes them with its files.
///
/// # Errors
/// The configuration cannot be read, or the output directory is in use or cannot be written.
pub fn init(args: &InitArgs) -> anyhow::Result<ExitCode> {
    refuse_used(&args.out)?;
    let config = ModelConfig::load(&args.config)?;
    let model = Qwen25Vl::random(config, args.seed, Device::Cpu);
    // Written beside the final place, so that what stands there is whole.
    let mut beside = args.out.as_os_str().to_owned();
    beside.push(".part");
    let beside = Path::new(&beside);
    if beside.exists() {
        std::fs::remove_dir_all(beside)
            .with_context(|| format!("cannot remove {} of an earlier try", beside.display()))?;
    }
    std::fs::create_dir_all(beside).with_context(|| format!("cannot make {}", beside.display()))?;
    model.save(beside)?;
    std::fs::rename(beside, &args.out)
        .with_context(|| format!("cannot move the model to {}", args.out.display()))?;
    println!("wrote random weights (seed {}) to {}", args.seed, args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// Somebody's files are never written over.
fn refuse_used(out: &Path) -> anyhow::Result<()> {
    match std::fs::read_dir(out) {
        Ok(mut entries) => anyhow::ensure!(
            entries.next().is_none(),
            "{} is not empty; remove it or choose another --out",
            out.display()
        ),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot look into {}", out.display())),
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn used_directory_is_refused_and_a_fresh_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refuse_used(dir.path()).is_ok());
        assert!(refuse_used(&dir.path().join("new")).is_ok());
        std::fs::write(dir.path().join("x"), "").unwrap();
        assert!(refuse_used(dir.path()).unwrap_err().to_string().contains("not empty"));
        assert!(refuse_used(&dir.path().join("x")).is_err());
    }
}
