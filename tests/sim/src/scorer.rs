//! The driver's scorer, without scores: whole groups in, verdicts out, each judged once.

use medevo_core::{GroupVerdict, Input, SampleIndex, Scored};
use medevo_types::{
    PolicyVersion, Step,
    messages::{Candidate, Group, TrainAnswer},
};

/// What the scorer remembers, and what it finds nothing to train on in.
#[derive(Clone, Debug, Default)]
pub struct Scorer {
    /// Verdicts of the rollout's rounds so far.
    judged: Vec<GroupVerdict>,
    /// Bumped whenever an outstanding job no longer counts.
    epoch: u64,
    /// Scorings so far.
    pub scorings: u64,
    /// Every so many scorings find nothing to train on; 0: none does.
    pub quiet_every: u64,
    /// Every so many samples never train; 0: all may.
    pub dull_every: usize,
}

/// A round to score.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its step.
    pub step: Step,
    policy: PolicyVersion,
    earlier: usize,
    judged: Vec<GroupVerdict>,
    epoch: u64,
}

impl Job {
    /// Its number.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Scorer {
    /// Starts to score a round; an outstanding one no longer counts.
    ///
    /// # Panics
    /// When the earlier groups are not those that were scored last: the core broke its word.
    pub fn job(
        &mut self,
        step: Step,
        policy: PolicyVersion,
        earlier: usize,
        groups: &[(SampleIndex, Group)],
    ) -> Job {
        self.epoch += 1;
        self.scorings += 1;
        let mut judged = if earlier == 0 { Vec::new() } else { self.judged.clone() };
        assert_eq!(judged.len(), earlier, "INV-4: goes on with groups that were not scored last");
        for (sample, group) in &groups[earlier..] {
            judged.push(self.verdict(*sample, group));
        }
        Job { step, policy, earlier, judged, epoch: self.epoch }
    }

    /// Number of the latest job; any other no longer counts.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Forgets outstanding jobs and what was judged: the steps are void.
    pub fn go_back(&mut self) {
        self.epoch += 1;
        self.judged.clear();
    }

    /// The input that a finished job makes, if it still counts.
    pub fn accept(&mut self, job: Job) -> Option<Input> {
        let Job { step, policy, earlier, judged, epoch } = job;
        if epoch != self.epoch {
            return None;
        }
        self.judged.clone_from(&judged);
        let figures = vec![("share".to_owned(), 0.5)];
        Some(Input::Scored(Scored { step, policy, earlier, groups: judged, figures }))
    }

    /// The number of the scoring stands in the advantage, so that the checker can tell scorings apart.
    fn verdict(&self, sample: SampleIndex, group: &Group) -> GroupVerdict {
        let quiet = self.quiet_every > 0 && self.scorings.is_multiple_of(self.quiet_every);
        if quiet || (self.dull_every > 0 && sample.is_multiple_of(self.dull_every)) {
            return GroupVerdict::NoVariance;
        }
        let answer = |c: &Candidate| TrainAnswer {
            ids: c.ids.clone(),
            count: 1,
            advantage: self.scorings as f64,
            logprobs: c.logprobs.clone(),
        };
        GroupVerdict::Train(group.candidates.iter().map(answer).collect())
    }
}
