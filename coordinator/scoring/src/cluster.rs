//! Average-link agglomerative clustering of a group's distinct answers, weighted by their counts.

use crate::{
    answers::Answers,
    embed::{Embedding, cosine},
};

/// Scores closer than this are a tie: rounding must not decide between two meanings.
const RESOLUTION: f64 = 1e-9;

/// A score as a number that compares exactly and for which near means equal.
pub fn rank(score: f64) -> i64 {
    (score / RESOLUTION).round() as i64
}

/// Answers that mean the same.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Indices of distinct answers, ascending.
    pub members: Vec<usize>,
    /// Candidates in it.
    pub weight: usize,
}

/// One cluster per distinct answer: what `majority` votes over.
pub fn singletons(answers: &Answers) -> Vec<Cluster> {
    let alone = |(i, answer): (usize, &crate::answers::Answer)| Cluster {
        members: vec![i],
        weight: answer.count(),
    };
    answers.distinct.iter().enumerate().map(alone).collect()
}

/// Joins the two clusters of greatest mean cosine (over pairs of candidates) until it falls below
/// `threshold`. Clusters that hold a pair of opposed answers are never joined. Of equal means the first
/// pair in canonical order is joined.
pub fn average_link(answers: &Answers, embeddings: &[Embedding], threshold: f64) -> Vec<Cluster> {
    let links = links(answers, embeddings);
    let mut clusters = singletons(answers);
    loop {
        // Best pair so far: rank of its mean cosine, and the two places.
        let mut best: Option<(i64, usize, usize)> = None;
        for a in 0..clusters.len() {
            for b in a + 1..clusters.len() {
                let Some(mean) = mean_link(&links, &clusters[a], &clusters[b]) else { continue };
                let mean = rank(mean);
                if mean >= rank(threshold) && best.is_none_or(|(top, ..)| mean > top) {
                    best = Some((mean, a, b));
                }
            }
        }
        let Some((_, a, b)) = best else { return clusters };
        let joined = clusters.remove(b);
        clusters[a].weight += joined.weight;
        clusters[a].members.extend(joined.members);
        clusters[a].members.sort_unstable();
    }
}

/// Sum of cosines over the pairs of candidates that two answers make, `[distinct, distinct]`; none where
/// the guard stands between the two.
fn links(answers: &Answers, embeddings: &[Embedding]) -> Vec<Vec<Option<f64>>> {
    let link = |a: usize, b: usize| {
        let (x, y) = (&answers.distinct[a], &answers.distinct[b]);
        let pairs = (x.count() * y.count()) as f64;
        (!x.facts.opposed(&y.facts)).then(|| pairs * cosine(&embeddings[a], &embeddings[b]))
    };
    let n = answers.distinct.len();
    (0..n).map(|a| (0..n).map(|b| link(a, b)).collect()).collect()
}

/// Mean cosine over pairs of candidates between two clusters; none if any two answers are opposed.
fn mean_link(links: &[Vec<Option<f64>>], a: &Cluster, b: &Cluster) -> Option<f64> {
    let mut sum = 0.0;
    for &i in &a.members {
        for &j in &b.members {
            sum += links[i][j]?;
        }
    }
    Some(sum / (a.weight * b.weight) as f64)
}
