//! The store: a term, a lease on the lead, and records that only the term's holder may append.

use medevo_core::{Millis, Record};
use medevo_types::Term;

use super::{Mutation, World, coordinator::Knock, queue::Happening};

/// A lease on the lead, milliseconds.
pub(super) const LEAD_TTL: Millis = 1_500;

/// The store.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub term: Term,
    /// Appended records with their term and their number within it.
    journal: Vec<(Term, u64, Record)>,
    /// Who leads, and until when.
    lead: Option<(usize, Millis)>,
}

/// One transaction on its way.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub coordinator: usize,
    pub process: u64,
    pub term: Term,
    /// Number of its first record within the term: the same again when it is tried again.
    pub number: u64,
    pub records: Vec<Record>,
}

/// What a writer hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is there.
    Done,
    /// The term is another's.
    NotYours,
    /// Nobody knows whether it is there.
    Unavailable,
}

impl Store {
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.journal.iter().map(|(_, _, record)| record)
    }

    /// Takes the lead if it is free, or was this coordinator's before. Returns the new term.
    pub fn campaign(&mut self, coordinator: usize, now: Millis) -> Option<Term> {
        let free = self.lead.is_none_or(|(who, until)| who == coordinator || now >= until);
        free.then(|| {
            self.term = self.term.next();
            self.lead = Some((coordinator, now + LEAD_TTL));
            self.term
        })
    }

    /// Keeps the lead. False when it is another's.
    pub fn renew(&mut self, coordinator: usize, term: Term, now: Millis) -> bool {
        let kept = term == self.term;
        if kept {
            self.lead = Some((coordinator, now + LEAD_TTL));
        }
        kept
    }
}

impl World {
    /// A write arrives at the store, or gets lost, or its answer does.
    pub(super) fn write_arrives(&mut self, write: Write) {
        let away = self.weather.store_away(write.coordinator);
        let applied = !away || self.random.chance(self.weather.ambiguous);
        let mut written = Written::Unavailable;
        if applied {
            written = self.append(&write);
        }
        let lost = away || self.random.chance(self.weather.ambiguous / 8);
        if lost {
            written = Written::Unavailable;
        }
        self.trace.note(self.now, || {
            let (c, n) = (write.coordinator, write.number);
            format!(
                "store  c{c} term {} #{n} {:?} applied={applied} {written:?}",
                write.term, write.records
            )
        });
        let wait = if lost { self.random.between(20, 300) } else { self.random.delay(2, 40) };
        let knock = Knock::Written { number: write.number, written };
        let (coordinator, process) = (write.coordinator, write.process);
        self.queue.at(self.now + wait, Happening::Coordinator { coordinator, process, knock });
    }

    fn append(&mut self, write: &Write) -> Written {
        if write.term != self.store.term && self.mutation != Some(Mutation::NoGuard) {
            self.figures.fenced += 1;
            return Written::NotYours;
        }
        let known =
            |n: u64| self.store.journal.iter().rev().any(|(t, k, _)| (*t, *k) == (write.term, n));
        if known(write.number) {
            return Written::Done;
        }
        for (number, record) in (write.number..).zip(&write.records) {
            let times = match (self.mutation, record) {
                (Some(Mutation::DoubleCommit), Record::Commit { .. }) => 2,
                _ => 1,
            };
            for _ in 0..times {
                self.checker.recorded(write.term, record);
                self.store.journal.push((write.term, number, record.clone()));
            }
            self.on_record(record);
        }
        Written::Done
    }
}
