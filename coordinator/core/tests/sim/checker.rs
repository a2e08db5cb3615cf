//! Watches what goes into and comes out of the core, and knows nothing of its insides.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use medevo_core::*;
use medevo_types::{
    Attempt, Digest, Generation, PolicyVersion, Step, Term, WorkerId,
    messages::{Ballot, Holding, Report},
};

use super::worker::{model, stepped};

type Try = (Generation, Step, Attempt);

/// Groups that are with the scorer.
struct Asked {
    step: Step,
    since: Millis,
    earlier: usize,
    samples: Vec<SampleIndex>,
    failed: bool,
}

/// The independent account of a run.
pub struct Checker {
    spec: RunSpec,
    pub term: Term,
    generation: Generation,
    rosters: BTreeMap<Generation, Vec<WorkerId>>,
    /// Steps that stand, with the version after each.
    standing: BTreeMap<Step, PolicyVersion>,
    /// Weights of each version that stands.
    chain: BTreeMap<PolicyVersion, Digest>,
    ballots: BTreeMap<Try, BTreeMap<WorkerId, Ballot>>,
    commits: BTreeSet<Try>,
    checkpoint: Option<CheckpointRef>,
    pub manifests: BTreeSet<PathBuf>,
    published: BTreeSet<PathBuf>,
    /// What is with the scorer.
    scoring: Option<Asked>,
    /// Which scorings train the samples of a rollout, named by its first step.
    scored_by: BTreeMap<(Step, SampleIndex), BTreeSet<u64>>,
    /// How far each standing rollout has drawn in its stage's order, by its first step.
    drawn: BTreeMap<Step, u64>,
    finished: bool,
}

impl Checker {
    pub fn new(spec: RunSpec) -> Checker {
        Checker {
            spec,
            term: Term(1),
            generation: Generation(0),
            rosters: BTreeMap::new(),
            standing: BTreeMap::new(),
            chain: BTreeMap::from([(PolicyVersion(0), model())]),
            ballots: BTreeMap::new(),
            commits: BTreeSet::new(),
            checkpoint: None,
            manifests: BTreeSet::new(),
            published: BTreeSet::new(),
            scoring: None,
            scored_by: BTreeMap::new(),
            drawn: BTreeMap::new(),
            finished: false,
        }
    }

    /// Version that stands now.
    pub fn policy(&self) -> PolicyVersion {
        self.standing.values().next_back().copied().unwrap_or_default()
    }

    pub fn committed(&self) -> Step {
        self.standing.keys().next_back().copied().unwrap_or_default()
    }

    pub fn restarted(&mut self, recovered: &Recovered) {
        self.term = recovered.term;
        self.scoring = None;
        self.scored_by.clear();
    }

    pub fn input(&mut self, _now: Millis, input: &Input) {
        let Some(asked) = &mut self.scoring else { return };
        asked.failed |= match input {
            Input::ScoringFailed { .. } => true,
            Input::Scored(scored) => scored.groups.len() != asked.samples.len(),
            _ => false,
        };
    }

    pub fn output(&mut self, now: Millis, input: &Input, output: &Output) {
        if let (Input::Report(envelope), Some(Reply::Ack(Ok(())))) = (input, &output.reply)
            && let Report::Ballot(ballot) = &envelope.body
        {
            let key = (envelope.generation, envelope.step, envelope.attempt);
            let worker = envelope.from.worker.clone();
            let earlier = self.ballots.entry(key).or_default().insert(worker, ballot.clone());
            assert!(earlier.is_none(), "a rank votes once on {key:?}");
        }
        for record in &output.records {
            self.record(record);
        }
        for event in &output.events {
            self.event(event);
        }
        for effect in &output.effects {
            self.effect(now, effect);
        }
        if let Some(Reply::Order(Ok(order))) = &output.reply {
            self.order(order);
        }
    }

