//! The kill matrix: every victim in every phase, each several times.

use std::{panic::AssertUnwindSafe, path::Path, time::Duration};

use serde_json::{Value, json};

use super::kill::{Cost, Phase, Victim, kill, undisturbed};
use crate::lab::Lab;

/// Kills that found no victim, because the others had done the phase's work, before a cell gives up.
const MISSES: usize = 5;

/// A victim in a phase.
#[derive(Debug)]
pub struct Cell {
    /// Who was killed.
    pub victim: Victim,
    /// When.
    pub phase: Phase,
    /// How often.
    pub runs: usize,
    /// What each survived kill cost.
    pub costs: Vec<Cost>,
}

impl Cell {
    /// Median and longest time from the kill to the next committed step.
    fn recovery(&self) -> Option<(Duration, Duration)> {
        let mut all: Vec<Duration> = self.costs.iter().map(|cost| cost.recovery).collect();
        all.sort();
        let (low, high) = (all.get((all.len().checked_sub(1)?) / 2)?, all.get(all.len() / 2)?);
        Some(((*low + *high) / 2, *all.last()?))
    }

    fn most(&self, figure: impl Fn(&Cost) -> u64) -> u64 {
        self.costs.iter().map(figure).max().unwrap_or(0)
    }

    /// An entry of `kill-matrix.json`. Lost candidates and redone steps are the most of any run.
    #[must_use]
    pub fn json(&self) -> Value {
        let seconds = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
        let recovery = self.recovery();
        json!({
            "victim": self.victim.name(),
            "phase": self.phase.name(),
            "runs": self.runs,
            "survived": self.costs.len(),
            "recovery_s_median": recovery.map(|(median, _)| seconds(median)),
            "recovery_s_max": recovery.map(|(_, max)| seconds(max)),
            "candidates_lost": self.most(|cost| cost.candidates_lost),
            "steps_redone": self.most(|cost| cost.steps_redone),
        })
    }

    fn row(&self) -> String {
        let (median, max) =
            self.recovery().map_or(("–".to_owned(), "–".to_owned()), |(a, b)| {
                (format!("{:.1}", a.as_secs_f64()), format!("{:.1}", b.as_secs_f64()))
            });
        format!(
            "| {} | {} | {}/{} | {median} | {max} | {} | {} |",
            self.victim.name(),
            self.phase.name(),
            self.costs.len(),
            self.runs,
            self.most(|cost| cost.candidates_lost),
            self.most(|cost| cost.steps_redone),
        )
    }
}

/// Kills `runs` times in each of `cells`; a run that does not survive is printed and counted.
///
/// # Panics
/// When the run that nobody is killed in fails.
#[must_use]
pub fn measure(cells: &[(Victim, Phase)], runs: usize) -> Vec<Cell> {
    let lab = Lab::new();
    let whole = undisturbed(&lab);
    let mut measured = Vec::new();
    for &(victim, phase) in cells {
        let mut cell = Cell { victim, phase, runs, costs: Vec::new() };
        for run in 0..runs {
            let mut misses = 0;
            // What a panic leaves behind is a folder of its own and killed processes.
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
                loop {
                    let place = format!("{}-{}-{run}-{misses}", victim.name(), phase.name());
                    let place = place.replace([' ', ','], "-");
                    if let Some(cost) = kill(&lab, &place, victim, phase, &whole) {
                        return cost;
                    }
                    misses += 1;
                    assert!(misses < MISSES, "the victim never took part in the phase");
                }
            }));
            match outcome {
                Ok(cost) => cell.costs.push(cost),
                Err(_) => println!("NOT SURVIVED: {} while {}", victim.name(), phase.name()),
            }
        }
        println!("{}", cell.row());
        measured.push(cell);
    }
    measured
}

/// The matrix as a table.
#[must_use]
pub fn table(cells: &[Cell]) -> String {
    let head = "| victim | phase | survived | recovery s, median | longest | candidates lost | steps redone |\n\
                |---|---|---|---|---|---|---|";
    let rows: Vec<String> = cells.iter().map(Cell::row).collect();
    format!("{head}\n{}", rows.join("\n"))
}

/// Writes `kill-matrix.json`.
///
/// # Panics
/// When it cannot be written.
pub fn write(cells: &[Cell], path: &Path) {
    let list: Vec<Value> = cells.iter().map(Cell::json).collect();
    let text = serde_json::to_string_pretty(&list).expect("a list of plain values") + "\n";
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
}
