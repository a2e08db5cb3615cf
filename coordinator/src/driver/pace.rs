//! How fast the run goes, for people: tokens a second, time left, figures of the last step.

use std::collections::{BTreeMap, VecDeque};

use medevo_core::api::{Event, Input, Millis, View};
use medevo_types::messages::Report;

use super::Status;
use crate::run_dir::{born, host, now_ms};

/// Tokens are counted over this long.
const WINDOW: Millis = 15_000;
/// The time left is told from so many of the last steps.
const STEPS: usize = 20;

/// What the speed is told from.
#[derive(Debug)]
pub struct Pace {
    run: String,
    started_at: u64,
    host: String,
    born: u64,
    tokens: VecDeque<(Millis, u64)>,
    /// Stage that the commits below belong to: steps of different stages take different times.
    stage: String,
    commits: VecDeque<Millis>,
    now: Millis,
    figures: BTreeMap<String, f64>,
}

impl Pace {
    /// Starts counting.
    #[must_use]
    pub fn new(run: String) -> Self {
        Self {
            run,
            started_at: now_ms(),
            host: host(),
            born: born(std::process::id()).unwrap_or(0),
            tokens: VecDeque::new(),
            stage: String::new(),
            commits: VecDeque::new(),
            now: 0,
            figures: BTreeMap::new(),
        }
    }

    /// An input is about to be stepped.
    pub fn observe(&mut self, now: Millis, input: &Input) {
        self.now = now;
        if let Input::Report(envelope) = input
            && let Report::RolloutDone { groups, .. } = &envelope.body
        {
            let candidates = groups.iter().flat_map(|group| group.candidates.iter());
            self.count(candidates.map(|candidate| candidate.ids.len() as u64).sum());
        }
    }

    /// An event is on record.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::StepCommitted { stage, figures, .. } => {
                if *stage != self.stage {
                    self.stage.clone_from(stage);
                    self.commits.clear();
                }
                self.commits.push_back(self.now);
                if self.commits.len() > STEPS {
                    self.commits.pop_front();
                }
                self.figures.clone_from(figures);
                // A float's cast to an integer saturates, so a broken figure does no harm.
                self.count(figures.get("tokens").map_or(0, |tokens| *tokens as u64));
            }
            Event::RolledBack { .. } => self.commits.clear(),
            _ => {}
        }
    }

    /// The status of a view.
    #[must_use]
    pub fn status(&self, view: View, now: Millis) -> Status {
        let since = now.saturating_sub(WINDOW);
        let recent: u64 =
            self.tokens.iter().filter(|(at, _)| *at >= since).map(|(_, tokens)| tokens).sum();
        let span = now.min(WINDOW);
        let tokens_per_s = (recent > 0 && span > 0).then(|| recent as f64 * 1000.0 / span as f64);
        let left = view.total_steps.saturating_sub(view.step.0);
        let eta_s =
            self.step_ms().filter(|_| left > 0).map(|step_ms| step_ms * left as f64 / 1000.0);
        Status {
            run: self.run.clone(),
            view,
            pid: std::process::id(),
            host: self.host.clone(),
            born: self.born,
            started_at: self.started_at,
            updated_at: now_ms(),
            tokens_per_s,
            eta_s,
            figures: self.figures.clone(),
        }
    }

    /// Mean time of the last steps, milliseconds.
    fn step_ms(&self) -> Option<f64> {
        let (first, last) = (self.commits.front()?, self.commits.back()?);
        let steps = self.commits.len() - 1;
        (steps > 0).then(|| (last - first) as f64 / steps as f64)
    }

    fn count(&mut self, tokens: u64) {
        self.tokens.push_back((self.now, tokens));
        while self.tokens.front().is_some_and(|(at, _)| at + WINDOW < self.now) {
            self.tokens.pop_front();
        }
    }
}
