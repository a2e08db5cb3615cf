//! The ranks of the current generation, and who of them is still there.

use medevo_types::{Generation, WorkerTag, messages::Member};

/// One rank.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// Who took it.
    pub member: Member,
    /// False once that life is lost; it never gets its seat back.
    pub present: bool,
}

/// Who formed a generation. Ranks never change within it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seats {
    /// Its number; the last one before this coordinator until one is opened.
    pub generation: Generation,
    /// Rank r is `ranks[r]`.
    pub ranks: Vec<Seat>,
}

impl Seats {
    /// The rank of a worker that is present.
    pub fn rank(&self, tag: &WorkerTag) -> Option<usize> {
        self.ranks.iter().position(|seat| seat.present && seat.member.tag == *tag)
    }

    /// Ranks that are present, ascending.
    pub fn present(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranks.iter().enumerate().filter(|(_, seat)| seat.present).map(|(rank, _)| rank)
    }

    /// Whether a roster stands and has lost nobody.
    pub fn whole(&self) -> bool {
        !self.ranks.is_empty() && self.ranks.iter().all(|seat| seat.present)
    }

    /// Whether nobody is left.
    pub fn empty(&self) -> bool {
        self.present().next().is_none()
    }

    /// The name at a rank, for people.
    pub fn name(&self, rank: usize) -> String {
        self.ranks
            .get(rank)
            .map_or_else(|| format!("rank {rank}"), |s| s.member.tag.worker.0.clone())
    }

    /// Names of several ranks.
    pub fn names(&self, ranks: impl IntoIterator<Item = usize>) -> String {
        ranks.into_iter().map(|rank| self.name(rank)).collect::<Vec<_>>().join(", ")
    }
}
