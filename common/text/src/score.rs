//! Scores of one answer against one reference, on strictly normalised tokens. All lie in [0, 1].

use std::collections::BTreeMap;

use crate::normalize::{normalize, tokens};

/// Whether both have the same strict normal form. An empty answer matches nothing, not even an empty
/// reference: an answer that cannot be read is wrong.
#[must_use]
pub fn exact(reference: &str, answer: &str) -> bool {
    let reference = normalize(reference);
    !reference.is_empty() && reference == normalize(answer)
}

/// Share of the reference's tokens that the answer has too. Tokens are counted as often as they occur, on
/// either side.
#[must_use]
pub fn token_recall(reference: &str, answer: &str) -> f64 {
    let (reference, answer) = (tokens(reference), tokens(answer));
    share(common(&reference, &answer), reference.len())
}

/// Harmonic mean of token precision and token recall (as in SQuAD, Rajpurkar et al. 2016); symmetric.
#[must_use]
pub fn token_f1(reference: &str, answer: &str) -> f64 {
    let (reference, answer) = (tokens(reference), tokens(answer));
    share(2 * common(&reference, &answer), reference.len() + answer.len())
}

/// BLEU-1 of the answer: clipped unigram precision times the brevity penalty (Papineni et al. 2002).
#[must_use]
pub fn bleu1(reference: &str, answer: &str) -> f64 {
    let (reference, answer) = (tokens(reference), tokens(answer));
    let precision = share(common(&reference, &answer), answer.len());
    if precision == 0.0 || answer.len() >= reference.len() {
        return precision;
    }
    precision * (1.0 - reference.len() as f64 / answer.len() as f64).exp()
}

/// ROUGE-L: F1 of the longest common subsequence of tokens (Lin 2004, with beta = 1); symmetric.
#[must_use]
pub fn rouge_l(reference: &str, answer: &str) -> f64 {
    let (reference, answer) = (tokens(reference), tokens(answer));
    share(2 * subsequence(&reference, &answer), reference.len() + answer.len())
}

/// Size of the intersection of two bags of tokens.
fn common(left: &[String], right: &[String]) -> usize {
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for token in left {
        *open.entry(token).or_default() += 1;
    }
    let mut found = 0;
    for token in right {
        if let Some(count) = open.get_mut(token.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            found += 1;
        }
    }
    found
}

/// Length of the longest common subsequence.
fn subsequence(left: &[String], right: &[String]) -> usize {
    // row[j]: longest for the left tokens so far and the first j right tokens.
    let mut row = vec![0; right.len() + 1];
    for token in left {
        let mut diagonal = 0;
        for (j, other) in right.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if token == other { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[right.len()]
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
