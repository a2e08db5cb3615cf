//! Forming: enough workers, a new generation, a communicator.

use std::collections::BTreeMap;

use medevo_types::messages::{Holding, Member};

use crate::{
    Core, Event, Millis, Output, Record,
    phase::{Answer, Gathering, Linking, Phase, Work},
};

/// Tries at forming and restoring that may fail in a row for other reasons than a lost worker.
const MAX_SETBACKS: u32 = 5;
/// Between two such tries, milliseconds.
const PAUSE: Millis = 500;

impl Core {
    /// A new roster is needed before `work` can go on. One that can be formed at once is; the grace
    /// time is only for a run that had to wait for workers.
    pub(crate) fn form(&mut self, now: Millis, work: Work, reason: &str, out: &mut Output) {
        let starve = now + self.spec.deadlines.starve_ms;
        let enough = self.membership.len() >= self.spec.min_workers.max(1);
        // A dead worker whose lease still runs would break the next try as it broke this one; soon it has run out.
        let pause = if self.setbacks.is_some() { PAUSE } else { 0 };
        let gathering = Gathering {
            work,
            reason: reason.to_owned(),
            not_before: now + pause,
            grace: enough.then_some(now + pause),
            starve,
        };
        self.enter(now, Phase::Gathering(gathering), out);
        self.gather(now, out);
    }

    /// The roster is broken: whatever was being done goes on with a new one.
    pub(crate) fn regroup(&mut self, now: Millis, reason: &str, out: &mut Output) {
        if let Some(work) = self.take_work() {
            self.form(now, work, reason, out);
        }
    }

    /// As [`Core::regroup`], for a failure that is nobody's death; too many in a row fail the run, once they have gone
    /// on for `patience`.
    pub(crate) fn setback(
        &mut self,
        now: Millis,
        patience: Millis,
        reason: &str,
        out: &mut Output,
    ) {
        let (tries, since) = self.setbacks.map_or((1, now), |(tries, since)| (tries + 1, since));
        self.setbacks = Some((tries, since));
        if tries >= MAX_SETBACKS && now >= since + patience {
            let reason = format!(
                "the workers could not be brought together {tries} times in a row; last: {reason}; see the workers' \
                 logs"
            );
            self.fail(now, reason, out);
        } else {
            self.regroup(now, reason, out);
        }
    }

    /// Opens a generation if the workers that are there suffice.
    pub(crate) fn gather(&mut self, now: Millis, out: &mut Output) {
        if self.drained_while_gathering(now, out) {
            return;
        }
        let Phase::Gathering(gathering) = &mut self.phase else { return };
        let here = self.membership.len();
        let (min, wanted) = (self.spec.min_workers.max(1), self.spec.wanted_workers());
        if here < min {
            if gathering.grace.take().is_some() {
                gathering.starve = now + self.spec.deadlines.starve_ms;
            }
            if now >= gathering.starve {
                let waited = self.spec.deadlines.starve_ms / 1000;
                let reason = format!(
                    "{here} of at least {min} workers here after {waited} s ({}): start more \
                     workers or lower cluster.min_workers",
                    gathering.reason
                );
                match self.drain {
                    Some(_) => self.finish_drained(now, Some(&reason), out),
                    None => self.fail(now, reason, out),
                }
            }
            return;
        }
        let grace = *gathering.grace.get_or_insert(now + self.spec.deadlines.grace_ms);
        // Whoever was in the last roster before this coordinator is worth the grace time; nobody else has to be
        // waited for once they are back.
        let back = self.earlier.all_back(|worker| self.membership.has(worker));
        if now >= gathering.not_before && (here >= wanted || now >= grace || back) {
            self.open_generation(now, out);
        }
    }

    fn open_generation(&mut self, now: Millis, out: &mut Output) {
        let Phase::Gathering(gathering) = std::mem::take(&mut self.phase) else { return };
        let mut members = self.membership.members();
        if let Work::Save(save) = &gathering.work {
            // Another rank 0, since the last one could not write.
            let turn = save.failures as usize % members.len().max(1);
            members.rotate_left(turn);
        }
        let deadline = now + self.spec.deadlines.form_ms + self.rest_of_work(&members);
        self.seats.open(self.seats.generation.next(), members.clone());
        let names = || self.seats.ranks.iter().map(|seat| seat.member.tag.worker.clone()).collect();
        out.records.push(Record::Generation(self.seats.generation));
        out.records.push(Record::Roster(names()));
        self.earlier.opened();
        out.events.push(Event::GenerationOpened {
            generation: self.seats.generation,
            workers: names(),
            reason: gathering.reason,
        });
        let linking = Linking {
            work: gathering.work,
            members: members.into(),
            formed: BTreeMap::new(),
            deadline,
        };
        self.enter(now, Phase::Linking(linking), out);
    }

    /// How long members may be busy before they can look at a new roster: an engine does one thing at a
    /// time and cannot be interrupted. One that held a seat may be in the middle of its work, one that has
    /// just joined in the middle of loading the model. Both keep their leases meanwhile, so a dead one is
    /// noticed long before.
    fn rest_of_work(&self, members: &[Member]) -> Millis {
        let deadlines = &self.spec.deadlines;
        let seated = members.iter().filter(|member| self.seats.rank(&member.tag).is_some()).count();
        let working = deadlines.unit_ms.max(deadlines.update_ms).max(deadlines.restore_ms);
        let loading = deadlines.restore_ms;
        let work = if seated > 0 { working } else { 0 };
        work.max(if seated < members.len() { loading } else { 0 })
    }

    /// A rank has made its communicator, or could not.
    pub(crate) fn linked(
        &mut self,
        now: Millis,
        rank: usize,
        answer: Answer<Option<Holding>>,
        out: &mut Output,
    ) {
        let Phase::Linking(linking) = &mut self.phase else { return };
        linking.formed.insert(rank, answer);
        if linking.formed.len() < self.seats.ranks.len() {
            return;
        }
        let failure = linking.formed.iter().find_map(|(&rank, answer)| match answer {
            Answer::Err(error) => Some((rank, error.clone())),
            Answer::Ok(_) => None,
        });
        match failure {
            Some((rank, error)) => {
                let reason = format!("{} could not form: {error}", self.seats.name(rank));
                // A network that is away for a moment fails many tries within it.
                self.setback(now, self.spec.deadlines.starve_ms, &reason, out);
            }
            None => self.restore(now, out),
        }
    }

    /// Time is up for a communicator: who has not answered is given up.
    pub(crate) fn linking_overdue(&mut self, now: Millis, out: &mut Output) {
        let Phase::Linking(linking) = &self.phase else { return };
        let silent: Vec<usize> =
            self.seats.present().filter(|rank| !linking.formed.contains_key(rank)).collect();
        self.give_up(now, &silent, "it did not form a communicator in time", out);
    }

    /// Takes ranks out of the run that did not do their part in time.
    pub(crate) fn give_up(&mut self, now: Millis, ranks: &[usize], why: &str, out: &mut Output) {
        let lost = ranks
            .iter()
            .map(|&rank| (self.seats.ranks[rank].member.tag.worker.clone(), why.to_owned()))
            .collect();
        self.lose(now, lost, out);
    }
}
