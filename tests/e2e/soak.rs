//! Hundreds of steps through the real processes: coordinator and workers must not grow. Host memory that grows until the
//! run is killed at some hundredth step is what users of other systems report.

use std::{
    io::{BufRead as _, BufReader},
    time::{Duration, Instant},
};

use medevo_tests::{
    footprint::{Footprint, floor, growth_kib_per_step},
    history::History,
    lab::Lab,
    process::{until, wait, worker_pid},
};

/// Steps in a test run; `make soak` takes 500.
const STEPS: u64 = 350;
/// Caches fill and allocators settle in the first steps; all images have been seen several times by then.
const SETTLED: u64 = 100;
/// Steps between two checkpoints.
const CHECKPOINT: u64 = 50;
/// The lowest look of so many steps counts.
const BLOCK: u64 = 25;
/// Bounds on the growth of one process after [`SETTLED`]: a step, and as a share of what it holds.
const KIB_PER_STEP: f64 = 20.0;
const SHARE: f64 = 0.05;
/// Growth that no share is made of, KiB. The coordinator is small, and it remembers each distinct answer for the
/// document frequencies of its embedder; random weights hardly ever say the same twice.
const SLACK_KIB: f64 = 4096.0;
const DEADLINE: Duration = Duration::from_secs(900);

/// Fails when a hundred and more steps of training, with their checkpoints, cost a process memory, handles or threads that it
/// does not give back.
#[test]
fn hundreds_of_steps_cost_no_memory() {
    let steps =
        std::env::var("STEPS").map_or(STEPS, |steps| steps.parse().expect("STEPS is a number"));
    let lab = Lab::new();
    let dir = lab.run_dir("soak");
    let mut command = lab.launch("soak", 2);
    command.env("OMP_WAIT_POLICY", "passive");
    // Large blocks go back to the system at once: what is resident is then what is held, and not how the
    // allocator's heap has come to lie.
    command.env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_TRIM_THRESHOLD_", "65536");
    for setting in [
        "stage.warm-start.steps=1",
        &format!("stage.adapt.steps={}", steps - 1),
        "stage.adapt.questions=2",
        "stage.adapt.rollout.n=4",
        "stage.adapt.rollout.max_new_tokens=4",
        "cluster.prompts_per_unit=1",
        "engine.threads=1",
        &format!("checkpoint.every_steps={CHECKPOINT}"),
    ] {
        command.args(["--set", setting]);
    }
    let mut child = command.spawn().expect("the coordinator starts");
    lab.until_committed("soak", 1);
    let mut processes = vec![("coordinator".to_owned(), child.id())];
    processes.extend(["w0", "w1"].map(|worker| (worker.to_owned(), worker_pid(&dir, worker))));

    let file = std::fs::File::open(dir.join("events.jsonl")).expect("events.jsonl");
    let (mut events, mut line, mut step) = (BufReader::new(file), String::new(), 0);
    let mut looks: Vec<Vec<Footprint>> = vec![Vec::new(); processes.len()];
    let deadline = Instant::now() + DEADLINE;
    while child.try_wait().expect("a child can be waited for").is_none() && step < steps {
        assert!(Instant::now() < deadline, "step {step} after {DEADLINE:?}");
        // A line that is still being written is completed by a later read.
        while events.read_line(&mut line).expect("events.jsonl can be read") > 0
            && line.ends_with('\n')
        {
            step += u64::from(line.contains("\"step_committed\""));
            line.clear();
        }
        for ((_, pid), looks) in processes.iter().zip(&mut looks) {
            looks.extend(Footprint::of(*pid, step));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = wait(child).expect_code(0);
    History::read(&dir).check(steps);
    until("the workers end", || processes.iter().all(|(_, pid)| Footprint::of(*pid, 0).is_none()));

    let mut grown = Vec::new();
    for ((name, _), looks) in processes.iter().zip(&looks) {
        grown.extend(judge(name, looks, steps));
    }
    assert!(grown.is_empty(), "{}\n{}", grown.join("\n"), said.said());
}

type Count = fn(&Footprint) -> usize;

/// What has grown in one process; prints its figures.
fn judge(name: &str, looks: &[Footprint], steps: u64) -> Vec<String> {
    let settled: Vec<Footprint> =
        looks.iter().copied().filter(|look| look.step >= SETTLED && look.step < steps).collect();
    let floor = floor(&settled, BLOCK);
    assert!(floor.len() >= 10, "{name}: looks at only {} times {BLOCK} steps", floor.len());
    let slope = growth_kib_per_step(&floor);
    let mean = floor.iter().map(|look| look.resident_kib).sum::<f64>() / floor.len() as f64;
    let total = slope * (steps - SETTLED) as f64;
    println!(
        "{name}: {:.1} MiB, {slope:+.2} KiB a step, {:+.2} % in all",
        mean / 1024.0,
        100.0 * total / mean
    );
    let levels: Vec<String> =
        floor.iter().map(|look| format!("{:.1}", look.resident_kib / 1024.0)).collect();
    println!("{name}: {} MiB", levels.join(" "));
    let mut grown = Vec::new();
    if slope > KIB_PER_STEP || total > SLACK_KIB.max(SHARE * mean) {
        grown.push(format!("{name}: memory grows by {slope:.1} KiB a step"));
    }
    // What is open for a moment is no growth: the least that is held late, against the most held before.
    let (early, late) = settled.split_at(settled.len() / 2);
    let counts: [(&str, Count); 2] =
        [("file handles", |look| look.handles), ("threads", |look| look.threads)];
    for (what, count) in counts {
        let before = early.iter().map(count).max().unwrap_or(0);
        let after = late.iter().map(count).min().unwrap_or(0);
        println!(
            "{name}: at most {before} {what} in the first half, at least {after} in the second"
        );
        if after > before {
            grown.push(format!("{name}: at most {before} {what}, later at least {after}"));
        }
    }
    grown
}
