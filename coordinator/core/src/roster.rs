//! The ranks of the current generation, and who of them is still there.

use std::collections::BTreeMap;

use medevo_types::{Generation, WorkerId, WorkerTag, messages::Member};

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
    /// Rank by name: every message asks for it.
    by_name: BTreeMap<WorkerId, usize>,
}

impl Seats {
    /// Nobody's: what a coordinator begins with.
    pub fn vacant(generation: Generation) -> Seats {
        Seats { generation, ..Seats::default() }
    }

    /// Opens a generation of these members.
    pub fn open(&mut self, generation: Generation, members: Vec<Member>) {
        let name = |(rank, member): (usize, &Member)| (member.tag.worker.clone(), rank);
        self.by_name = members.iter().enumerate().map(name).collect();
        self.generation = generation;
        self.ranks = members.into_iter().map(|member| Seat { member, present: true }).collect();
    }

    /// The rank of a worker that is present.
    pub fn rank(&self, tag: &WorkerTag) -> Option<usize> {
        let rank = *self.by_name.get(&tag.worker)?;
        let seat = self.ranks.get(rank)?;
        (seat.present && seat.member.tag == *tag).then_some(rank)
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
        let ranks: Vec<usize> = ranks.into_iter().collect();
        listed(ranks.len(), ranks.into_iter().map(|rank| self.name(rank)))
    }
}

/// Names that a sentence spells out.
const SPELLED: usize = 8;

/// "w1, w2, w3", or the first few of many "and 990 more".
pub(crate) fn listed(count: usize, names: impl Iterator<Item = String>) -> String {
    let spelled = names.take(SPELLED).collect::<Vec<_>>().join(", ");
    if count > SPELLED { format!("{spelled} and {} more", count - SPELLED) } else { spelled }
}
