//! What counts as correct: our protocol, and two published ones with their quirks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    normalize::normalize,
    score::{exact, token_f1, token_recall},
};

/// How an answer is judged. Decisions use [`Protocol::Strict`]; the others exist to compare with papers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Exact match of the strict normal forms, open and closed alike; full denominator.
    #[default]
    Strict,
    /// LLaVA-Med's `run_eval.py`. On purpose as published:
    /// - Closed: "yes" and "no" are looked for as substrings ("no" is in "normal" and in "nodule").
    ///   With neither in the answer it is wrong, whatever the reference. With one of them, the answer
    ///   is right if it contains the reference; if not, it **falls out of the denominator**.
    /// - Recall and F1 count a matching word as often as the *answer* has it, so that repeating a
    ///   matching word raises both.
    /// - Open: correct means that the normalised strings are equal; papers quote the recall.
    LlavaMedCompat,
    /// MedEvalKit's `judge_judgement` and `judge_close_end_vqa`. On purpose as published:
    /// - Only lower case, and full stops and line breaks deleted, no other normalisation; what stands
    ///   behind the last "answer is" or "answer:" counts.
    /// - Closed with a yes/no reference: exactly one of "yes" and "no" is in the answer (as a substring)
    ///   and the reference is in it too. All else: equal strings, spaces included.
    MedevalkitCompat,
}

impl Protocol {
    /// Name as in run files and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::LlavaMedCompat => "llava_med_compat",
            Self::MedevalkitCompat => "medevalkit_compat",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a protocol says of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Right or wrong; none: the protocol drops the question from the denominator.
    pub correct: Option<bool>,
    /// Token recall of the reference, in [0, 1].
    pub recall: f64,
    /// Token F1, in [0, 1].
    pub f1: f64,
}

/// Judges one answer. `closed` is the kind of the question as the data set has it (a closed question's
/// reference need not be yes or no).
#[must_use]
pub fn judge(protocol: Protocol, closed: bool, reference: &str, answer: &str) -> Verdict {
    match protocol {
        Protocol::Strict => Verdict {
            correct: Some(exact(reference, answer)),
            recall: token_recall(reference, answer),
            f1: token_f1(reference, answer),
        },
        Protocol::LlavaMedCompat => llava_med(closed, &normalize(reference), &normalize(answer)),
        Protocol::MedevalkitCompat => Verdict {
            correct: Some(medevalkit(closed, reference, answer)),
            recall: token_recall(reference, answer),
            f1: token_f1(reference, answer),
        },
    }
}

fn llava_med(closed: bool, reference: &str, answer: &str) -> Verdict {
    let correct = if !closed {
        Some(!reference.is_empty() && reference == answer)
    } else if !answer.contains("yes") && !answer.contains("no") {
        Some(false)
    } else if answer.contains(reference) {
        Some(true)
    } else {
        None
    };
    let (wanted, given) = (counts(reference), counts(answer));
    // A word of both counts as often as the answer has it, though the reference may have it once.
    let (mut hits, mut surplus) = (0, 0);
    for (word, count) in &given {
        *(if wanted.contains_key(word) { &mut hits } else { &mut surplus }) += count;
    }
    let missed: usize =
        wanted.iter().filter(|(word, _)| !given.contains_key(*word)).map(|(_, count)| count).sum();
    if hits == 0 {
        return Verdict { correct, recall: 0.0, f1: 0.0 };
    }
    let precision = hits as f64 / (hits + surplus) as f64;
    let recall = hits as f64 / (hits + missed) as f64;
    Verdict { correct, recall, f1: 2.0 * precision * recall / (precision + recall) }
}

fn counts(text: &str) -> BTreeMap<&str, usize> {
    let mut bag = BTreeMap::new();
    for word in text.split_whitespace() {
        *bag.entry(word).or_default() += 1;
    }
    bag
}

fn medevalkit(closed: bool, reference: &str, answer: &str) -> bool {
    let reference = reference.to_lowercase();
    let answer = after_marker(&answer.to_lowercase()).replace(['\n', '.'], "");
    if closed && matches!(reference.as_str(), "yes" | "no") {
        (answer.contains("yes") != answer.contains("no")) && answer.contains(&reference)
    } else {
        !reference.is_empty() && answer == reference
    }
}

/// What stands behind the last marker of each kind, as MedEvalKit's `parse_response` cuts it.
fn after_marker(answer: &str) -> &str {
    const MARKERS: [&str; 6] =
        ["**answer**:", "**answer**", "*answer*:", "**answer:**", "answer is", "answer:"];
    MARKERS
        .iter()
        .fold(answer, |rest, marker| rest.rsplit_once(marker).map_or(rest, |(_, behind)| behind))
}