    fn record(&mut self, record: &Record) {
        assert!(!self.finished, "nothing is recorded after the end: {record:?}");
        match record {
            Record::Generation(generation) => {
                assert!(*generation > self.generation, "INV-3: {generation} again");
                self.generation = *generation;
            }
            Record::Roster(_) => {}
            Record::Commit { step, attempt, generation, policy, gradient, .. } => {
                assert_eq!(*step, self.committed().next(), "INV-1: steps commit once, in order");
                let before = self.policy();
                if let Some(asked) = &self.scoring
                    && *step == asked.step
                {
                    let (from, drawn) = (self.drawn_before(asked.step), asked.samples.len());
                    self.drawn.insert(asked.step, from + drawn as u64);
                }
                if attempt.0 == 0 {
                    assert_eq!(*policy, before, "a step without an update moves no version");
                } else {
                    assert_eq!(*policy, before.next(), "a commit moves one version on");
                    self.unanimous((*generation, *step, *attempt), gradient);
                    self.commits.insert((*generation, *step, *attempt));
                    let after = stepped(&self.chain[&before], gradient);
                    self.chain.insert(*policy, after);
                }
                self.standing.insert(*step, *policy);
            }
            Record::Rollback { step } => {
                let saved = self.checkpoint.as_ref().map_or(Step(0), |c| c.step);
                let back_by_one = step.next() == self.committed();
                assert!(
                    *step == saved || back_by_one,
                    "a rollback goes to the checkpoint or one step"
                );
                self.standing.retain(|s, _| s <= step);
                let policy = self.policy();
                self.chain.retain(|p, _| *p <= policy);
                self.scoring = None;
                self.scored_by.retain(|(s, _), _| s <= step);
                self.drawn.retain(|s, _| s <= step);
            }
            Record::Checkpoint(checkpoint) => {
                assert!(self.manifests.contains(&checkpoint.dir), "INV-5: no manifest yet");
                assert!(self.published.insert(checkpoint.dir.clone()), "INV-5: not fresh");
                assert_eq!(checkpoint.step, self.committed(), "INV-5: of another step");
                assert_eq!(checkpoint.policy, self.policy(), "INV-5: of another version");
                let next = self.committed().next();
                assert_eq!(self.cycle(next).0, next, "INV-7: a checkpoint within a cycle");
                assert_eq!(checkpoint.holding, self.chain[&checkpoint.policy], "INV-5: digest");
                self.checkpoint = Some(checkpoint.clone());
            }
            Record::Finished(_) => self.finished = true,
        }
    }

    fn unanimous(&self, key: Try, gradient: &Digest) {
        let roster = &self.rosters[&key.0];
        let ballots = self.ballots.get(&key).expect("INV-2: there was a vote");
        for worker in roster {
            let ballot = ballots.get(worker).expect("INV-2: every rank voted");
            assert!(ballot.finite && ballot.gradient == *gradient, "INV-2: not unanimous");
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::GenerationOpened { generation, workers, .. } => {
                assert_eq!(*generation, self.generation, "INV-3: opened before it is on record");
                assert!(workers.len() <= self.spec.max_workers, "the roster is too large");
                assert!(workers.len() >= self.spec.min_workers, "the roster is too small");
                let used = self.rosters.insert(*generation, workers.clone());
                assert!(used.is_none(), "INV-3: generation {generation} used twice");
            }
            Event::DigestsAgree { policy, digest, .. } => {
                assert_eq!(*policy, self.policy(), "ranks agree on the current version");
                assert_eq!(*digest, self.chain[policy], "an update was lost or doubled");
            }
            _ => {}
        }
    }

    fn effect(&mut self, now: Millis, effect: &Effect) {
        match effect {
            Effect::Score { stage, step, policy, holding, earlier, groups } => {
                assert_eq!(
                    *holding, self.chain[policy],
                    "candidates are those of the ranks' weights"
                );
                assert_eq!(*step, self.committed().next(), "INV-4: of another step");
                assert_eq!(*policy, self.policy(), "INV-4: of another version");
                assert_eq!(self.cycle(*step).0, *step, "INV-4: a cycle scores once, at its start");
                let samples: Vec<SampleIndex> = groups.iter().map(|(sample, _)| *sample).collect();
                self.in_order(*stage, *step, &samples);
                for candidate in groups.iter().flat_map(|(_, g)| &g.candidates) {
                    assert_eq!(u64::from(candidate.ids[0]), policy.0, "INV-4: drawn by another");
                }
                let before = self.scoring.as_ref().filter(|asked| asked.step == *step);
                assert!(*earlier == 0 || before.is_some(), "INV-4: groups out of nowhere");
                if let Some(asked) = before {
                    let known = asked.samples.len().min(samples.len());
                    assert_eq!(asked.samples[..known], samples[..known], "other earlier groups");
                }
                if let Some(asked) = before.filter(|asked| asked.earlier == *earlier) {
                    let late = now >= asked.since + self.spec.deadlines.score_ms;
                    assert!(asked.failed || late, "INV-4: scored twice without a failure");
                }
                let (step, earlier) = (*step, *earlier);
                self.scoring = Some(Asked { step, since: now, earlier, samples, failed: false });
            }
            Effect::Evaluated { policy, pass, groups, .. } => {
                assert_eq!(*policy, self.policy(), "measured with other weights");
                let samples: Vec<usize> = groups.iter().map(|(sample, _)| *sample).collect();
                assert_eq!(samples, (0..pass.samples).collect::<Vec<_>>(), "a whole pass");
            }
            Effect::WriteManifest { .. } | Effect::Finish(_) => {}
        }
    }

