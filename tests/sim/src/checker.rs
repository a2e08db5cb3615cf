//! Watches what goes into and comes out of coordinators, and what workers do, and knows nothing of their insides.
//! It panics at the first thing that breaks an invariant.

mod acts;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use medevo_core::*;
use medevo_types::{
    Attempt, Digest, Generation, Incarnation, PolicyVersion, Step, Term, UnitId, WorkerId,
    messages::{Ballot, Rejection, Report},
};

use crate::weights::{model, stepped};

type Try = (Generation, Step, Attempt);

/// Groups that are with the scorer.
struct Asked {
    step: Step,
    since: Millis,
    earlier: usize,
    samples: Vec<SampleIndex>,
    failed: bool,
    /// By an earlier coordinator: this one may have them scored again.
    inherited: bool,
}

/// The independent account of a run.
pub struct Checker {
    spec: RunSpec,
    /// The term that the store holds.
    pub term: Term,
    generation: Generation,
    /// Generations on record, with the term that opened each.
    opened: BTreeMap<Generation, Term>,
    rosters: BTreeMap<Generation, Vec<WorkerId>>,
    /// Steps that stand, with the version after each.
    standing: BTreeMap<Step, PolicyVersion>,
    /// Weights of each version that stands.
    chain: BTreeMap<PolicyVersion, Digest>,
    /// Weights that any commit ever made, rolled back or not.
    ever: BTreeSet<(PolicyVersion, Digest)>,
    ballots: BTreeMap<Try, BTreeMap<WorkerId, Ballot>>,
    /// What the workers themselves say they voted.
    casts: Option<BTreeMap<Try, BTreeMap<WorkerId, Ballot>>>,
    /// What a step's gradient is taken of, whatever the attempt.
    contents: BTreeMap<(Step, PolicyVersion), String>,
    commits: BTreeMap<Try, Digest>,
    checkpoint: Option<CheckpointRef>,
    /// Directories whose manifest is written.
    pub manifests: BTreeSet<PathBuf>,
    published: BTreeSet<PathBuf>,
    /// What is with the scorer.
    scoring: Option<Asked>,
    /// Which scorings train the samples of a rollout, named by its first step.
    scored_by: BTreeMap<(Step, SampleIndex), BTreeSet<u64>>,
    /// How far each standing rollout has drawn in its stage's order, by its first step.
    drawn: BTreeMap<Step, u64>,
    units: BTreeMap<UnitId, (Step, PolicyVersion, Vec<SampleIndex>)>,
    lives: BTreeMap<WorkerId, Incarnation>,
    rejections: BTreeMap<Rejection, u64>,
    finished: bool,
}

impl Checker {
    /// An account of a run that has not begun.
    #[must_use]
    pub fn new(spec: RunSpec) -> Checker {
        Checker {
            spec,
            term: Term(0),
            generation: Generation(0),
            opened: BTreeMap::new(),
            rosters: BTreeMap::new(),
            standing: BTreeMap::new(),
            chain: BTreeMap::from([(PolicyVersion(0), model())]),
            ever: BTreeSet::from([(PolicyVersion(0), model())]),
            ballots: BTreeMap::new(),
            casts: None,
            contents: BTreeMap::new(),
            commits: BTreeMap::new(),
            checkpoint: None,
            manifests: BTreeSet::new(),
            published: BTreeSet::new(),
            scoring: None,
            scored_by: BTreeMap::new(),
            drawn: BTreeMap::new(),
            units: BTreeMap::new(),
            lives: BTreeMap::new(),
            rejections: BTreeMap::new(),
            finished: false,
        }
    }

    /// Version that stands now.
    #[must_use]
    pub fn policy(&self) -> PolicyVersion {
        self.standing.values().next_back().copied().unwrap_or_default()
    }

    /// Last step that stands.
    #[must_use]
    pub fn committed(&self) -> Step {
        self.standing.keys().next_back().copied().unwrap_or_default()
    }

    /// A coordinator has taken the run over.
    pub fn took_over(&mut self, term: Term) {
        assert!(term > self.term, "INV-8: term {term} is not new");
        self.term = term;
        self.rejections.clear();
        // A run that ended and is resumed may go on.
        self.finished = false;
        if let Some(asked) = &mut self.scoring {
            asked.inherited = true;
        }
    }

    /// A coordinator has stepped its core; nothing of the output is seen by anybody yet.
    pub fn stepped(&mut self, input: &Input, output: &Output) {
        if let Some(asked) = &mut self.scoring {
            asked.failed |= match input {
                Input::ScoringFailed { .. } => true,
                Input::Scored(scored) => scored.groups.len() != asked.samples.len(),
                _ => false,
            };
        }
        if let (Input::Report(envelope), Some(Reply::Ack(Ok(())))) = (input, &output.reply)
            && let Report::Ballot(ballot) = &envelope.body
        {
            let key = (envelope.generation, envelope.step, envelope.attempt);
            let worker = envelope.from.worker.clone();
            let earlier = self.ballots.entry(key).or_default().insert(worker, ballot.clone());
            assert!(earlier.is_none(), "a rank votes once on {key:?}");
        }
    }

    /// A record is in the store, whoever knows of it.
    pub fn recorded(&mut self, term: Term, record: &Record) {
        assert_eq!(term, self.term, "INV-8: a coordinator without the lead wrote {record:?}");
        self.record(record);
    }

    fn record(&mut self, record: &Record) {
        assert!(!self.finished, "nothing is recorded after the end: {record:?}");
        match record {
            Record::Generation(generation) => {
                assert!(*generation > self.generation, "INV-3: {generation} again");
                self.generation = *generation;
                self.opened.insert(*generation, self.term);
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
                    self.commits.insert((*generation, *step, *attempt), gradient.clone());
                    let after = stepped(&self.chain[&before], gradient);
                    self.ever.insert((*policy, after.clone()));
                    self.chain.insert(*policy, after);
                }
                self.standing.insert(*step, *policy);
            }
            Record::Rollback { step } => {
                let saved = self.checkpoint.as_ref().map_or(Step(0), |c| c.step);
                assert!((saved..=self.committed()).contains(step), "a rollback to {step}");
                self.standing.retain(|s, _| s <= step);
                let policy = self.policy();
                self.chain.retain(|p, _| *p <= policy);
                self.scoring = None;
                self.scored_by.retain(|(s, _), _| s <= step);
                self.drawn.retain(|s, _| s <= step);
                self.contents.retain(|(s, _), _| s <= step);
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
            if let Some(casts) = &self.casts {
                let cast = casts.get(&key).and_then(|votes| votes.get(worker));
                assert_eq!(cast, Some(ballot), "INV-2: {worker} has not voted so on {key:?}");
            }
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
