//! Before against after: tables with intervals, and the paired difference.

use std::{collections::BTreeMap, fmt::Write};

use medevo_text::{Interval, paired_bootstrap, win_tie_loss};

use super::html::{escape, percent, points};
use crate::{
    compare::Selection,
    run_dir::{EvalKind, EvaluationRecord, Part},
};

/// Resamples of the paired bootstrap, and its seed: the same report comes out every time.
const RESAMPLES: usize = 2000;
const SEED: u64 = 0;

/// Before and after on one data set.
pub(super) struct Pair<'a> {
    /// Name of the data set.
    pub data: &'a str,
    /// Whether the run adapted on it.
    pub adapted: bool,
    /// Greedy answers before.
    pub before: Option<&'a EvaluationRecord>,
    /// The majority of the base's answers.
    pub majority: Option<&'a EvaluationRecord>,
    /// Greedy answers after.
    pub after: Option<&'a EvaluationRecord>,
}

impl<'a> Pair<'a> {
    /// The pairs of a run, adapted data first.
    pub fn all(selection: &'a Selection, records: &'a [EvaluationRecord]) -> Vec<Self> {
        selection
            .data()
            .map(|data| Self {
                data,
                adapted: selection.adapted.contains(data),
                before: selection.before(records, data, EvalKind::Greedy),
                majority: selection.before(records, data, EvalKind::Majority),
                after: selection.after(records, data, EvalKind::Greedy),
            })
            .filter(|pair| pair.before.is_some() || pair.after.is_some())
            .collect()
    }

    /// Scores of the questions that both passes answered, before and after.
    fn paired(&self, score: fn(&crate::run_dir::EvalRow) -> f64) -> Option<(Vec<f64>, Vec<f64>)> {
        let (before, after) = (self.before?, self.after?);
        let old: BTreeMap<&str, f64> =
            before.rows.iter().map(|row| (row.sample.as_str(), score(row))).collect();
        let both: Vec<(f64, f64)> = after
            .rows
            .iter()
            .filter_map(|row| Some((*old.get(row.sample.as_str())?, score(row))))
            .collect();
        (!both.is_empty()).then(|| both.into_iter().unzip())
    }

    /// Difference in accuracy, after − before, paired by question.
    pub fn gain(&self) -> Option<Interval> {
        let (before, after) = self.paired(|row| f64::from(u8::from(row.correct)))?;
        Some(paired_bootstrap(&before, &after, RESAMPLES, SEED))
    }

    fn recall_gain(&self) -> Option<Interval> {
        let (before, after) = self.paired(|row| row.recall)?;
        Some(paired_bootstrap(&before, &after, RESAMPLES, SEED))
    }

    /// "adapted on" or "held out".
    pub fn role(&self) -> &'static str {
        if self.adapted { "adapted on, without labels" } else { "held out" }
    }
}

/// The section's tables.
pub(super) fn accuracy(pairs: &[Pair<'_>]) -> String {
    let mut page = String::new();
    for pair in pairs {
        let protocol = pair
            .before
            .or(pair.after)
            .map_or_else(String::new, |r| r.protocol.name().replace('_', " "));
        let _ = write!(
            page,
            "<h3><code>{}</code> <small>{} · protocol: {}</small></h3><div class=\"scroll\"><table>\
             <thead><tr><th></th><th>n</th><th>accuracy</th><th></th><th>recall</th><th>F1</th>\
             <th>closed</th><th>open</th><th>words</th></tr></thead><tbody>",
            escape(pair.data),
            pair.role(),
            escape(&protocol)
        );
        let majority = pair.majority.map(|r| format!("maj@{} of the base", r.draws));
        let after = match pair.after {
            Some(r) => format!("after step {}", r.step),
            None => "after".into(),
        };
        for (label, record, colour) in [
            ("before", pair.before, 3),
            (majority.as_deref().unwrap_or_default(), pair.majority, 2),
            (&after, pair.after, 1),
        ] {
            if let Some(record) = record {
                row(&mut page, label, record, colour);
            }
        }
        page.push_str("</tbody></table></div>");
        difference(&mut page, pair);
        by_tag(&mut page, pair);
    }
    page
}

fn row(page: &mut String, label: &str, record: &EvaluationRecord, colour: usize) {
    let part = |part: &Part| match part.n {
        0 => "–".to_owned(),
        n => format!("{} <small>n {n}</small>", percent(part.accuracy.mean)),
    };
    let _ = write!(
        page,
        "<tr><th>{}</th><td>{}</td><td>{}</td><td class=\"bar\">{}</td><td>{}</td><td>{}</td>\
         <td>{}</td><td>{}</td><td>{:.1}</td></tr>",
        escape(label),
        record.n,
        interval(&record.accuracy),
        bar(&record.accuracy, colour),
        interval(&record.recall),
        interval(&record.f1),
        part(&record.closed),
        part(&record.open),
        record.answer_words
    );
}

/// "81.2 [78.0, 84.3]" in per cent.
fn interval(value: &Interval) -> String {
    format!(
        "<b>{}</b> <small>[{}, {}]</small>",
        percent(value.mean),
        percent(value.low),
        percent(value.high)
    )
}

/// A mean and its interval on a line from 0 to 1.
fn bar(value: &Interval, colour: usize) -> String {
    let x = |share: f64| 120.0 * share.clamp(0.0, 1.0);
    format!(
        "<svg viewBox=\"0 0 120 14\" width=\"120\" height=\"14\" aria-hidden=\"true\">\
         <line class=\"grid\" x1=\"0\" x2=\"120\" y1=\"7\" y2=\"7\"/>\
         <line class=\"span c{colour}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"7\" y2=\"7\"/>\
         <circle class=\"dot c{colour}\" cx=\"{:.1}\" cy=\"7\" r=\"4\"/></svg>",
        x(value.low),
        x(value.high),
        x(value.mean)
    )
}

fn difference(page: &mut String, pair: &Pair<'_>) {
    let (Some(gain), Some(recall)) = (pair.gain(), pair.recall_gain()) else { return };
    let Some((before, after)) = pair.paired(|row| f64::from(u8::from(row.correct))) else { return };
    let count = win_tie_loss(&before, &after);
    let _ = write!(
        page,
        "<p class=\"difference\">Paired by question (n {}): accuracy <b>{}</b> points \
         <small>[{}, {}]</small>, recall <b>{}</b> <small>[{}, {}]</small>; {} questions won, {} as \
         before, {} lost.</p>",
        gain.n,
        points(gain.mean),
        points(gain.low),
        points(gain.high),
        points(recall.mean),
        points(recall.low),
        points(recall.high),
        count.win,
        count.tie,
        count.loss
    );
}

/// Accuracy by the data set's own fields, folded away.
fn by_tag(page: &mut String, pair: &Pair<'_>) {
    let Some(record) = pair.after.or(pair.before).filter(|r| !r.by_tag.is_empty()) else { return };
    page.push_str(
        "<details><summary>By field</summary><div class=\"scroll\"><table><thead><tr><th>field</th>\
         <th>value</th><th>n</th><th>before</th><th>after</th></tr></thead><tbody>",
    );
    for (tag, values) in &record.by_tag {
        for (value, part) in values {
            let of = |record: Option<&EvaluationRecord>| {
                record
                    .and_then(|r| r.by_tag.get(tag)?.get(value))
                    .map_or_else(|| "–".to_owned(), |part| interval(&part.accuracy))
            };
            let _ = write!(
                page,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(tag),
                escape(value),
                part.n,
                of(pair.before),
                of(pair.after)
            );
        }
    }
    page.push_str("</tbody></table></div></details>");
}
