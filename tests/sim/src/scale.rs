//! What one core costs with many workers: every message of a step is made and fed as a cluster would send it.
//!
//! Workers answer at once, so that what is measured is the coordinator. As the real driver does, every output that
//! wakes the long polls makes every waiting worker ask again, the status is looked at twice a second, and the core
//! is told the time ten times a second.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use medevo_core::*;
use medevo_types::{
    Attempt, Digest, Generation, Incarnation, PolicyVersion, Step, Term, WorkerTag,
    messages::{Ballot, Candidate, Envelope, FileEntry, Group, Holding, Report},
    settings::Sampling,
};

use crate::{
    scorer::Scorer,
    spec,
    weights::{model, stepped},
};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Workers.
    pub workers: usize,
    /// Groups a step.
    pub groups: usize,
    /// Candidates a group.
    pub candidates: usize,
    /// Tokens a candidate.
    pub tokens: usize,
    /// Prompts a unit.
    pub prompts_per_unit: usize,
    /// Steps.
    pub steps: u64,
    /// How long a step is, seconds: how many heartbeats, ticks and looks at the status fall into it.
    pub step_s: u64,
}

/// What it took, over all steps.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// Number of inputs and time in [`Core::step`], by kind of input.
    pub inputs: BTreeMap<&'static str, (u64, Duration)>,
    /// Looks at the status and their time.
    pub views: (u64, Duration),
    /// Events.
    pub events: u64,
    /// Records.
    pub records: u64,
    /// Messages between workers and coordinator, both ways counted as one.
    pub messages: u64,
    /// Resident memory at the end of each step, bytes.
    pub resident: Vec<u64>,
    /// Longest single input.
    pub longest: (Duration, &'static str),
}

impl Cost {
    /// Time in the core.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.inputs.values().map(|(_, time)| *time).sum::<Duration>() + self.views.1
    }
}

struct Bench {
    core: Core,
    now: Millis,
    size: Size,
    cost: Cost,
    scorer: Scorer,
    waiting: Vec<usize>,
    effects: Vec<Effect>,
    committed: u64,
    finished: bool,
}

struct Member {
    tag: WorkerTag,
    holding: Option<Holding>,
    gradient: Option<Digest>,
    generation: Generation,
}

/// Feeds a run of this size through one core.
///
/// # Panics
/// When the run does not go as it must.
#[must_use]
pub fn measure(size: Size) -> Cost {
    let base = spec::only_rl(size.steps);
    let mut spec = RunSpec {
        min_workers: size.workers,
        max_workers: size.workers,
        expected_workers: size.workers,
        prompts_per_unit: size.prompts_per_unit,
        checkpoint_every: 0,
        deadlines: Deadlines { lease_ttl_ms: 10_000, unit_ms: 600_000, ..base.deadlines.clone() },
        ..base
    };
    for limit in [&mut spec.deadlines.update_ms, &mut spec.deadlines.apply_ms] {
        *limit = 600_000;
    }
    if let StageKind::Rl { samples, questions, sampling, .. } = &mut spec.stages[0].kind {
        (*samples, *questions) = (size.groups * 2, size.groups);
        *sampling = Sampling { n: size.candidates, ..sampling.clone() };
    }
    let mut members: Vec<Member> = (0..size.workers)
        .map(|w| Member {
            tag: WorkerTag {
                worker: format!("w{w:04}").as_str().into(),
                incarnation: Incarnation(1),
            },
            holding: None,
            gradient: None,
            generation: Generation(0),
        })
        .collect();
    let recovered = Recovered { term: Term(1), ..Recovered::default() };
    let mut bench = Bench {
        core: Core::new(spec, recovered),
        now: 0,
        size,
        cost: Cost::default(),
        scorer: Scorer::default(),
        waiting: Vec::new(),
        effects: Vec::new(),
        committed: 0,
        finished: false,
    };
    for member in &members {
        let (device, address) = ("cpu".to_owned(), "127.0.0.1".to_owned());
        bench.feed("join", Input::Join { tag: member.tag.clone(), device, address });
    }
    // Starting up is not part of a step.
    bench.cost = Cost::default();
    let mut asking: VecDeque<usize> = (0..size.workers).collect();
    while !bench.finished {
        let before = bench.committed;
        while let Some(w) = asking.pop_front() {
            bench.serve(w, &mut members[w], &mut asking);
        }
        bench.carry_out(&mut asking);
        if bench.committed > before {
            bench.between(&members, &mut asking);
        }
        if asking.is_empty() && bench.effects.is_empty() && !bench.finished {
            asking.extend(std::mem::take(&mut bench.waiting));
            bench.now += 1;
            bench.feed("tick", Input::Tick);
        }
    }
    bench.cost
}

impl Bench {
    fn feed(&mut self, kind: &'static str, input: Input) -> (Option<Reply>, bool) {
        // The driver keeps a copy, to answer with if it must stop.
        let begun = Instant::now();
        let output = self.core.step(self.now, input);
        let took = begun.elapsed();
        let entry = self.cost.inputs.entry(kind).or_default();
        (entry.0, entry.1) = (entry.0 + 1, entry.1 + took);
        self.cost.longest = self.cost.longest.max((took, kind));
        self.cost.events += output.events.len() as u64;
        self.cost.records += output.records.len() as u64;
        let commits = output.events.iter().filter(|e| matches!(e, Event::StepCommitted { .. }));
        self.committed += commits.count() as u64;
        self.finished |= output.events.iter().any(|e| matches!(e, Event::Finished(_)));
        self.effects.extend(output.effects);
        (output.reply, output.wake)
    }

