//! An adapter's directory in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use medevo_types::settings::LoraSettings;
use tch::{Device, Kind, Tensor};

use super::Adapter;
use super::adapter::{A, B};
use super::peft_config::{self, CONFIG_FILE, PeftConfig};
use super::targets::linear_layers;
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::weights::{Scheme, write_tensors};

const TENSORS_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts before the names of the model's modules.
const PREFIX: &str = "base_model.model.";

/// The model directory under `dir`: the one that an adapter's directory names, else `dir` itself.
///
/// # Errors
/// An adapter whose description cannot be read, or whose base model is no directory here.
pub fn base_directory(dir: &Path) -> Result<PathBuf, LoadError> {
    if !Adapter::lies_in(dir) {
        return Ok(dir.to_path_buf());
    }
    let base = PeftConfig::read(dir)?.base;
    if base.is_dir() && !Adapter::lies_in(&base) {
        return Ok(base);
    }
    Err(LoadError::Config {
        path: dir.join(CONFIG_FILE),
        reason: format!(
            "base_model_name_or_path is {:?}, which is no model directory here; write the directory of the \
             base model there",
            base.display()
        ),
    })
}

impl Adapter {
    /// Whether `dir` holds an adapter and not a whole model.
    #[must_use]
    pub fn lies_in(dir: &Path) -> bool {
        dir.join(CONFIG_FILE).is_file()
    }

    /// Reads the adapter in `dir`, which PEFT or [`Adapter::write`] wrote, for a model of shape `config`.
    /// Numbers of any floating type become f32. Which layers are adapted the tensors say, so any way to write
    /// `target_modules` will do.
    ///
    /// # Errors
    /// [`LoadError`]: a file that cannot be read, an option that cannot be obeyed, or every tensor that does
    /// not fit the model.
    pub fn read(dir: &Path, config: &ModelConfig, device: Device) -> Result<Self, LoadError> {
        let peft = PeftConfig::read(dir)?;
        let path = dir.join(TENSORS_FILE);
        if !path.is_file() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(LoadError::Io { path, source });
        }
        let found = Tensor::read_safetensors(&path)
            .map_err(|e| LoadError::Weights { path, reason: e.to_string() })?;
        let (all, rank) = (linear_layers(config), peft.rank as i64);
        let fits = |layer: &str, half: &str, shape: &[i64]| {
            all.iter().any(|one| {
                let wanted = if half == A { [rank, one.inner] } else { [one.out, rank] };
                one.name == layer && shape == wanted
            })
        };
        let mut halves: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        let (mut parameters, mut misfits) = (Vec::new(), Vec::new());
        for (name, tensor) in found {
            match parse(&name).filter(|(layer, half)| fits(layer, half, &tensor.size())) {
                Some((layer, half)) => {
                    let tensor = tensor.to_kind(Kind::Float).to_device(device);
                    parameters.push((format!("{layer}{half}"), tensor));
                    halves.entry(layer).or_default().insert(half);
                }
                None => misfits.push(format!("{name} {:?}", tensor.size())),
            }
        }
        let single = halves.iter().filter(|(_, halves)| halves.len() < 2);
        misfits
            .extend(single.map(|(layer, _)| format!("{layer} has only one of its two matrices")));
        if parameters.is_empty() {
            misfits.push("it holds no tensors".to_owned());
        }
        if !misfits.is_empty() {
            return Err(LoadError::Adapter { dir: dir.to_path_buf(), misfits });
        }
        let layers: Vec<String> = halves.into_keys().collect();
        let settings = |targets| LoraSettings { rank: peft.rank, alpha: peft.alpha, targets };
        // What PEFT excluded in other ways than ours has to stay out when this is written again.
        let listed = peft.targets.map(settings).filter(|settings| {
            Self::targets(config, settings, peft.freeze_vision).as_ref() == Ok(&layers)
        });
        let settings = listed.unwrap_or_else(|| settings(layers));
        Ok(Self::new(settings, peft.freeze_vision, parameters))
    }

    /// Writes the adapter into `dir`, for PEFT to load beside the model in `base`; the paths written.
    ///
    /// # Errors
    /// The file that could not be written.
    pub fn write(&self, dir: &Path, base: &Path) -> anyhow::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
        let at = |path: &Path| format!("cannot write {}", path.display());
        let base = std::path::absolute(base).with_context(|| at(dir))?;
        let config = dir.join(CONFIG_FILE);
        let text = peft_config::text(&self.settings, self.freeze_vision, &base);
        std::fs::write(&config, text).with_context(|| at(&config))?;
        let tensors = dir.join(TENSORS_FILE);
        let named =
            self.parameters.iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor));
        write_tensors(named, &tensors)?;
        Ok(vec![config, tensors])
    }
}

/// Layer and half (A or B) of a tensor's name in the file. Older adapters name modules as the first releases
/// of the reference did.
fn parse(name: &str) -> Option<(String, &'static str)> {
    let name = name.strip_prefix(PREFIX)?;
    let half = [A, B].into_iter().find(|half| name.ends_with(half))?;
    Some((Scheme::canonical(name.strip_suffix(half)?), half))
}
