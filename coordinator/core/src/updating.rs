//! Updating: ranks reduce one gradient and vote on it.

use std::collections::BTreeMap;

use medevo_types::messages::{Ballot, Rejection};

use crate::{
    Core, Event, Millis, Output, Share, StageKind, ballots_agree,
    phase::{Batch, Learn, Phase, Updating, Work},
    split,
};

/// Tries whose gradient is not finite on any rank before the run gives up.
const MAX_NONFINITE: u32 = 2;

impl Core {
    /// Splits the step's work over the ranks and asks for ballots.
    pub(crate) fn update(&mut self, now: Millis, learn: Box<Learn>, out: &mut Output) {
        if !self.seats.whole() {
            return self.form(now, Work::Learn(learn), "the roster changed", out);
        }
        let shares = self.shares(&learn);
        let deadline = now + self.spec.deadlines.update_ms;
        let updating = Updating { learn, shares, ballots: BTreeMap::new(), deadline };
        self.enter(now, Phase::Updating(updating), out);
    }

    fn shares(&self, learn: &Learn) -> Vec<Share> {
        let ranks = self.seats.ranks.len();
        let kind = self.spec.stages.get(learn.at.stage).map(|s| &s.kind);
        match (&learn.batch, kind) {
            (
                Batch::Grpo(policy, groups),
                Some(StageKind::Rl { data, sampling, objective, .. }),
            ) => {
                let tokens: Vec<u64> = groups
                    .iter()
                    .map(|(_, prompt, answers)| {
                        u64::from(*prompt) + answers.iter().map(|a| a.ids.len() as u64).sum::<u64>()
                    })
                    .collect();
                let share = |mine: Vec<usize>| Share::Grpo {
                    data: *data,
                    rollout_policy: *policy,
                    objective: objective.clone(),
                    temperature: sampling.temperature,
                    max_new_tokens: sampling.max_new_tokens,
                    reference: self.reference.clone().filter(|_| objective.beta > 0.0),
                    groups: mine.iter().map(|&i| (groups[i].0, groups[i].2.clone())).collect(),
                };
                split::by_weight(&tokens, ranks).into_iter().map(share).collect()
            }
            (Batch::Sft(samples), Some(StageKind::Sft { data, .. })) => {
                split::evenly(samples.len(), ranks)
                    .into_iter()
                    .map(|mine| Share::Sft { data: *data, samples: samples[mine].to_vec() })
                    .collect()
            }
            // A batch is only ever made from its own stage.
            _ => Vec::new(),
        }
    }

    /// A rank's vote.
    pub(crate) fn vote(
        &mut self,
        now: Millis,
        rank: usize,
        ballot: Ballot,
        out: &mut Output,
    ) -> Result<(), Rejection> {
        let Phase::Updating(updating) = &mut self.phase else { return Err(Rejection::Unexpected) };
        if updating.ballots.contains_key(&rank) {
            return Err(Rejection::Duplicate);
        }
        updating.ballots.insert(rank, ballot);
        if updating.ballots.len() == self.seats.ranks.len() {
            self.count_ballots(now, out);
        }
        Ok(())
    }

    fn count_ballots(&mut self, now: Millis, out: &mut Output) {
        let Phase::Updating(updating) = &mut self.phase else { return };
        let Some(first) = updating.ballots.get(&0) else { return };
        if updating.ballots.values().all(|ballot| ballots_agree(first, ballot)) {
            return self.commit(now, out);
        }
        let nonfinite: Vec<usize> =
            updating.ballots.iter().filter(|(_, b)| !b.finite).map(|(&rank, _)| rank).collect();
        let odd: Vec<usize> = updating
            .ballots
            .iter()
            .filter(|(_, b)| b.gradient != first.gradient)
            .map(|(&rank, _)| rank)
            .collect();
        if nonfinite.len() == self.seats.ranks.len() {
            updating.learn.nonfinite += 1;
            if updating.learn.nonfinite >= MAX_NONFINITE {
                let reason = format!(
                    "the gradient of step {} was not finite on any worker, {MAX_NONFINITE} times: \
                     lower the stage's optimizer.lr or lengthen its warm-up",
                    updating.learn.at.step
                );
                return self.fail(now, reason, out);
            }
        }
        let reason = if nonfinite.is_empty() {
            let name = self.seats.name(0);
            format!("{} reduced another gradient than {name}", self.seats.names(odd))
        } else {
            format!("the gradient is not finite on {}", self.seats.names(nonfinite))
        };
        self.void(now, &reason, out);
    }

    /// The try came to nothing: the same groups again, in a new generation.
    pub(crate) fn void(&mut self, now: Millis, reason: &str, out: &mut Output) {
        let Phase::Updating(updating) = &mut self.phase else { return };
        let (step, attempt) = (updating.learn.at.step, updating.learn.attempt);
        updating.learn.attempt = attempt.next();
        out.events.push(Event::AttemptVoided { step, attempt, reason: reason.to_owned() });
        if attempt.0 >= self.spec.max_attempts.max(1) {
            let reason = format!("step {step} was voided {attempt} times; last: {reason}");
            self.fail(now, reason, out);
        } else {
            self.regroup(now, reason, out);
        }
    }

    /// Time is up for the ballots.
    pub(crate) fn updating_overdue(&mut self, now: Millis, out: &mut Output) {
        let Phase::Updating(updating) = &self.phase else { return };
        let silent = self.seats.present().filter(|rank| !updating.ballots.contains_key(rank));
        let reason = format!("no ballot from {} in time", self.seats.names(silent));
        self.void(now, &reason, out);
    }
}
