//! Whether it fits, and if not, what to change.

use medevo_memory::{Advice, Estimate, advice};
use serde::Serialize;

use super::{Device, StepTokens, Workload, gibibytes};

/// What `plan` says, and `launch` when it refuses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Numbers of the model.
    pub parameters: u64,
    /// Workers of the run.
    pub workers: u64,
    /// What each worker needs.
    pub estimate: Estimate,
    /// The most that it needs at a time, bytes.
    pub peak: u64,
    /// What its device has, bytes; none where that is not known.
    pub memory: Option<u64>,
    /// Changes that save memory; none are looked for while it fits.
    pub advice: Vec<Advice>,
    /// Changes that are enough together.
    pub together: Option<Vec<String>>,
    /// Tokens of a step of each training stage.
    pub steps: Vec<StepTokens>,
}

impl Verdict {
    /// On a workload and the device that it is for.
    #[must_use]
    pub fn new(workload: &Workload, device: Option<Device>) -> Self {
        let Workload { shape, job, steps } = workload;
        let estimate = Estimate::new(shape, job);
        let peak = estimate.peak();
        let memory = device.map(|device| device.memory);
        let (advice, together) = match memory {
            Some(memory) if peak > memory => advice(shape, job, memory),
            _ => (Vec::new(), None),
        };
        Self {
            parameters: shape.parameters(),
            workers: job.workers,
            peak,
            memory,
            advice,
            together,
            steps: steps.clone(),
            estimate,
        }
    }

    /// Whether it fits; a device that is not known is not held against the run.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.memory.is_none_or(|memory| self.peak <= memory)
    }

    /// The verdict in a sentence or a few: what `plan` ends with and `launch` refuses with.
    #[must_use]
    pub fn sentences(&self) -> String {
        let Some(memory) = self.memory else {
            return format!(
                "needs {} on each worker; say what a device has with --device-memory or \
                 cluster.device_memory_gib",
                gibibytes(self.peak)
            );
        };
        let has = gibibytes(memory);
        if self.fits() {
            return format!("fits in {has} with {} to spare", gibibytes(memory - self.peak));
        }
        let phase = self.estimate.widest().map_or("all the time", |phase| phase.name);
        let mut text = format!(
            "does not fit: a worker needs {} (in its {phase} phase) and has {has}",
            gibibytes(self.peak)
        );
        if let Some(largest) = self.estimate.largest() {
            let bytes = gibibytes(largest.bytes);
            text.push_str(&format!("; the largest part is {} ({bytes})", largest.name));
        }
        for advice in &self.advice {
            let enough = if advice.enough { ", enough" } else { "" };
            let saves = gibibytes(advice.saves);
            text.push_str(&format!("\n  {}  (-{saves}{enough})", advice.change));
        }
        match &self.together {
            Some(changes) => {
                text.push_str(&format!("\nThis would be enough: {}", changes.join(", ")));
            }
            None => text.push_str("\nAll of that together is not enough: take a smaller model"),
        }
        text
    }
}
