//! The event stream folded into what the report tells: the steps that stand, and what went wrong.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use crate::run_dir::{parse_rfc3339_ms, read_lines};

/// A committed step that still stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Commit {
    /// Which step of the run.
    pub step: u64,
    /// Name of the stage.
    pub stage: String,
    /// Figures by name, the learning rate (`lr`) and the groups that trained (`trained`) among them.
    pub figures: BTreeMap<String, f64>,
    /// Milliseconds by phase.
    pub millis: BTreeMap<String, u64>,
}

/// Something that a reader should know of.
#[derive(Clone, Debug)]
pub(super) struct Note {
    /// When, as the event says.
    pub time: String,
    /// What.
    pub text: String,
}

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    /// First event, milliseconds since 1970.
    pub first_ms: Option<u64>,
    /// Last event.
    pub last_ms: Option<u64>,
    /// Steps that stand, in order.
    pub commits: Vec<Commit>,
    /// Events of note, in order.
    pub notes: Vec<Note>,
    /// How the run ended: "done", or a sentence.
    pub outcome: Option<String>,
    /// Stage that began last.
    pub stage: Option<String>,
    /// Devices of the workers, by worker.
    pub workers: BTreeMap<String, String>,
    /// Units of rollout work that were handed out again.
    pub reissued: u64,
    /// Reports that were turned away, by reason.
    pub rejected: BTreeMap<String, u64>,
}

impl Story {
    /// Reads the event stream. Lines that cannot be read are counted in a note: a report that stops at
    /// damage would hide the rest.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut story = Self::default();
        let mut damaged = 0_u64;
        for line in read_lines(path)? {
            match line {
                Ok(event) => story.take(&event),
                Err(_) => damaged += 1,
            }
        }
        if damaged > 0 {
            story.note("", format!("{damaged} lines of the event stream cannot be read"));
        }
        Ok(story)
    }

    fn note(&mut self, time: &str, text: String) {
        self.notes.push(Note { time: time.to_owned(), text });
    }

    fn take(&mut self, event: &Value) {
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
        let number = |key: &str| event.get(key).and_then(Value::as_u64).unwrap_or_default();
        let time = text("time");
        if let Some(ms) = parse_rfc3339_ms(time) {
            self.first_ms.get_or_insert(ms);
            self.last_ms = Some(ms);
        }
        match text("event") {
            "started" if number("term") > 1 => {
                self.outcome = None;
                self.note(
                    time,
                    format!(
                        "the coordinator started again (term {}) after step {}",
                        number("term"),
                        number("step")
                    ),
                );
            }
            "worker_joined" => {
                self.workers.insert(text("worker").to_owned(), text("device").to_owned());
            }
            // Workers that leave once all is over are no news.
            "worker_lost" if self.outcome.is_none() => {
                self.note(time, format!("worker {} was lost: {}", text("worker"), text("reason")));
            }
            "stage_started" => self.stage = Some(text("stage").to_owned()),
            "step_committed" => self.commit(event),
            "rolled_back" => {
                let to = number("to");
                self.commits.retain(|c| c.step <= to);
                self.note(
                    time,
                    format!(
                        "rolled back from step {} to step {to}: {}",
                        number("from"),
                        text("reason")
                    ),
                );
            }
            "attempt_voided" => self.note(
                time,
                format!(
                    "attempt {} at step {} came to nothing: {}",
                    number("attempt"),
                    number("step"),
                    text("reason")
                ),
            ),
            "unit_reissued" => self.reissued += 1,
            "rejected" => *self.rejected.entry(text("reason").to_owned()).or_default() += 1,
            "checkpoint_failed" => self.note(
                time,
                format!(
                    "the checkpoint after step {} could not be written: {}",
                    number("step"),
                    text("error")
                ),
            ),
            "checkpoint_copy_failed" => self.note(
                time,
                format!(
                    "the checkpoint after step {} was not copied to {}: {}",
                    number("step"),
                    text("url"),
                    text("error")
                ),
            ),
            "checkpoint_passed_over" | "checkpoint_fetched" => {
                self.note(time, text("reason").to_owned());
            }
            "torn_line_cut" => {
                self.note(
                    time,
                    "a crash had torn the last line of the event stream; it was cut off".into(),
                );
            }
            "started_on" => self.note(
                time,
                format!(
                    "{} job {} on {}, restart {}",
                    text("scheduler"),
                    text("job"),
                    text("nodes"),
                    number("restart")
                ),
            ),
            "finished" => self.finished(event, time),
            _ => {}
        }
    }

    fn commit(&mut self, event: &Value) {
        let number = |key: &str| event.get(key).and_then(Value::as_u64).unwrap_or_default();
        let mut commit = Commit {
            step: number("step"),
            stage: event.get("stage").and_then(Value::as_str).unwrap_or_default().to_owned(),
            ..Commit::default()
        };
        let figures = event.get("figures").and_then(Value::as_object).into_iter().flatten();
        commit.figures.extend(figures.filter_map(|(k, v)| Some((k.clone(), v.as_f64()?))));
        for key in ["lr", "trained"] {
            if let Some(value) = event.get(key).and_then(Value::as_f64) {
                commit.figures.insert(key.to_owned(), value);
            }
        }
        let millis = event.get("millis").and_then(Value::as_object).into_iter().flatten();
        commit.millis.extend(millis.filter_map(|(k, v)| Some((k.clone(), v.as_u64()?))));
        // A coordinator that comes back may write a commit a second time; the later one stands.
        self.commits.retain(|c| c.step < commit.step);
        self.commits.push(commit);
    }

    /// `finished` carries an outcome: `Done`, or `Drained`, `Stopped` or `Failed` with a reason.
    fn finished(&mut self, event: &Value, time: &str) {
        let reason = |key: &str| Some(event.get(key)?.get("reason")?.as_str()?.to_owned());
        let told =
            [("Failed", "failed"), ("Drained", "stopped on purpose"), ("Stopped", "stopped")];
        let told = told.iter().find_map(|(key, words)| Some(format!("{words}: {}", reason(key)?)));
        let outcome = told.unwrap_or_else(|| "done".to_owned());
        if outcome != "done" {
            self.note(time, format!("the run {outcome}"));
        }
        self.outcome = Some(outcome);
    }

    /// Milliseconds by phase over all steps that stand, the longest first.
    pub fn phases(&self) -> Vec<(String, u64)> {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for (phase, ms) in self.commits.iter().flat_map(|c| &c.millis) {
            *sums.entry(phase.clone()).or_default() += ms;
        }
        let mut phases: Vec<_> = sums.into_iter().collect();
        phases.sort_by_key(|(_, ms)| std::cmp::Reverse(*ms));
        phases
    }
}
