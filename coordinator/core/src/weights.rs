//! What is known of the weights that the run stands on.

use std::collections::BTreeMap;

use medevo_types::{Digest, WorkerId, WorkerTag};

/// How a holding of the current policy version is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// By this digest.
    Known(Digest),
    /// The commit is on record but nobody has reported its weights yet: only these lives were told
    /// to make them, so only their word counts.
    AppliedBy(Vec<WorkerTag>),
    /// The commit is on record, an earlier term's workers were told to make them: what most of those of them that hold
    /// the version report. Others may hold that version of a timeline that was rolled back.
    Reported(Vec<WorkerId>),
    /// Nothing is known: the starting model before anyone has loaded it.
    Unknown,
}

impl Weights {
    /// The digest, empty while it is not known.
    pub fn digest(&self) -> Digest {
        match self {
            Weights::Known(digest) => digest.clone(),
            _ => Digest(String::new()),
        }
    }
}

/// The digest that most ranks report; the lowest rank decides a tie.
pub(crate) fn prevailing<'a>(
    digests: impl IntoIterator<Item = (usize, &'a Digest)>,
) -> Option<Digest> {
    let mut votes: BTreeMap<&Digest, (usize, usize)> = BTreeMap::new();
    for (rank, digest) in digests {
        let vote = votes.entry(digest).or_insert((0, rank));
        vote.0 += 1;
        vote.1 = vote.1.min(rank);
    }
    votes
        .into_iter()
        .max_by_key(|(_, (count, lowest))| (*count, std::cmp::Reverse(*lowest)))
        .map(|(digest, _)| digest.clone())
}
