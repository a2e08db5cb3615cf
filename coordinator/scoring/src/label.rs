//! FPL: which candidate becomes the pseudo label, and how sure the group is of it.

use std::cmp::Reverse;

use medevo_types::settings::{LabelKind, LabelSettings};

use crate::{
    answers::Answers,
    cluster::{Cluster, average_link, rank, singletons},
    embed::{Embedding, centre, cosine},
};

/// The chosen label with its confidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Index of the chosen distinct answer.
    pub answer: usize,
    /// Share of the N candidates in its cluster.
    pub share: f64,
    /// That share minus the share of the heaviest other cluster.
    pub margin: f64,
    /// Entropy of the shares of all clusters, empty answers left out, nats.
    pub entropy: f64,
}

impl Choice {
    /// Whether the group has no consensus by the stage's rules.
    pub fn abstains(&self, settings: &LabelSettings) -> bool {
        rank(self.share) < rank(settings.min_share)
            || (settings.min_margin > 0.0 && rank(self.margin) < rank(settings.min_margin))
    }
}

/// Chooses the pseudo label; none when every answer is empty. A pure function of the group.
///
/// Under `majority` every distinct answer is a cluster of its own; under `centroid` the clusters are
/// those of `cluster` and serve the confidence only. Ties: more copies, shorter, lower index.
pub fn choose(
    settings: &LabelSettings,
    answers: &Answers,
    embeddings: &[Embedding],
) -> Option<Choice> {
    let clusters = match settings.kind {
        LabelKind::Majority => singletons(answers),
        LabelKind::Cluster | LabelKind::Centroid => {
            average_link(answers, embeddings, settings.threshold)
        }
    };
    let answer = match settings.kind {
        LabelKind::Centroid => {
            let all: Vec<usize> = (0..answers.distinct.len()).collect();
            nearest_to_centre(answers, embeddings, &all)?
        }
        // Nearest to the centre of the heaviest cluster; of equally heavy ones, the better label wins.
        LabelKind::Cluster | LabelKind::Majority => {
            let label = |c: &Cluster| nearest_to_centre(answers, embeddings, &c.members);
            clusters
                .iter()
                .filter_map(|cluster| Some((cluster.weight, label(cluster)?)))
                .max_by_key(|&(weight, label)| (weight, preference(answers, label)))?
                .1
        }
    };
    Some(confidence(answers, &clusters, answer))
}

/// The answer among `members` that is nearest to their centre, copies counted.
fn nearest_to_centre(
    answers: &Answers,
    embeddings: &[Embedding],
    members: &[usize],
) -> Option<usize> {
    // A lone answer is its own centre; majority comes here without embeddings.
    if let [only] = members {
        return Some(*only);
    }
    let weighted = members.iter().map(|&i| (answers.distinct[i].count() as f64, &embeddings[i]));
    let centre = centre(weighted);
    let nearness = |i: usize| rank(cosine(&embeddings[i], &centre));
    members.iter().copied().max_by_key(|&i| (nearness(i), preference(answers, i)))
}

/// The rule for ties as an order: more copies, shorter, lower index.
fn preference(answers: &Answers, answer: usize) -> (usize, Reverse<usize>, Reverse<usize>) {
    let answer = &answers.distinct[answer];
    (answer.count(), Reverse(answer.chars), Reverse(answer.representative))
}

fn confidence(answers: &Answers, clusters: &[Cluster], answer: usize) -> Choice {
    let n = answers.candidates() as f64;
    let (own, others): (Vec<&Cluster>, Vec<&Cluster>) =
        clusters.iter().partition(|cluster| cluster.members.contains(&answer));
    let weight: usize = own.iter().map(|cluster| cluster.weight).sum();
    let second = others.iter().map(|cluster| cluster.weight).max().unwrap_or(0);
    let voting: usize = clusters.iter().map(|cluster| cluster.weight).sum();
    let entropy = clusters
        .iter()
        .map(|cluster| cluster.weight as f64 / voting as f64)
        .map(|share| -share * share.ln())
        .sum::<f64>();
    Choice {
        answer,
        share: weight as f64 / n,
        margin: (weight as f64 - second as f64) / n,
        entropy: entropy.max(0.0),
    }
}
