//! Scoring: the driver turns whole groups into verdicts, once (INV-4).

use medevo_types::{
    Attempt, Step,
    messages::{Group, TrainAnswer},
};

use crate::{
    Core, Effect, GroupVerdict, Millis, Output, SampleIndex, Scored,
    phase::{Batch, Learn, Phase, Scoring, Work},
    plan::TrainStep,
};

/// Tries at scoring one step.
const MAX_SCORINGS: u32 = 3;

impl Core {
    /// All groups are there: hand them to the driver.
    pub(crate) fn score(
        &mut self,
        now: Millis,
        at: TrainStep,
        groups: Vec<(SampleIndex, Group)>,
        out: &mut Output,
    ) {
        let deadline = now + self.spec.deadlines.score_ms;
        self.enter(now, Phase::Scoring(Scoring { at, groups, failures: 0, deadline }), out);
        self.ask_for_scores(out);
    }

    fn ask_for_scores(&self, out: &mut Output) {
        let Phase::Scoring(scoring) = &self.phase else { return };
        out.effects.push(Effect::Score {
            stage: scoring.at.stage,
            step: scoring.at.step,
            policy: self.policy,
            groups: scoring.groups.clone(),
        });
    }

    /// The verdicts. What does not belong to the groups that are waiting is not taken: a late answer
    /// for a step that was rolled back must not train.
    pub(crate) fn scored(&mut self, now: Millis, scored: Scored, out: &mut Output) {
        let Phase::Scoring(scoring) = &self.phase else { return };
        if scored.step != scoring.at.step || scored.policy != self.policy {
            return;
        }
        let fitting = scored.groups.len() == scoring.groups.len()
            && scored.groups.iter().zip(&scoring.groups).all(|(v, (_, group))| fits(v, group));
        if !fitting {
            let error = "the verdicts do not belong to the step's groups".to_owned();
            return self.scoring_failed(now, scored.step, &error, out);
        }
        let Phase::Scoring(scoring) = std::mem::take(&mut self.phase) else { return };
        let at = scoring.at;
        let groups: Vec<(SampleIndex, u32, Vec<TrainAnswer>)> = scored
            .groups
            .into_iter()
            .zip(scoring.groups)
            .filter_map(|(verdict, (sample, group))| match verdict {
                GroupVerdict::Train(answers) if !answers.is_empty() => {
                    Some((sample, group.prompt_tokens, answers))
                }
                _ => None,
            })
            .collect();
        if groups.is_empty() {
            return self.pass_step(now, at, scored.figures, out);
        }
        let learn = Learn {
            at,
            batch: Batch::Grpo(groups),
            attempt: Attempt(1),
            nonfinite: 0,
            figures: scored.figures,
        };
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
