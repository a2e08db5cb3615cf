//! The engine under a stopwatch: `ops/bench` runs this beside TRL and transformers, one step here, one there.
//!
//! `bench SPEC.json` loads the model and prints a line once it is ready. It then reads orders from standard
//! input, `step K` or `rollout K`, does that on the spec's questions number K, and prints one JSON object for
//! each: seconds of wall clock and of processor time, tokens, and resident memory.

use std::{
    io::{BufRead as _, Write as _},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, bail, ensure};
use medevo_collective::Solo;
use medevo_engine::Engine;
use medevo_types::{
    Attempt, Generation, PolicyVersion, SampleId, Step, UnitId,
    messages::{
        ApplyWork, Batch, EngineSetup, Group, Prompt, Purpose, RestoreSource, RolloutUnit,
        TrainAnswer, TrainGroup, UpdateWork,
    },
    settings::{Dtype, Objective, OptimizerSettings, Sampling, TrainSettings},
};
use serde::{Deserialize, Serialize};

/// What to run; `ops/bench/model.py` writes it.
#[derive(Deserialize)]
struct Spec {
    /// Hugging Face directory with weights.
    model: PathBuf,
    /// The same without weights, whose end of an answer is a token that no model draws: every answer then has
    /// `answer_tokens` tokens.
    endless: PathBuf,
    threads: usize,
    n: usize,
    answer_tokens: usize,
    tokens_per_batch: usize,
    /// By number: the questions of one step.
    steps: Vec<Vec<Question>>,
}

#[derive(Deserialize)]
struct Question {
    question: String,
    images: Vec<PathBuf>,
}

/// The answer to one order.
#[derive(Serialize)]
struct Timing {
    rollout_s: f64,
    update_s: f64,
    /// User and system time of all threads.
    rollout_cpu_s: f64,
    update_cpu_s: f64,
    prompt_tokens: usize,
    answer_tokens: usize,
    #[serde(flatten)]
    memory: Memory,
}

/// Resident memory of this process, KiB.
#[derive(Serialize)]
struct Memory {
    rss_kib: u64,
    peak_kib: u64,
}

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("usage: bench SPEC.json")?;
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", PathBuf::from(&path).display()))?;
    let spec: Spec = serde_json::from_str(&text)
        .with_context(|| format!("{} is no spec of a bench", PathBuf::from(&path).display()))?;
    let setup = EngineSetup {
        model: spec.endless.clone(),
        dtype: Dtype::F32,
        seed: 0,
        threads: spec.threads,
        max_prompt_tokens: 4096,
        tokens_per_batch: spec.tokens_per_batch,
        collective_timeout_ms: 30_000,
        freeze_vision: false,
        train: TrainSettings::default(),
        lora: None,
    };
    let mut engine = Engine::new(&setup, tch::Device::cuda_if_available())?;
    let source = RestoreSource::Model { dir: spec.model.clone() };
    engine.restore(&source, PolicyVersion(0), &mut Solo)?;
    say(&memory()?)?;

    let mut version = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (what, number) = line.split_once(' ').context("an order is `step K` or `rollout K`")?;
        let number: usize = number.parse().with_context(|| format!("no number in {line:?}"))?;
        let questions =
            spec.steps.get(number).with_context(|| format!("the spec has no step {number}"))?;
        let prompts = prompts(number, questions);
        let start = Clock::now()?;
        let groups = draw(&mut engine, &spec, version, &prompts)?;
        let (rollout_s, rollout_cpu_s) = start.elapsed()?;
        let (prompt_tokens, answer_tokens) = tokens(&groups);
        let start = Clock::now()?;
        match what {
            "rollout" => {}
            "step" => learn(&mut engine, &spec, &mut version, &prompts, groups)?,
            other => bail!("unknown order {other:?}; it is `step K` or `rollout K`"),
        }
        let (update_s, update_cpu_s) = start.elapsed()?;
        let memory = memory()?;
        say(&Timing {
            rollout_s,
            update_s,
            rollout_cpu_s,
            update_cpu_s,
            prompt_tokens,
            answer_tokens,
            memory,
        })?;
    }
    Ok(())
}

fn say(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    Ok(out.flush()?)
}

fn prompts(step: usize, questions: &[Question]) -> Vec<Prompt> {
    let prompt = |(place, question): (usize, &Question)| Prompt {
        sample: SampleId(format!("{step}-{place}")),
        images: question.images.clone(),
        question: question.question.clone(),
    };
    questions.iter().enumerate().map(prompt).collect()
}

