//! How good each checkpoint is, by the figure that the run file names. A view of the event stream: it decides which
//! checkpoints are kept, and nothing else.

use std::collections::BTreeMap;

use medevo_common::config::CheckpointSection;
use medevo_core::api::Event;
use medevo_types::Step;

use crate::run_dir::{EvalKind, EvaluationRecord, RunDir, read_lines};

/// Scores by step.
#[derive(Clone, Debug)]
pub struct Scores {
    by: By,
    values: BTreeMap<Step, f64>,
    /// Of the figure, since the last checkpoint, within `stage`.
    sum: f64,
    count: f64,
    stage: String,
}

#[derive(Clone, Debug)]
enum By {
    /// A figure of the steps: its mean since the checkpoint before.
    Figure(String),
    /// Accuracy of greedy answers on a data set, after that very step.
    Accuracy(String),
}

impl Scores {
    /// No scores yet.
    #[must_use]
    pub fn new(section: &CheckpointSection) -> Self {
        let by = match section.best_by_data() {
            Some(data) => By::Accuracy(data.to_owned()),
            None => By::Figure(section.best_by.clone()),
        };
        Self { by, values: BTreeMap::new(), sum: 0.0, count: 0.0, stage: String::new() }
    }

    /// The scores that a run has so far.
    ///
    /// # Errors
    /// Its events or evaluations cannot be read.
    pub fn read(section: &CheckpointSection, run_dir: &RunDir) -> anyhow::Result<Self> {
        let mut scores = Self::new(section);
        for line in read_lines(&run_dir.events_file())? {
            // Damaged lines, and events that are not the core's, have no scores in them.
            let Some(event) = line.ok().and_then(|line| serde_json::from_value(line).ok()) else {
                continue;
            };
            scores.event(&event);
            match event {
                Event::CheckpointPublished { step, .. } => scores.published(step),
                Event::RolledBack { to, .. } => scores.roll_back(to),
                _ => {}
            }
        }
        for record in run_dir.read_evaluations()? {
            scores.evaluated(&record);
        }
        Ok(scores)
    }

    /// A step is committed.
    pub fn event(&mut self, event: &Event) {
        let (Event::StepCommitted { stage, figures, .. }, By::Figure(name)) = (event, &self.by)
        else {
            return;
        };
        if *stage != self.stage {
            self.stage.clone_from(stage);
            (self.sum, self.count) = (0.0, 0.0);
        }
        if let Some(value) = figures.get(name) {
            self.sum += value;
            self.count += 1.0;
        }
    }

    /// An evaluation pass is measured.
    pub fn evaluated(&mut self, record: &EvaluationRecord) {
        if let By::Accuracy(data) = &self.by
            && record.data == *data
            && record.kind == EvalKind::Greedy
        {
            self.values.insert(Step(record.step), record.accuracy.mean);
        }
    }

    /// A checkpoint is published: the steps since the one before are its own.
    pub fn published(&mut self, step: Step) {
        if matches!(self.by, By::Figure(_)) && self.count > 0.0 {
            self.values.insert(step, self.sum / self.count);
        }
        (self.sum, self.count) = (0.0, 0.0);
    }

    /// Steps after `to` no longer stand.
    pub fn roll_back(&mut self, to: Step) {
        self.values.retain(|step, _| *step <= to);
        (self.sum, self.count) = (0.0, 0.0);
    }

    /// By step.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<Step, f64> {
        &self.values
    }

    /// What they are, for people ("reward_mean", "accuracy on target").
    #[must_use]
    pub fn name(&self) -> String {
        match &self.by {
            By::Figure(name) => name.clone(),
            By::Accuracy(data) => format!("accuracy on {data}"),
        }
    }
}
