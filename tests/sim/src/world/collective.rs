//! Operations that the ranks of a generation do together: all arrive, or it breaks for those who did.

use std::collections::BTreeMap;

use medevo_core::{Millis, Order, Share};
use medevo_types::{
    Attempt, Digest, Generation, PolicyVersion, Step,
    messages::{Ballot, Holding, Report, RestoreSource},
};

use super::{
    Mutation, World,
    agent::Nudge,
    engine::{Failure, Process},
    queue::Happening,
    weather::{Breakage, Oddity},
};
use crate::weights::{gradient, hash};

/// How long a rank waits for the others.
const TOO_LONG: Millis = 1_000;
/// How long a rank needs to see that a connection is gone.
const NOTICED: Millis = 100;

/// What is done together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Form,
    Restore,
    Update,
    Apply,
}

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub generation: Generation,
    pub kind: Kind,
    pub step: Step,
    pub attempt: Attempt,
}

/// Operations under way: who has arrived, with which job; and who is awaited.
#[derive(Debug, Default)]
pub(super) struct Operations(BTreeMap<Key, (BTreeMap<usize, u64>, Vec<Process>)>);

impl World {
    /// A rank has come to an operation.
    pub(super) fn arrive(&mut self, w: usize, key: Key) {
        let worker = &self.workers[w];
        let Some(job) = worker.job.as_ref().map(|job| job.number) else { return };
        let roster = worker.engine.roster.clone();
        let broken = roster.iter().any(|&other| self.has_left(other, key));
        let whole = roster.len();
        let (arrived, _) =
            self.operations.0.entry(key).or_insert_with(|| (BTreeMap::new(), roster));
        arrived.insert(w, job);
        let complete = arrived.len() == whole;
        self.nudge_at(w, self.now + TOO_LONG, Nudge::TooLong { job });
        if broken {
            self.queue.at(self.now + NOTICED, Happening::Broken(key));
        } else if complete {
            let at = self.now + self.random.delay(8, 400);
            self.queue.at(at, Happening::Reduced(key));
        }
    }

    /// Whether a rank will never come to an operation.
    fn has_left(&self, (place, process): Process, key: Key) -> bool {
        let worker = &self.workers[place];
        let gone = !worker.alive || worker.process != process;
        let engine = &worker.engine;
        gone || engine.last > key.generation
            || (key.kind != Kind::Form && engine.standing != Some(key.generation))
    }

    /// A rank leaves the communicators of some generations: its peers see it.
    pub(super) fn leaves(&mut self, w: usize, which: impl Fn(Generation) -> bool) {
        for (key, (arrived, roster)) in &mut self.operations.0 {
            if which(key.generation) && roster.iter().any(|(place, _)| *place == w) {
                arrived.remove(&w);
                self.queue.at(self.now + NOTICED, Happening::Broken(*key));
            }
        }
    }

    /// A process is gone.
    pub(super) fn leaves_groups(&mut self, w: usize) {
        self.leaves(w, |_| true);
    }

    /// A rank has waited for too long.
    pub(super) fn too_long(&mut self, w: usize, number: u64) {
        let waits = |(arrived, _): &(BTreeMap<usize, u64>, _)| arrived.get(&w) == Some(&number);
        if self.operations.0.values().any(waits) {
            self.finish(w, Err(Failure::Collective));
        }
    }

    /// An operation breaks for those who are in it.
    pub(super) fn broken(&mut self, key: Key) {
        let Some((arrived, _)) = self.operations.0.remove(&key) else { return };
        for w in arrived.into_keys() {
            self.finish(w, Err(Failure::Collective));
        }
    }

    /// Every rank is there and the numbers have gone round.
    pub(super) fn reduced(&mut self, key: Key) {
        let Some((arrived, roster)) = self.operations.0.get(&key) else { return };
        if arrived.len() < roster.len() {
            return;
        }
        let held = arrived.keys().map(|&w| self.workers[w].paused_until).max().unwrap_or(0);
        if held > self.now || arrived.keys().any(|w| self.weather.isolated.contains(w)) {
            let at = held.max(self.now + 50);
            return self.queue.at(at, Happening::Reduced(key));
        }
        let members: Vec<usize> = roster.iter().map(|(place, _)| *place).collect();
        self.operations.0.remove(&key);
        let failing: Vec<usize> = match self.weather.collectives.pop_front() {
            None => Vec::new(),
            Some(Breakage::Everywhere) => members.clone(),
            Some(Breakage::Somewhere) => {
                let one = members[self.random.index(members.len())];
                let also: Vec<usize> =
                    members.iter().copied().filter(|_| self.random.chance(300)).collect();
                [vec![one], also].concat()
            }
        };
        self.settle(key, &members, &failing);
    }

    /// What an operation leaves each of its ranks with; `failing` ones see it fail.
    pub(super) fn settle(&mut self, key: Key, members: &[usize], failing: &[usize]) {
        match key.kind {
            Kind::Form => self.formed(key, members, failing),
            Kind::Restore => self.restored(members, failing),
            Kind::Update => self.voted(key, members, failing),
            Kind::Apply => {
                for &w in members {
                    if failing.contains(&w) {
                        // In the middle of the step: it holds nothing any more.
                        self.workers[w].engine.holding = None;
                        self.finish(w, Err(Failure::Collective));
                    } else {
                        self.apply(w);
                    }
                }
            }
        }
    }