    fn serve(&mut self, w: usize, member: &mut Member, asking: &mut VecDeque<usize>) {
        self.cost.messages += 1;
        let (reply, woken) = self.feed("pull", Input::Pull(member.tag.clone()));
        if woken {
            asking.extend(std::mem::take(&mut self.waiting));
        }
        let Some(Reply::Order(Ok(order))) = reply else { panic!("an order, not {reply:?}") };
        let Some((kind, envelope)) = self.obey(member, order) else {
            self.waiting.push(w);
            return;
        };
        self.cost.messages += 1;
        let (reply, woken) = self.feed(kind, Input::Report(Box::new(envelope)));
        assert_eq!(reply, Some(Reply::Ack(Ok(()))), "{kind}");
        if woken {
            asking.extend(std::mem::take(&mut self.waiting));
        }
        asking.push_back(w);
    }

    fn obey(&self, member: &mut Member, order: Order) -> Option<(&'static str, Envelope)> {
        let none = (Step(0), Attempt(0));
        let (kind, (step, attempt), body) = match order {
            Order::Wait { .. } | Order::Stop { .. } => return None,
            Order::Form(roster) => {
                member.generation = roster.generation;
                ("formed", none, Report::Formed { holding: member.holding.clone() })
            }
            Order::Restore(restore) => {
                let holding = Holding { policy: restore.policy, digest: model() };
                member.holding = Some(holding.clone());
                ("restored", none, Report::Restored { holding })
            }
            Order::Rollout { unit, policy, step, samples, .. } => {
                let groups = samples.iter().map(|&sample| self.group(sample, policy)).collect();
                let body = Report::RolloutDone { unit, policy, groups };
                ("rollout", (step, Attempt(0)), body)
            }
            Order::Update { step, attempt, .. } => {
                let gradient = Digest(format!("g{step}"));
                member.gradient = Some(gradient.clone());
                let figures = vec![("loss".to_owned(), 0.1)];
                let ballot = Ballot { gradient, finite: true, grad_norm: 1.0, figures };
                ("ballot", (step, attempt), Report::Ballot(ballot))
            }
            Order::Apply { step, attempt, policy, .. } => {
                let held = member.holding.take().expect("a voter holds weights");
                let gradient = member.gradient.take().expect("a voter keeps a gradient");
                let holding = Holding { policy, digest: stepped(&held.digest, &gradient) };
                member.holding = Some(holding.clone());
                ("applied", (step, attempt), Report::Applied { holding })
            }
            Order::Checkpoint { step, .. } => {
                let (name, digest) = ("model.safetensors".to_owned(), Digest("f".into()));
                let files = vec![FileEntry { name, bytes: 1, digest }];
                ("saved", (step, Attempt(0)), Report::CheckpointWritten { files })
            }
        };
        let (from, generation) = (member.tag.clone(), member.generation);
        Some((kind, Envelope { from, generation, step, attempt, body }))
    }

    fn group(&self, sample: SampleIndex, policy: PolicyVersion) -> Group {
        let candidate = |i: usize| Candidate {
            ids: [policy.0 as u32, sample as u32, i as u32]
                .into_iter()
                .chain(0..)
                .take(self.size.tokens)
                .collect(),
            text: String::from("an answer"),
            logprobs: vec![-0.5; self.size.tokens],
            finished: true,
            feature: None,
        };
        Group {
            sample: medevo_types::SampleId(sample.to_string()),
            prompt_tokens: 100 + (sample % 50) as u32,
            candidates: (0..self.size.candidates).map(candidate).collect(),
            entropy: 0.1,
        }
    }

    fn carry_out(&mut self, asking: &mut VecDeque<usize>) {
        for effect in std::mem::take(&mut self.effects) {
            // As the driver, who gives scored groups back on another thread.
            let mut spent = Vec::new();
            let (kind, input) = match effect {
                Effect::Score { step, policy, earlier, groups, .. } => {
                    let job = self.scorer.job(step, policy, earlier, &groups);
                    spent = groups;
                    ("scored", self.scorer.accept(job).expect("the only job"))
                }
                Effect::WriteManifest { checkpoint, .. } => {
                    ("manifest", Input::ManifestWritten(checkpoint))
                }
                Effect::Evaluated { .. } | Effect::Finish(_) => continue,
            };
            if self.feed(kind, input).1 {
                asking.extend(std::mem::take(&mut self.waiting));
            }
            drop(spent);
        }
    }

    /// What falls into a step's time beside its work.
    fn between(&mut self, members: &[Member], asking: &mut VecDeque<usize>) {
        self.cost.resident.push(resident());
        for tenth in 0..self.size.step_s * 10 {
            self.now += 100;
            if tenth % 33 == 0 {
                for member in members {
                    self.cost.messages += 1;
                    self.feed("heartbeat", Input::Heartbeat(member.tag.clone()));
                }
            }
            if tenth % 5 == 0 {
                let begun = Instant::now();
                let view = self.core.view(self.now);
                assert_eq!(view.workers.len(), members.len(), "nobody is lost");
                self.cost.views = (self.cost.views.0 + 1, self.cost.views.1 + begun.elapsed());
            }
            if self.feed("tick", Input::Tick).1 {
                asking.extend(std::mem::take(&mut self.waiting));
            }
        }
    }
}

/// Resident memory of this process, bytes; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
