//! The trained tensors of an adapter.

use medevo_types::settings::LoraSettings;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tch::{Device, Kind, Tensor};

use super::targets::targeted;
use crate::config::ModelConfig;
use crate::layer::LowRank;

pub(super) const A: &str = ".lora_A.weight";
pub(super) const B: &str = ".lora_B.weight";

/// The random streams of adapters begin here; those of whole models lie far below, so that a model and an
/// adapter of one seed share no numbers.
const STREAMS: u64 = 1 << 32;

/// Matrices A `[rank, in]` and B `[out, rank]` of each adapted layer, f32 whatever the model's type (as
/// PEFT's `autocast_adapter_dtype` has it): `y = W x + b + (alpha / rank) · B (A x)`.
#[derive(Debug)]
pub struct Adapter {
    /// Rank, scale and targets.
    pub settings: LoraSettings,
    /// The vision tower is left out, whatever the targets say.
    pub freeze_vision: bool,
    /// By name (`<layer>.lora_A.weight`, `<layer>.lora_B.weight`), sorted.
    pub(crate) parameters: Vec<(String, Tensor)>,
}

impl Adapter {
    /// A fresh adapter, which changes nothing yet: A uniform within ±1/√in (`kaiming_uniform_` with a = √5,
    /// PEFT's default), B zero. A seed gives the same numbers on every machine.
    ///
    /// # Errors
    /// A sentence about targets that mean no layer of this model.
    pub fn draw(
        config: &ModelConfig,
        settings: &LoraSettings,
        freeze_vision: bool,
        seed: u64,
        device: Device,
    ) -> Result<Self, String> {
        let rank = i64::try_from(settings.rank).map_err(|_| "lora.rank is too large".to_owned())?;
        let mut parameters = Vec::new();
        for (number, layer) in targeted(config, settings, freeze_vision)?.iter().enumerate() {
            let a = uniform(rank, layer.inner, seed, STREAMS + number as u64).to_device(device);
            let b = Tensor::zeros([layer.out, rank], (Kind::Float, device));
            parameters.push((format!("{}{A}", layer.name), a));
            parameters.push((format!("{}{B}", layer.name), b));
        }
        Ok(Self::new(settings.clone(), freeze_vision, parameters))
    }

    /// Names of the layers that these settings mean, sorted.
    ///
    /// # Errors
    /// A sentence about targets that mean no layer of this model.
    pub fn targets(
        config: &ModelConfig,
        settings: &LoraSettings,
        freeze_vision: bool,
    ) -> Result<Vec<String>, String> {
        let layers = targeted(config, settings, freeze_vision)?;
        Ok(layers.into_iter().map(|layer| layer.name).collect())
    }

    pub(super) fn new(
        settings: LoraSettings,
        freeze_vision: bool,
        mut parameters: Vec<(String, Tensor)>,
    ) -> Self {
        parameters.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (_, tensor) in &parameters {
            let _ = tensor.set_requires_grad(true);
        }
        Self { settings, freeze_vision, parameters }
    }

    /// Whether a run with these settings would have made this adapter: same scale, same layers.
    ///
    /// # Errors
    /// A sentence that says what differs.
    pub fn expect(
        &self,
        config: &ModelConfig,
        settings: &LoraSettings,
        freeze_vision: bool,
    ) -> Result<(), String> {
        let (own, run) = (&self.settings, settings);
        if (own.rank, own.alpha) != (run.rank, run.alpha) {
            return Err(format!(
                "it has rank {} and alpha {}, the run's [lora] rank {} and alpha {}; they must be equal",
                own.rank, own.alpha, run.rank, run.alpha
            ));
        }
        let wanted = Self::targets(config, settings, freeze_vision)?;
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let held: Vec<&str> = self.layers().map(|(name, _)| name).collect();
        let other =
            |a: &[&str], b: &[&str]| a.iter().find(|n| !b.contains(n)).map(|n| (*n).to_owned());
        if let Some(name) = other(&wanted, &held) {
            return Err(format!("it leaves out {name}, which the run's lora.targets mean"));
        }
        if let Some(name) = other(&held, &wanted) {
            return Err(format!("it adapts {name}, which the run's lora.targets leave out"));
        }
        Ok(())
    }

    /// What stands before B (A x).
    fn scale(&self) -> f64 {
        self.settings.alpha / self.settings.rank as f64
    }

    /// The adapted layers by name, sorted, with their terms; tensors are shared.
    pub(crate) fn layers(&self) -> impl Iterator<Item = (&str, LowRank)> {
        self.parameters.chunks_exact(2).map(|pair| {
            let name = pair[0].0.strip_suffix(A).expect("A comes before B, layer by layer");
            (name, LowRank::new(&pair[0].1, &pair[1].1, self.scale()))
        })
    }
}

/// `[rows, width]` numbers in [-1/√width, 1/√width).
fn uniform(rows: i64, width: i64, seed: u64, stream: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let bound = 1.0 / (width as f64).sqrt();
    let mut number = || {
        let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (bound * (2.0 * unit - 1.0)) as f32
    };
    let numbers: Vec<f32> = (0..rows * width).map(|_| number()).collect();
    Tensor::from_slice(&numbers).view([rows, width])
}