    fn order(&mut self, order: &Order) {
        match order {
            Order::Form(roster) => {
                assert_eq!(
                    roster.generation, self.generation,
                    "INV-3: an old roster is handed out"
                );
            }
            Order::Rollout { policy, .. } => assert_eq!(*policy, self.policy()),
            Order::Update { generation, step, share, policy, .. } => {
                assert_eq!(*generation, self.generation);
                assert_eq!(*policy, self.policy());
                assert_eq!(*step, self.committed().next(), "INV-1: a committed step again");
                if let Share::Grpo { groups, rollout_policy, .. } = share {
                    let (start, iteration) = self.cycle(*step);
                    assert_eq!(rollout_policy.0 + iteration, policy.0, "whose candidates");
                    for (sample, answers) in groups {
                        let times = self.scoring.as_ref().map_or(0, |asked| {
                            asked.samples.iter().filter(|other| *other == sample).count()
                        });
                        let by = self.scored_by.entry((start, *sample)).or_default();
                        for answer in answers {
                            assert_eq!(u64::from(answer.ids[0]), rollout_policy.0, "INV-4: stale");
                            by.insert(answer.advantage as u64);
                        }
                        assert!(by.len() <= times, "INV-4: two scorings train one group");
                    }
                }
            }
            Order::Apply { generation, step, attempt, .. } => {
                let key = (*generation, *step, *attempt);
                assert!(self.commits.contains(&key), "INV-2: apply before the commit is on record");
            }
            _ => {}
        }
    }

    /// The first step of the cycle that `step` lies in, and how many of its steps come before `step`.
    fn cycle(&self, step: Step) -> (Step, u64) {
        let mut before = 0;
        for stage in &self.spec.stages {
            let (steps, each) = match &stage.kind {
                StageKind::Sft { steps, .. } => (*steps, 1),
                StageKind::Rl { steps, objective, .. } => (*steps, objective.num_iterations),
                StageKind::Evaluate { .. } => (0, 1),
            };
            if step.0 <= before + steps {
                let within = (step.0 - before - 1) % each;
                return (Step(step.0 - within), within);
            }
            before += steps;
        }
        (step, 0)
    }

    /// Questions that standing rollouts have drawn before the one that starts at `step`; the specs have one
    /// rl stage.
    fn drawn_before(&self, step: Step) -> u64 {
        self.drawn.range(..step).next_back().map_or(0, |(_, drawn)| *drawn)
    }

    /// INV-7: questions come in the stage's order, each once, whatever was lost or drawn again in between.
    fn in_order(&self, stage: usize, step: Step, samples: &[SampleIndex]) {
        let StageKind::Rl { samples: size, .. } = &self.spec.stages[stage].kind else {
            panic!("only rl stages score")
        };
        let first = self.drawn_before(step);
        let expected = samples_from(self.spec.seed, stage, first, samples.len(), *size, 1);
        assert_eq!(samples, expected, "INV-7: questions out of order at step {step}");
    }

    /// A worker that is to use weights must hold the version that stands, and its very digest.
    pub fn holds(&self, name: &WorkerId, holding: &Option<Holding>, policy: PolicyVersion) {
        let held = holding.as_ref().unwrap_or_else(|| panic!("{name} holds nothing"));
        assert_eq!(held.policy, policy, "{name} holds another version");
        assert_eq!(held.digest, self.chain[&policy], "{name} holds other weights");
    }

    /// INV-6: a phase that is not final has a deadline ahead and a sentence.
    pub fn explained(&self, core: &Core, now: Millis) {
        let sentence = core.explain(now);
        if core.finished().is_none() {
            assert!(sentence.ends_with("s left"), "INV-6: no deadline: {sentence}");
            assert!(!sentence.contains("on  ("), "INV-6: waits on nobody: {sentence}");
            assert!(!sentence.contains(" 0 s left"), "INV-6: a deadline has passed: {sentence}");
        }
    }

    /// After a run that is done: every step stands once.
    pub fn complete(&self, steps: u64) {
        let standing: Vec<u64> = self.standing.keys().map(|s| s.0).collect();
        assert_eq!(standing, (1..=steps).collect::<Vec<_>>());
    }
}
