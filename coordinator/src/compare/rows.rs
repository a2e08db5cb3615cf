//! Several runs as rows: runs that differ only in their seed are one row.

use std::path::Path;

use anyhow::Context;
use medevo_text::Interval;

use super::selection::Selection;
use crate::run_dir::{EvalKind, EvaluationRecord, RunDir};

/// Accuracy and recall on one data set, one entry a seed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// Share of correct answers.
    pub accuracy: Vec<Interval>,
    /// Token recall.
    pub recall: Vec<Interval>,
}

impl Score {
    fn push(&mut self, record: Option<&EvaluationRecord>) {
        if let Some(record) = record {
            self.accuracy.push(record.accuracy);
            self.recall.push(record.recall);
        }
    }
}

/// What one row shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// On the data that was adapted on.
    pub adapted: Score,
    /// On held-out data.
    pub held_out: Score,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// "base", "maj@16 of the base", or the runs' name without their seed.
    pub label: String,
    /// Its figures.
    pub figures: Figures,
    /// Seeds behind it that were counted.
    pub seeds: Vec<u64>,
}

/// One run with its evaluations.
struct Measured {
    name: String,
    seed: u64,
    selection: Selection,
    records: Vec<EvaluationRecord>,
}

/// The rows of a table over these runs: the base, the base's majority, then one row for all runs whose
/// names are equal but for a trailing `-s<seed>`, in the order given.
///
/// The base is the same for runs of one seed that start from the same weights; it is counted once.
///
/// # Errors
/// A directory holds no run, or its evaluations cannot be read.
pub fn rows<P: AsRef<Path>>(runs: &[P]) -> anyhow::Result<Vec<Row>> {
    let mut measured = Vec::with_capacity(runs.len());
    for path in runs {
        let run = RunDir::open(path.as_ref())?;
        let context = || format!("the run in {} cannot be compared", run.path().display());
        let config = run.config().with_context(context)?;
        measured.push(Measured {
            selection: Selection::of(&config),
            records: run.read_evaluations().with_context(context)?,
            name: config.run.name,
            seed: config.run.seed,
        });
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut bases: Vec<(u64, Vec<EvaluationRecord>)> = Vec::new();
    for run in &measured {
        let base: Vec<EvaluationRecord> = run
            .selection
            .data()
            .filter_map(|data| run.selection.before(&run.records, data, EvalKind::Greedy).cloned())
            .collect();
        let same = |(seed, other): &(u64, Vec<EvaluationRecord>)| {
            *seed == run.seed
                && other.len() == base.len()
                && other.iter().zip(&base).all(|(a, b)| a.rows == b.rows)
        };
        if base.is_empty() || bases.iter().any(same) {
            continue;
        }
        add(&mut rows, "base", run, |data| {
            run.selection.before(&run.records, data, EvalKind::Greedy)
        });
        let majority = |data: &str| run.selection.before(&run.records, data, EvalKind::Majority);
        if let Some(n) = run.selection.data().find_map(|data| majority(data)).map(|r| r.draws) {
            add(&mut rows, &format!("maj@{n} of the base"), run, majority);
        }
        bases.push((run.seed, base));
    }
    for run in &measured {
        let label = without_seed(&run.name).to_owned();
        add(&mut rows, &label, run, |data| {
            run.selection.after(&run.records, data, EvalKind::Greedy)
        });
    }
    // The base's rows come first even when a later run is the first to have a majority.
    rows.sort_by_key(|row| match row.label.as_str() {
        "base" => 0,
        label if label.ends_with(" of the base") => 1,
        _ => 2,
    });
    Ok(rows)
}

fn add<'a>(
    rows: &mut Vec<Row>,
    label: &str,
    run: &'a Measured,
    record: impl Fn(&str) -> Option<&'a EvaluationRecord>,
) {
    let at = rows.iter().position(|row| row.label == label).unwrap_or_else(|| {
        let label = label.to_owned();
        rows.push(Row { label, figures: Figures::default(), seeds: Vec::new() });
        rows.len() - 1
    });
    let row = &mut rows[at];
    // One data set of each kind has a column; a run names the one that matters first.
    row.figures.adapted.push(run.selection.adapted.first().and_then(|data| record(data)));
    row.figures.held_out.push(run.selection.held_out.first().and_then(|data| record(data)));
    row.seeds.push(run.seed);
}

/// A run's name without its trailing `-s<seed>`.
fn without_seed(name: &str) -> &str {
    match name.rsplit_once("-s") {
        Some((label, seed))
            if !label.is_empty()
                && !seed.is_empty()
                && seed.bytes().all(|b| b.is_ascii_digit()) =>
        {
            label
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::without_seed;

    #[test]
    fn only_a_trailing_seed_is_taken_off() {
        for (name, label) in [
            ("medevo-s1", "medevo"),
            ("medevo-s12", "medevo"),
            ("medevo", "medevo"),
            ("a-small", "a-small"),
            ("a-s1b", "a-s1b"),
            ("-s1", "-s1"),
            ("a-s", "a-s"),
        ] {
            assert_eq!(without_seed(name), label);
        }
    }
}
