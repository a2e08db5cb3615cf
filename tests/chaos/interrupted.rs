//! Launches that are interrupted at random moments, by every signal that a user or a terminal sends: what is left?
//! `LAUNCHES=50 SEED=7` says how many, and which; `make interrupts` makes 50.

use std::{
    os::unix::process::CommandExt,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use medevo_tests::{
    history::History,
    lab::Lab,
    process::{heeding_hangup, must, wait},
    traces::{MARK, half_written, processes_marked, unlocked},
};

/// Latest moment of the first signal: by then a quiet machine is in the last stage of the run.
const LATEST_MS: u64 = 10_000;
/// Each so many launches one is resumed to its end.
const RESUMED: u64 = 10;
/// Steps of the run: 4 supervised, the others label-free.
const STEPS: u64 = 12;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// How a launch is interrupted.
#[derive(Clone, Copy, Debug)]
enum How {
    /// Ctrl-C: SIGINT to the group of the terminal.
    Once,
    /// Ctrl-C, and once more so many milliseconds later.
    Twice(u64),
    /// SIGTERM to the group, as a session that ends sends it.
    Terminated,
    /// SIGHUP to the group, twice, as a terminal that is closed sends it.
    HungUp,
    /// SIGHUP and SIGTERM together.
    LoggedOut,
}

impl How {
    fn draw(random: &mut Random) -> Self {
        match random.below(10) {
            0..=3 => Self::Once,
            4..=6 => Self::Twice(random.below(2_000)),
            7 => Self::Terminated,
            8 => Self::HungUp,
            _ => Self::LoggedOut,
        }
    }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"))
}

/// To a process group, which may have gone by now.
fn send(group: u32, signal: &str) {
    let _ = Command::new("kill").args([&format!("-{signal}"), "--", &format!("-{group}")]).output();
}

/// Fails when an interrupted launch leaves a process, a lock or half a file, when its exit code does not tell how it
/// ended, or when it cannot be resumed.
#[test]
fn launches_that_are_interrupted_at_random_moments_leave_nothing() {
    let (launches, seed) = (number("LAUNCHES", 10), number("SEED", 7));
    let lab = Lab::new();
    let mut random = Random(seed);
    let mut codes = std::collections::BTreeMap::new();
    let mut resumed = 0;
    for launch in 0..launches {
        let name = format!("run-{launch}");
        let mark = format!("{}-{launch}", std::process::id());
        let (workers, how) = (1 + random.below(2) as usize, How::draw(&mut random));
        // Half of the moments lie in the first quarter, where most is begun.
        let moment = random.below(LATEST_MS) * random.below(1_000) / 1_000;
        let mut command = lab.launch(&name, workers);
        command.args(["--set", &format!("stage.adapt.steps={}", STEPS - 4)]);
        let mut command = heeding_hangup(&command);
        let child = command.env(MARK, &mark).process_group(0).spawn().expect("it starts");
        // The moment is what is tested, not a condition to wait for.
        sleep(Duration::from_millis(moment));
        let group = child.id();
        let began = Instant::now();
        match how {
            How::Once => send(group, "INT"),
            How::Twice(gap) => {
                send(group, "INT");
                sleep(Duration::from_millis(gap));
                send(group, "INT");
            }
            How::Terminated => send(group, "TERM"),
            How::HungUp => {
                send(group, "HUP");
                sleep(Duration::from_millis(5));
                send(group, "HUP");
            }
            How::LoggedOut => {
                send(group, "HUP");
                send(group, "TERM");
            }
        }
        let said = wait(child);
        let took = began.elapsed().as_secs_f64();
        let dir = lab.run_dir(&name);
        let code = said.status.code();
        println!("{launch}: {workers} workers, {how:?} after {moment} ms: {code:?} in {took:.1} s");
        assert!(!said.stderr.contains("panicked"), "{}", said.said());
        *codes.entry(format!("{code:?}")).or_insert(0) += 1;
        match code {
            // A signal before anything was made ends a process as any other.
            None => {
                assert!(!dir.exists(), "ended by the signal, and left a directory: {}", said.said())
            }
            Some(0 | 3) => {}
            Some(5) => assert!(matches!(how, How::Twice(_)), "{}", said.said()),
            Some(other) => panic!("exit code {other}: {}", said.said()),
        }
        assert_eq!(processes_marked(&mark), Vec::<String>::new(), "nothing is left running");
        assert!(unlocked(&dir), "no lock is left: {}", said.said());
        assert_eq!(half_written(&dir), Vec::<String>::new(), "{}", said.said());
        if dir.exists() && launch % RESUMED == RESUMED - 1 {
            let _ = lab.resume(&name, workers).expect_code(0);
            History::read(&dir).check(STEPS);
            assert_eq!(half_written(&dir), Vec::<String>::new(), "after resume");
            resumed += 1;
        }
        if dir.exists() {
            let mut remove = Command::new("rm");
            remove.arg("-r").arg(&dir);
            let _ = must(remove);
        }
    }
    println!(
        "{launches} launches from seed {seed}: exit codes {codes:?}, {resumed} resumed to the end"
    );
}