fn draw(
    engine: &mut Engine,
    spec: &Spec,
    version: u64,
    prompts: &[Prompt],
) -> anyhow::Result<Vec<Group>> {
    let unit = RolloutUnit {
        unit: UnitId(version),
        policy: PolicyVersion(version),
        step: Step(version + 1),
        purpose: Purpose::Train,
        sampling: Sampling { n: spec.n, max_new_tokens: spec.answer_tokens, ..Sampling::default() },
        features: false,
        prompts: prompts.to_vec(),
    };
    Ok(engine.rollout(&unit)?)
}

/// Prompt tokens (once for each candidate, as TRL counts) and answer tokens.
fn tokens(groups: &[Group]) -> (usize, usize) {
    let prompt =
        groups.iter().map(|group| group.prompt_tokens as usize * group.candidates.len()).sum();
    let answers = groups.iter().flat_map(|group| group.candidates.iter());
    (prompt, answers.map(|candidate| candidate.ids.len()).sum())
}

/// One update with TRL's default loss and made-up advantages, which cost what real ones cost.
fn learn(
    engine: &mut Engine,
    spec: &Spec,
    version: &mut u64,
    prompts: &[Prompt],
    groups: Vec<Group>,
) -> anyhow::Result<()> {
    let groups = prompts.iter().zip(groups).map(train_group).collect();
    let work = UpdateWork {
        generation: Generation(1),
        step: Step(*version + 1),
        attempt: Attempt(1),
        policy: PolicyVersion(*version),
        batch: Batch::Grpo {
            rollout_policy: PolicyVersion(*version),
            objective: Objective { beta: 0.0, ..Objective::default() },
            temperature: 1.0,
            max_new_tokens: spec.answer_tokens,
            reference: None,
            groups,
        },
    };
    let ballot = engine.update(&work, &mut Solo)?;
    ensure!(ballot.finite, "the gradient is not finite");
    let apply = ApplyWork {
        generation: work.generation,
        step: work.step,
        attempt: work.attempt,
        policy: PolicyVersion(*version + 1),
        optimizer: OptimizerSettings::default(),
        lr: 1e-6,
        reset_moments: *version == 0,
    };
    engine.apply(&apply, &mut Solo)?;
    *version += 1;
    Ok(())
}

/// Identical candidates joined, as the coordinator joins them.
fn train_group((prompt, group): (&Prompt, Group)) -> TrainGroup {
    let mut answers: Vec<TrainAnswer> = Vec::new();
    for (place, candidate) in group.candidates.iter().enumerate() {
        match answers.iter_mut().find(|answer| answer.ids == candidate.ids) {
            Some(answer) => answer.count += 1,
            None => answers.push(TrainAnswer {
                ids: candidate.ids.clone(),
                count: 1,
                advantage: if place % 2 == 0 { 1.0 } else { -1.0 },
                logprobs: candidate.logprobs.clone(),
            }),
        }
    }
    TrainGroup { prompt: prompt.clone(), answers: answers.into() }
}

/// Wall clock and processor time together.
struct Clock {
    wall: Instant,
    cpu: f64,
}

impl Clock {
    fn now() -> anyhow::Result<Self> {
        Ok(Self { wall: Instant::now(), cpu: cpu_seconds()? })
    }

    fn elapsed(&self) -> anyhow::Result<(f64, f64)> {
        Ok((self.wall.elapsed().as_secs_f64(), cpu_seconds()? - self.cpu))
    }
}

/// User and system time of this process so far, in the kernel's ticks of a hundredth of a second.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The program's name, in brackets, may hold spaces; what follows is fields 3 and up.
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat has another form")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |field: usize| -> anyhow::Result<f64> {
        let text = fields.get(field - 3).context("/proc/self/stat has too few fields")?;
        Ok(text.parse::<f64>()?)
    };
    Ok((ticks(14)? + ticks(15)?) / 100.0)
}

fn memory() -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = |key: &str| -> anyhow::Result<u64> {
        let mut lines = status.lines().filter_map(|line| line.strip_prefix(key));
        let line = lines.next().with_context(|| format!("/proc/self/status has no {key}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    Ok(Memory { rss_kib: kib("VmRSS:")?, peak_kib: kib("VmHWM:")? })
}
