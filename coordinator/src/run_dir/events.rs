//! `events.jsonl`: everything that happened, in order. Status, report and metrics are views of it.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    json_lines::JsonLines,
    time::{now_ms, rfc3339_ms},
};

/// Events after which a reader may rely on the line: they are on disk before the run goes on.
const SYNCED: [&str; 6] =
    ["step_committed", "rolled_back", "checkpoint_published", "evaluated", "finished", "started"];

/// Writer of the event stream.
#[derive(Debug)]
pub struct EventLog {
    lines: JsonLines,
}

impl EventLog {
    /// Opens the stream for appending. What a crash left of a torn last line is cut off, and an event
    /// `torn_line_cut` says so in its place.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let lines = JsonLines::open(path)?;
        let cut = lines.cut();
        let mut log = Self { lines };
        if cut > 0 {
            tracing::warn!(bytes = cut, path = %path.display(), "cut a torn last line off the events");
            log.append(&serde_json::json!({"event": "torn_line_cut", "bytes": cut}))?;
        }
        Ok(log)
    }

    /// Appends an event (a value that serializes to an object with the field `event`) with the time in
    /// front. Commits, rollbacks, checkpoints, evaluations, starts and ends are synced.
    ///
    /// # Errors
    /// The event is no object with the field `event`, or the file cannot be written.
    pub fn append(&mut self, event: &impl Serialize) -> anyhow::Result<()> {
        let value = serde_json::to_value(event).context("an event cannot be encoded")?;
        let Value::Object(fields) = value else {
            anyhow::bail!("an event must be an object");
        };
        let name = fields.get("event").and_then(Value::as_str).unwrap_or_default().to_owned();
        anyhow::ensure!(!name.is_empty(), "an event must have the field `event`");
        let mut line = Map::with_capacity(fields.len() + 1);
        line.insert("time".into(), rfc3339_ms(now_ms()).into());
        line.extend(fields);
        self.lines.append(&line, SYNCED.contains(&name.as_str()))
    }
}
