//! Scoring: the driver turns whole groups into verdicts, once (INV-4). While too few of them train, dynamic
//! sampling draws further questions and has those scored too.

use medevo_types::{Attempt, Step, messages::Group};

use crate::{
    Core, Effect, GroupVerdict, Millis, Output, Scored, StageKind,
    phase::{Batch, Draw, Learn, Phase, Scoring, Work},
};

/// Tries at scoring one round of a rollout.
const MAX_SCORINGS: u32 = 3;

impl Core {
    /// A round's groups are there: hand them to the driver.
    pub(crate) fn score(&mut self, now: Millis, draw: Draw, out: &mut Output) {
        let Draw { at, round, earlier: mut groups, units } = draw;
        let earlier = groups.len();
        groups.extend(units.into_groups());
        let deadline = now + self.spec.deadlines.score_ms;
        let scoring = Scoring { at, round, earlier, groups, failures: 0, deadline };
        self.enter(now, Phase::Scoring(scoring), out);
        self.ask_for_scores(out);
    }

    fn ask_for_scores(&self, out: &mut Output) {
        let Phase::Scoring(scoring) = &self.phase else { return };
        out.effects.push(Effect::Score {
            stage: scoring.at.stage,
            step: scoring.at.step,
            policy: self.policy,
            holding: self.weights.digest(),
            earlier: scoring.earlier,
            groups: scoring.groups.clone(),
        });
    }

    /// The verdicts. What does not belong to the groups that are waiting is not taken: a late answer
    /// for a step that was rolled back must not train.
    pub(crate) fn scored(&mut self, now: Millis, scored: Scored, out: &mut Output) {
        let Phase::Scoring(scoring) = &self.phase else { return };
        let waiting = (scoring.at.step, self.policy, scoring.earlier);
        if (scored.step, scored.policy, scored.earlier) != waiting {
            return;
        }
        let fitting = scored.groups.len() == scoring.groups.len()
            && scored.groups.iter().zip(&scoring.groups).all(|(v, (_, group))| fits(v, group));
        if !fitting {
            let error = "the verdicts do not belong to the step's groups".to_owned();
            return self.scoring_failed(now, scored.step, &error, out);
        }
        let Phase::Scoring(scoring) = std::mem::take(&mut self.phase) else { return };
        let training = scored.groups.iter().filter(|verdict| trains(verdict)).count();
        match self.questions_missing(&scoring, training) {
            0 => self.learn(now, scoring, scored, out),
            missing => {
                let Scoring { at, round, groups, .. } = scoring;
                if let Some(draw) = self.draw(at, round + 1, Some(missing), groups, out) {
                    self.start(now, Work::Draw(draw), out);
                }
            }
        }
    }

    /// Questions that another round of the rollout is to draw, given how many groups train so far. A question
    /// drawn again with the same weights would give the same answers, so the data's size is the limit.
    fn questions_missing(&self, scoring: &Scoring, training: usize) -> usize {
        match self.spec.stages.get(scoring.at.stage).map(|stage| &stage.kind) {
            Some(StageKind::Rl { questions, samples, extra_rounds, .. })
                if scoring.round <= *extra_rounds =>
            {
                let left = samples.saturating_sub(scoring.groups.len());
                questions.saturating_sub(training).min(left)
            }
            _ => 0,
        }
    }

    /// The rollout is complete: on to the update, or past it if no group trains.
    fn learn(&mut self, now: Millis, scoring: Scoring, scored: Scored, out: &mut Output) {
        let Some(StageKind::Rl { questions, extra_rounds, .. }) =
            self.spec.stages.get(scoring.at.stage).map(|stage| &stage.kind)
        else {
            return;
        };
        let Scoring { at, round, groups, .. } = scoring;
        let extra = groups.len().saturating_sub(*questions) as u64;
        let mut figures = scored.figures;
        if *extra_rounds > 0 {
            let silent = scored.groups.iter().filter(|verdict| !trains(verdict)).count();
            figures.push(("rounds".to_owned(), round as f64));
            figures.push(("groups_without_signal".to_owned(), silent as f64));
        }
        let verdicts = scored.groups.into_iter().zip(groups);
        let groups: Vec<_> = verdicts
            .filter_map(|(verdict, (sample, group))| match verdict {
                GroupVerdict::Train(answers) if !answers.is_empty() => {
                    Some((sample, group.prompt_tokens, answers))
                }
                _ => None,
            })
            .collect();
        if groups.is_empty() {
            return self.pass_cycle(now, at, figures, extra, out);
        }
        let batch = Batch::Grpo(self.policy, groups);
        let learn = Learn { at, batch, attempt: Attempt(1), nonfinite: 0, figures, extra };
        self.start(now, Work::Learn(Box::new(learn)), out);
    }

    /// Scoring failed or took too long: the same groups again, a few times.
    pub(crate) fn scoring_failed(
        &mut self,
        now: Millis,
        step: Step,
        error: &str,
        out: &mut Output,
    ) {
        let Phase::Scoring(scoring) = &mut self.phase else { return };
        if scoring.at.step != step {
            return;
        }
        scoring.failures += 1;
        scoring.deadline = now + self.spec.deadlines.score_ms;
        if scoring.failures >= MAX_SCORINGS {
            let reason =
                format!("scoring of step {step} failed {MAX_SCORINGS} times; last: {error}");
            self.fail(now, reason, out);
        } else {
            self.ask_for_scores(out);
        }
    }
}

fn trains(verdict: &GroupVerdict) -> bool {
    matches!(verdict, GroupVerdict::Train(answers) if !answers.is_empty())
}

/// Whether a verdict trains on nothing but the group's own candidates.
fn fits(verdict: &GroupVerdict, group: &Group) -> bool {
    let GroupVerdict::Train(answers) = verdict else { return true };
    let count: u64 = answers.iter().map(|a| u64::from(a.count)).sum();
    count <= group.candidates.len() as u64
        && answers.iter().all(|answer| {
            answer.advantage.is_finite()
                && group.candidates.iter().any(|candidate| candidate.ids == answer.ids)
        })
}