    /// Whether everybody who holds a part of a rank's optimizer state is among the members.
    fn whole(&self, w: usize, members: &[usize]) -> bool {
        let engine = &self.workers[w].engine;
        engine.parts.iter().all(|&(place, process)| {
            let other = &self.workers[place];
            let there = members.contains(&place) && other.alive && other.process == process;
            there && other.engine.holding == engine.holding
        })
    }

    fn formed(&mut self, key: Key, members: &[usize], failing: &[usize]) {
        let whole: Vec<bool> = members.iter().map(|&w| self.whole(w, members)).collect();
        let first = self.workers[members[0]].engine.holding.clone();
        let same = members.iter().all(|&w| self.workers[w].engine.holding == first);
        let divided = failing.is_empty() && same && whole.iter().all(|whole| *whole);
        for (&w, whole) in members.iter().zip(whole) {
            if failing.contains(&w) {
                self.finish(w, Err(Failure::Collective));
                continue;
            }
            let engine = &mut self.workers[w].engine;
            engine.standing = Some(key.generation);
            if !whole {
                (engine.holding, engine.parts) = (None, Vec::new());
            } else if divided && !engine.parts.is_empty() {
                engine.parts = engine.roster.clone();
            }
            let holding = engine.holding.clone();
            self.finish(w, Ok(Report::Formed { holding }));
        }
    }

    fn restored(&mut self, members: &[usize], failing: &[usize]) {
        let Some(Order::Restore(restore)) = self.order(members[0]) else { return };
        let RestoreSource::Peer { root } = restore.source else {
            for &w in members {
                if failing.contains(&w) {
                    self.finish(w, Err(Failure::Collective));
                } else {
                    self.read(w, restore.policy, &restore.source);
                }
            }
            return;
        };
        let source = members.get(root).copied();
        let held = source.and_then(|w| self.workers[w].engine.holding.clone());
        let good = held.filter(|held| {
            held.policy == restore.policy && source.is_some_and(|w| self.whole(w, members))
        });
        for &w in members {
            match &good {
                None => self.finish(w, Err(Failure::Other("the root holds another version"))),
                Some(holding) if failing.contains(&w) => {
                    if self.mutation == Some(Mutation::HalfBroadcast) {
                        let half = Digest(format!("half of {}", holding.digest));
                        self.workers[w].engine.holding =
                            Some(Holding { policy: holding.policy, digest: half });
                        let holding = holding.clone();
                        self.finish(w, Ok(Report::Restored { holding }));
                        continue;
                    }
                    if Some(w) != source && self.random.chance(500) {
                        self.workers[w].engine.holding = None;
                    }
                    self.finish(w, Err(Failure::Collective));
                }
                Some(holding) => self.takes(w, holding.clone()),
            }
        }
    }

    fn voted(&mut self, key: Key, members: &[usize], failing: &[usize]) {
        let on = (key.generation, key.step, key.attempt);
        let batch = self.batch(members);
        let Some(held) = self.workers[members[0]].engine.holding.clone() else { return };
        let reduced = gradient(&held.digest, key.step, key.generation, &batch);
        let oddity = self.weather.gradients.pop_front();
        let odd_one = members[self.random.index(members.len())];
        for &w in members {
            if failing.contains(&w) {
                self.finish(w, Err(Failure::Collective));
                continue;
            }
            let mut ballot = Ballot {
                gradient: reduced.clone(),
                finite: true,
                grad_norm: 1.0,
                figures: vec![("loss".to_owned(), 0.1)],
            };
            match oddity {
                Some(Oddity::NotFinite) => ballot.finite = false,
                Some(Oddity::NotFiniteOnOne) => ballot.finite = w != odd_one,
                Some(Oddity::OtherOnOne) if w == odd_one => ballot.gradient = Digest("odd".into()),
                _ => {}
            }
            if oddity.is_none() {
                self.checker.attempts(on, held.policy, &ballot);
            }
            let worker = &mut self.workers[w];
            worker.engine.kept = Some((on, ballot.gradient.clone()));
            self.checker.cast(&worker.name, on, &ballot);
            self.finish(w, Ok(Report::Ballot(ballot)));
        }
    }

    /// What all ranks' shares come to together: the same whatever the split.
    fn batch(&self, members: &[usize]) -> String {
        let mut work: Vec<(usize, Vec<u64>)> = Vec::new();
        let mut drawn_by = PolicyVersion(0);
        for &w in members {
            let Some(Order::Update { share, .. }) = self.order(w) else { continue };
            match share {
                Share::Grpo { groups, rollout_policy, .. } => {
                    drawn_by = rollout_policy;
                    work.extend(groups.into_iter().map(|(sample, answers)| {
                        let words = answers.iter().flat_map(|answer| {
                            let ids = answer.ids.iter().map(|id| u64::from(*id));
                            ids.chain([answer.advantage.to_bits()])
                        });
                        (sample, words.collect())
                    }));
                }
                Share::Sft { samples, .. } => work.extend(samples.into_iter().map(|s| (s, vec![]))),
            }
        }
        work.sort();
        let words =
            work.iter().flat_map(|(sample, rest)| [*sample as u64].into_iter().chain(rest.clone()));
        let bytes = words.flat_map(u64::to_le_bytes);
        format!("{:016x} by {drawn_by}", hash(bytes))
    }

    fn order(&self, w: usize) -> Option<Order> {
        self.workers[w].job.as_ref().map(|job| job.order.clone())
    }
}
