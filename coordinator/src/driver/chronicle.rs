//! Where people read what happens: event stream, samples, evaluations and status of the run directory.

use std::path::PathBuf;

use medevo_core::api::Event;

use super::{Status, effects::Evaluation};
use crate::run_dir::{EventLog, RunDir, SampleLog, SampleRecord};

/// The run directory's writers.
#[derive(Debug)]
pub struct Chronicle {
    events: EventLog,
    samples: SampleLog,
    evaluations: PathBuf,
    status: PathBuf,
}

impl Chronicle {
    /// Opens the writers; what a crash left torn is cut off.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn open(run_dir: &RunDir) -> anyhow::Result<Self> {
        Ok(Self {
            events: run_dir.event_log()?,
            samples: run_dir.sample_log()?,
            evaluations: run_dir.evaluations(),
            status: run_dir.status_file(),
        })
    }

    /// Appends an event of the core.
    pub(super) fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        self.events.append(event)
    }

    /// Appends an event of the driver's own.
    pub(crate) fn news(&mut self, event: &serde_json::Value) -> anyhow::Result<()> {
        self.events.append(event)
    }

    /// Appends an event of the driver's own: a name and a sentence.
    pub(super) fn note(&mut self, name: &str, sentence: &str) -> anyhow::Result<()> {
        self.events.append(&serde_json::json!({ "event": name, "reason": sentence }))
    }

    /// Writes an evaluation's file.
    pub(super) fn evaluation(&mut self, evaluation: &Evaluation) -> anyhow::Result<()> {
        evaluation.record.write(&self.evaluations, evaluation.during_training).map(drop)
    }

    /// Appends the event of an evaluation whose file is written.
    pub(super) fn evaluated(&mut self, evaluation: &Evaluation) -> anyhow::Result<()> {
        self.events.append(&evaluation.record.event())
    }

    /// Appends scored groups.
    pub(super) fn samples(&mut self, samples: &[SampleRecord]) -> anyhow::Result<()> {
        self.samples.append(samples)
    }

    /// Replaces the status.
    pub(super) fn status(&mut self, status: &Status) -> anyhow::Result<()> {
        status.write(&self.status)
    }
}
