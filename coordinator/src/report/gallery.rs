//! A table of samples: picture, question, candidates with their counts and rewards, the chosen pseudo
//! label, and the answers before and after.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

use super::{accuracy::Pair, html::escape, picture};
use crate::run_dir::{EvalRow, EvaluationRecord, SampleOutcome, SampleRecord};

/// Samples shown at most, and candidates of each.
const SAMPLES: usize = 24;
const CANDIDATES: usize = 6;

/// The gallery; empty when no group has been scored.
pub(super) fn gallery(samples: &[SampleRecord], pairs: &[Pair<'_>]) -> String {
    let adapted = pairs.iter().find(|pair| pair.adapted);
    let before = answers(adapted.and_then(|p| p.before));
    let after = answers(adapted.and_then(|p| p.after));
    let chosen = choose(samples, &before, &after);
    if chosen.is_empty() {
        return String::new();
    }
    let mut page = String::from(
        "<div class=\"scroll\"><table class=\"gallery\"><thead><tr><th>picture</th><th>question</th>\
         <th>candidates × count, reward</th><th>pseudo label</th><th>before</th><th>after</th></tr>\
         </thead><tbody>",
    );
    // Questions share pictures: each file is read and made small once.
    let mut pictures: HashMap<&std::path::Path, Option<String>> = HashMap::new();
    for sample in chosen {
        let picture = match &sample.image {
            None => "<small>no picture</small>".to_owned(),
            Some(path) => match pictures.entry(path).or_insert_with(|| picture::data_uri(path)) {
                Some(uri) => format!("<img alt=\"\" src=\"{uri}\">"),
                None => "<small>the picture cannot be read</small>".into(),
            },
        };
        let _ = write!(
            page,
            "<tr><td>{picture}</td><td>{}<br><small>{} · step {}</small></td><td>",
            escape(&sample.question),
            escape(&sample.sample),
            sample.step
        );
        candidates(&mut page, sample);
        let _ = write!(
            page,
            "</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            label(sample),
            answer(before.get(sample.sample.as_str()).copied()),
            answer(after.get(sample.sample.as_str()).copied())
        );
    }
    page.push_str("</tbody></table></div>");
    page
}

type Answers<'a> = BTreeMap<&'a str, &'a EvalRow>;

fn answers(record: Option<&EvaluationRecord>) -> Answers<'_> {
    record.into_iter().flat_map(|r| &r.rows).map(|row| (row.sample.as_str(), row)).collect()
}

/// The last group of some samples, drawn evenly over those that were won, lost, missed both times and
/// right both times: only wins would flatter, and a random draw would mostly show what did not change.
fn choose<'a>(
    samples: &'a [SampleRecord],
    before: &Answers<'_>,
    after: &Answers<'_>,
) -> Vec<&'a SampleRecord> {
    let mut last: BTreeMap<&str, &SampleRecord> = BTreeMap::new();
    for sample in samples {
        last.insert(&sample.sample, sample);
    }
    let mut kinds: [Vec<&SampleRecord>; 5] = Default::default();
    for (id, sample) in last {
        let correct = |answers: &Answers<'_>| answers.get(id).map(|row| row.correct);
        let kind = match (correct(before), correct(after)) {
            (Some(false), Some(true)) => 0,
            (Some(true), Some(false)) => 1,
            (Some(false), Some(false)) => 2,
            (Some(true), Some(true)) => 3,
            _ => 4,
        };
        kinds[kind].push(sample);
    }
    let mut chosen: Vec<&SampleRecord> = Vec::new();
    let mut turn = 0;
    while chosen.len() < SAMPLES && kinds.iter().any(|kind| kind.len() > turn) {
        chosen.extend(kinds.iter().filter_map(|kind| kind.get(turn)));
        turn += 1;
    }
    chosen.truncate(SAMPLES);
    chosen.sort_by_key(|sample| {
        kinds.iter().position(|kind| kind.iter().any(|s| s.sample == sample.sample))
    });
    chosen
}

fn candidates(page: &mut String, sample: &SampleRecord) {
    let total: u32 = sample.candidates.iter().map(|c| c.count).sum();
    page.push_str("<ul class=\"candidates\">");
    for candidate in sample.candidates.iter().take(CANDIDATES) {
        let share = 100.0 * f64::from(candidate.count) / f64::from(total.max(1));
        let chosen = sample.pseudo_label.as_ref() == Some(&candidate.text);
        let _ = write!(
            page,
            "<li{}><i style=\"width:{share:.0}%\"></i><span>{}</span><b>× {}</b><em>{:.2}</em></li>",
            if chosen { " class=\"chosen\"" } else { "" },
            shown(&candidate.text),
            candidate.count,
            candidate.reward
        );
    }
    page.push_str("</ul>");
    if sample.candidates.len() > CANDIDATES {
        let more = sample.candidates.len() - CANDIDATES;
        let _ = write!(page, "<small>and {more} more</small>");
    }
}

fn label(sample: &SampleRecord) -> String {
    let outcome = match sample.outcome {
        SampleOutcome::Train => "trained",
        SampleOutcome::Abstained => "abstained: no consensus",
        SampleOutcome::NoVariance => "nothing to learn: all rewards equal",
    };
    format!(
        "{}<br><small>share {:.2}, margin {:.2}<br>{outcome}</small>",
        sample.pseudo_label.as_deref().map_or_else(|| "–".to_owned(), shown),
        sample.share,
        sample.margin
    )
}

fn answer(row: Option<&EvalRow>) -> String {
    match row {
        None => "–".into(),
        Some(row) => {
            let (class, mark, word) = if row.correct {
                ("right", "✓", "correct")
            } else {
                ("wrong", "✗", "not correct")
            };
            format!(
                "<span class=\"{class}\"><span role=\"img\" aria-label=\"{word}\">{mark}</span> {}</span>",
                shown(&row.answer)
            )
        }
    }
}

/// An answer as it was drawn; an empty one is said to be empty.
fn shown(text: &str) -> String {
    if text.is_empty() { "<small>(empty)</small>".into() } else { escape(text) }
}
