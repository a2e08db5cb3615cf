//! `optimizer.safetensors`: moments (and f32 masters) by parameter name, step count as metadata.

use std::{borrow::Cow, collections::HashMap, path::Path};

use anyhow::{Context, bail, ensure};
use safetensors::{Dtype, SafeTensors, View};
use tch::{Device, Kind, Tensor};

use crate::{adamw::Moments, state::State};

/// Name of the file in a checkpoint.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";

const FIRST: &str = "exp_avg";
const SECOND: &str = "exp_avg_sq";
const MASTER: &str = "master";
const STEPS: &str = "steps";

/// A flat f32 tensor's part, as bytes for the file.
struct Part {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Part {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes the state's moments, and masters where it has them, into `dir`.
pub(crate) fn write(state: &State, dir: &Path) -> anyhow::Result<()> {
    let mut parts = Vec::new();
    let mut add = |prefix: &str, whole: &Tensor| {
        for slot in &state.slots {
            let (name, weight) = state.parameter(slot);
            let part = whole.narrow(0, slot.offset, slot.length).to_device(Device::Cpu);
            let mut bytes = vec![0u8; slot.length as usize * 4];
            part.contiguous().copy_data_u8(&mut bytes, slot.length as usize);
            let shape = weight.size().iter().map(|n| *n as usize).collect();
            parts.push((format!("{prefix}.{name}"), Part { shape, bytes }));
        }
    };
    if let Some(moments) = &state.moments {
        add(FIRST, &moments.first);
        add(SECOND, &moments.second);
    }
    if let Some(master) = &state.master {
        add(MASTER, master);
    }
    let steps = state.moments.as_ref().map_or(0, |moments| moments.steps);
    let metadata = HashMap::from([
        ("format".to_owned(), "pt".to_owned()),
        (STEPS.to_owned(), steps.to_string()),
    ]);
    let path = dir.join(OPTIMIZER_FILE);
    safetensors::serialize_to_file(parts, Some(metadata), &path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Moments and masters as read from a file.
pub(crate) struct Restored {
    pub moments: Option<Moments>,
    pub master: Option<Tensor>,
}

/// Reads what [`write`] wrote, for a state with the same trained parameters. Changes nothing.
pub(crate) fn read(state: &State, dir: &Path) -> anyhow::Result<Restored> {
    let path = dir.join(OPTIMIZER_FILE);
    let at = || format!("cannot restore the optimizer from {}", path.display());
    let bytes = std::fs::read(&path).with_context(at)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).with_context(at)?;
    let steps: u64 = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(STEPS))
        .and_then(|steps| steps.parse().ok())
        .context("its metadata has no step count")
        .with_context(at)?;
    let file = SafeTensors::deserialize(&bytes).with_context(at)?;
    let has =
        |prefix: &str| file.names().iter().any(|name| name.starts_with(&format!("{prefix}.")));
    let collect = |prefix: &str| -> anyhow::Result<Tensor> {
        let whole = Tensor::zeros([state.length], (Kind::Float, state.device()));
        for slot in &state.slots {
            let (name, weight) = state.parameter(slot);
            let name = format!("{prefix}.{name}");
            let view = file.tensor(&name).with_context(|| {
                format!("no tensor {name}: were model.freeze_vision or [lora] changed since it was written?")
            })?;
            let shape: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
            ensure!(view.dtype() == Dtype::F32, "tensor {name} is not f32");
            ensure!(
                shape == weight.size(),
                "tensor {name} has shape {shape:?}, the weight {:?}",
                weight.size()
            );
            let part = Tensor::f_from_data_size(view.data(), &[slot.length], Kind::Float)?;
            whole.narrow(0, slot.offset, slot.length).copy_(&part);
        }
        Ok(whole)
    };
    let moments = match (steps, has(FIRST)) {
        (0, false) => None,
        (_, true) => Some(Moments {
            first: collect(FIRST).with_context(at)?,
            second: collect(SECOND).with_context(at)?,
            steps,
        }),
        (_, false) => bail!("{}: it counts {steps} steps but holds no moments", at()),
    };
    let master = if has(MASTER) { Some(collect(MASTER).with_context(at)?) } else { None };
    Ok(Restored { moments, master })
}
