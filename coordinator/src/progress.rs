//! The progress of a run while it works: one line that is redrawn on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::run_dir::{Status, human_duration};

/// A terminal's line is redrawn no more often than this.
const REDRAW: Duration = Duration::from_millis(200);

/// Plain lines come no more often than this, unless the stage or the phase of the run's life changes.
const PLAIN: Duration = Duration::from_secs(5);

/// Shows [`Status`] values as they come.
pub struct Progress<W: Write> {
    out: W,
    width: Option<usize>,
    shown: Option<Instant>,
    step: u64,
    stage: String,
    drawn: bool,
}

impl Progress<std::io::Stdout> {
    /// Progress on standard output. The width of the terminal comes from COLUMNS where the shell exports
    /// it, else it is taken for 100.
    #[must_use]
    pub fn stdout() -> Self {
        let out = std::io::stdout();
        let width = out.is_terminal().then(|| {
            let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
            columns.unwrap_or(100).max(20)
        });
        Self::new(out, width)
    }
}

impl<W: Write> Progress<W> {
    /// Progress on `out`: a redrawn line of at most `width` characters, or plain lines without a width.
    pub fn new(out: W, width: Option<usize>) -> Self {
        Self { out, width, shown: None, step: 0, stage: String::new(), drawn: false }
    }

    /// Shows this status, if it is time to.
    pub fn show(&mut self, status: &Status) {
        self.show_at(status, Instant::now());
    }

    /// Shows this status at a time that the caller names. What cannot be written is dropped: a closed terminal is no
    /// reason to stop a run.
    pub fn show_at(&mut self, status: &Status, now: Instant) {
        let since = self.shown.map_or(Duration::MAX, |shown| now.saturating_duration_since(shown));
        let news = status.view.stage != self.stage;
        let due = match self.width {
            Some(_) => since >= REDRAW,
            // Without news a quiet run still says every few seconds what it waits for.
            None => {
                news || since >= PLAIN && (status.view.step.0 != self.step || since >= 6 * PLAIN)
            }
        };
        if !due {
            return;
        }
        let line = line(status);
        let _ = match self.width {
            Some(width) => {
                let cut: String = line.chars().take(width.saturating_sub(1)).collect();
                // Back to the line's start, draw, clear what an older, longer line left.
                write!(self.out, "\r{cut}\x1b[K")
            }
            None => writeln!(self.out, "{line}"),
        };
        let _ = self.out.flush();
        self.drawn = self.width.is_some();
        self.shown = Some(now);
        self.step = status.view.step.0;
        self.stage.clone_from(&status.view.stage);
    }

    /// Takes the redrawn line away, so that what is printed next starts on a clean line.
    pub fn finish(&mut self) {
        if self.drawn {
            let _ = write!(self.out, "\r\x1b[K");
            let _ = self.out.flush();
            self.drawn = false;
        }
    }
}

/// "adapt  step 41/150  rollout  reward 0.532  label share 0.61  812 tokens/s  2 min 10 s left".
#[must_use]
pub fn line(status: &Status) -> String {
    let view = &status.view;
    // When nothing has been done yet, the sentence on what the run waits for is the progress.
    let waiting = status.figures.is_empty() && !view.explain.is_empty();
    let doing = if waiting { &view.explain } else { &view.phase };
    let mut parts = vec![format!("step {}/{}", view.step, view.total_steps), doing.clone()];
    if !view.stage.is_empty() {
        parts.insert(0, view.stage.clone());
    }
    // A supervised stage has no reward; its loss says how it goes.
    for (name, label, instead_of) in [
        ("reward_mean", "reward", None),
        ("cluster_share", "label share", None),
        ("loss", "loss", Some("reward_mean")),
    ] {
        let hidden = instead_of.is_some_and(|other| status.figures.contains_key(other));
        if let Some(value) = status.figures.get(name).filter(|_| !hidden) {
            parts.push(format!("{label} {value:.3}"));
        }
    }
    if let Some(rate) = status.tokens_per_s {
        parts.push(format!("{rate:.0} tokens/s"));
    }
    if let Some(left) = status.eta_s {
        parts.push(format!("{} left", human_duration(left)));
    }
    parts.join("  ")
}
