//! A run whose processes a test starts one by one, as a scheduler on several hosts would: a coordinator
//! without workers of its own, and workers that join it. Dropped, all of them are killed.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::SystemTime,
};

use crate::{
    history::History,
    lab::Lab,
    process::{coord, is_stopped, processes_naming, signal, until, worker},
};

/// The name of the coordinator that is started first.
pub const COORDINATOR: &str = "coordinator";
/// The name of the one that stands by.
pub const STANDBY: &str = "standby";

/// The processes of a run.
pub struct Cluster {
    dir: PathBuf,
    logs: PathBuf,
    address: String,
    /// The coordinator that the run is expected to end with.
    leader: String,
    processes: BTreeMap<String, Child>,
}

impl Cluster {
    /// A run in run directory `name` of `lab`; nothing is started yet.
    ///
    /// # Panics
    /// When no port is free or no folder can be made.
    #[must_use]
    pub fn new(lab: &Lab, name: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("its address").to_string();
        let (dir, logs) = (lab.run_dir(name), lab.run_dir(&format!("{name}-logs")));
        std::fs::create_dir(&logs).expect("a folder for the logs");
        Self { dir, logs, address, leader: COORDINATOR.to_owned(), processes: BTreeMap::new() }
    }

    /// As told, with workers that reach the coordinator at `address`.
    #[must_use]
    pub fn listening_on(mut self, address: &str) -> Self {
        address.clone_into(&mut self.address);
        self
    }

    /// The run directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the coordinator listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Starts the coordinator for `workers` workers, with further settings and a fault of its own
    /// (`MEDEVO_COORD_FAULT`) or none ("").
    pub fn launch(&mut self, lab: &Lab, workers: usize, set: &[&str], fault: &str) {
        let (address, dir) = (&self.address, &self.dir.to_string_lossy());
        let mut command = coord(["launch", &lab.path("run.toml"), "--run-dir", dir]);
        command.args(["--workers", "0"]);
        let (listen, all) = (format!("cluster.listen={address}"), workers.to_string());
        let all = format!("cluster.max_workers={all}");
        for setting in [
            &listen,
            &all,
            "cluster.grace_s=20",
            "engine.threads=1",
            "cluster.trusted_network=true",
        ]
        .iter()
        .chain(set)
        {
            command.args(["--set", setting]);
        }
        if !fault.is_empty() {
            command.env("MEDEVO_COORD_FAULT", fault);
        }
        self.start(COORDINATOR, command);
    }

    /// Starts a coordinator that leads (`medevo-coord serve`), as [`Cluster::launch`] does.
    pub fn serve(&mut self, lab: &Lab, workers: usize, set: &[&str], fault: &str) {
        let dir = self.dir.to_string_lossy();
        let mut command = coord(["serve", &lab.path("run.toml"), "--run-dir", &dir]);
        let all = format!("cluster.max_workers={workers}");
        for setting in [&all, "cluster.grace_s=20", "engine.threads=1"].iter().chain(set) {
            command.args(["--set", setting]);
        }
        if !fault.is_empty() {
            command.env("MEDEVO_COORD_FAULT", fault);
        }
        self.start(COORDINATOR, command);
    }

    /// Starts a coordinator that waits for the leading one's end.
    pub fn stand_by(&mut self) {
        let command = coord(["serve", &self.dir.to_string_lossy(), "--standby"]);
        self.start(STANDBY, command);
    }

    /// The run ends with another coordinator than the first.
    pub fn led_by(&mut self, name: &str) {
        name.clone_into(&mut self.leader);
    }

    /// The command of a worker that finds the coordinator in the run directory.
    #[must_use]
    pub fn worker_that_searches(&self, name: &str) -> Command {
        let mut command =
            worker(["join", "--run-dir", &self.dir.to_string_lossy(), "--worker-id", name]);
        command.args(["--leader-grace", "90", "--die-with-parent"]);
        command
    }

    /// Starts a coordinator that goes on with the run, in the place of one that has ended.
    pub fn resume(&mut self) {
        let command = coord(["resume", &self.dir.to_string_lossy(), "--workers", "0"]);
        self.start(COORDINATOR, command);
    }

    /// Starts a worker with a fault of its own (`MEDEVO_FAULT`) or none ("").
    pub fn join(&mut self, name: &str, fault: &str) {
        let command = self.worker(name);
        self.join_by(name, fault, command);
    }

    /// Starts a worker by a command of the caller's, see [`Cluster::worker`].
    pub fn join_by(&mut self, name: &str, fault: &str, mut command: Command) {
        if !fault.is_empty() {
            command.env("MEDEVO_FAULT", fault);
        }
        self.start(name, command);
    }

    /// The command of a worker.
    #[must_use]
    pub fn worker(&self, name: &str) -> Command {
        self.worker_through(name, &self.address)
    }

    /// The command of a worker that reaches the coordinator at another address than its own.
    #[must_use]
    pub fn worker_through(&self, name: &str, address: &str) -> Command {
        let mut command = worker(["join", "--coordinator", address, "--worker-id", name]);
        // It must not outlive a test that is killed itself.
        command.args(["--leader-grace", "90", "--die-with-parent"]);
        command
    }

    /// Waits until the coordinator can be reached.
    pub fn until_listening(&self) {
        until("the coordinator listens", || TcpStream::connect(&self.address).is_ok());
    }

    /// Starts a process of the run; what it writes goes to its log.
    ///
    /// # Panics
    /// When it cannot be started, or one of that name runs already.
    pub fn start(&mut self, name: &str, mut command: Command) {
        let log = self.logs.join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log).expect("a log");
        command.env("MEDEVO_TOKEN", "a-token-for-the-processes-of-a-test");
        command.stdout(log.try_clone().expect("a handle")).stderr(log);
        let child = command.spawn().expect("the process starts");
        if let Some(mut before) = self.processes.insert(name.to_owned(), child) {
            let ended = before.try_wait().expect("a child can be waited for");
            assert!(ended.is_some(), "{name} runs already");
        }
    }

    /// The process id.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn pid(&self, name: &str) -> u32 {
        self.processes.get(name).unwrap_or_else(|| panic!("{name} was not started")).id()
    }

    /// How a process ended, if it has.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn ended(&mut self, name: &str) -> Option<ExitStatus> {
        let child =
            self.processes.get_mut(name).unwrap_or_else(|| panic!("{name} was not started"));
        child.try_wait().expect("a child can be waited for")
    }

    /// Kills a process (SIGKILL) and reaps it. Returns when it did.
    ///
    /// # Panics
    /// When it has ended by itself.
    pub fn kill(&mut self, name: &str) -> SystemTime {
        assert!(self.ended(name).is_none(), "{name} has ended by itself\n{}", self.said());
        let now = SystemTime::now();
        let child = self.processes.get_mut(name).expect("it was started");
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child ends");
        now
    }

    /// Sends a signal ("STOP", "CONT", "INT") to a process.
    pub fn signal(&self, name: &str, which: &str) {
        signal(self.pid(name), which);
    }

    /// As [`Cluster::signal`], where the process may have ended.
    pub fn signal_if_alive(&mut self, name: &str, which: &str) {
        if self.ended(name).is_none() {
            self.signal(name, which);
        }
    }

    /// Waits until a process has killed itself at its fault point; returns when that was seen. None when
    /// the run is over and it never came there.
    ///
    /// # Panics
    /// When the coordinator fails before, or nothing happens in time.
    pub fn until_killed(&mut self, name: &str) -> Option<SystemTime> {
        until(&format!("{name} dies at its fault point"), || {
            self.ended(name).is_some() || self.ended(COORDINATOR).is_some()
        });
        let now = SystemTime::now();
        if self.ended(name).is_some_and(|status| status.code().is_none()) {
            return Some(now);
        }
        self.expect_done();
        None
    }

    /// Waits until a process stands still at its fault point.
    pub fn until_stopped(&mut self, name: &str) {
        let pid = self.pid(name);
        until(&format!("{name} stops at its fault point"), || {
            assert!(self.ended(name).is_none(), "{name} has ended\n{}", self.said());
            is_stopped(pid)
        });
    }

    /// Waits until something is found in the events so far; fails when the coordinator ends first.
    pub fn until_event(&mut self, what: &str, mut found: impl FnMut(&History) -> bool) {
        let dir = self.dir.clone();
        until(what, || {
            let ended = self.ended(COORDINATOR).is_some();
            let found = found(&History::read_so_far(&dir));
            assert!(found || !ended, "{what}: the coordinator has ended\n{}", self.said());
            found
        });
    }

    /// Waits until `steps` steps are committed.
    pub fn until_committed(&mut self, steps: usize) {
        self.until_event(&format!("{steps} steps"), |history| {
            history.of("step_committed").count() >= steps
        });
    }

    /// Waits for a process to end, and expects exit code `code`.
    ///
    /// # Panics
    /// When it ends otherwise, or not in time.
    pub fn expect_end(&mut self, name: &str, code: i32) {
        until(&format!("{name} ends"), || self.ended(name).is_some());
        let status = self.ended(name).expect("it has ended");
        assert_eq!(status.code(), Some(code), "{name}: {status}\n{}", self.said());
    }

    /// Waits for the run to be done and for every process that is left to leave.
    ///
    /// # Panics
    /// When the coordinator does not end well, or something is left running.
    pub fn expect_done(&mut self) {
        self.expect_end(&self.leader.clone(), 0);
        self.expect_nothing_left();
    }

    /// Has the run drain, and waits as in [`Cluster::expect_done`].
    pub fn drain(&mut self) {
        self.signal(COORDINATOR, "INT");
        self.expect_end(COORDINATOR, 3);
        self.expect_nothing_left();
    }

    /// Waits for every process that is left to leave a run that is over.
    ///
    /// # Panics
    /// When one does not, or a process of the run is left that nobody here started.
    pub fn expect_nothing_left(&mut self) {
        let left: Vec<String> = self.processes.keys().cloned().collect();
        for name in left {
            until(&format!("{name} leaves a run that is over"), || self.ended(&name).is_some());
        }
        for path in [&self.dir, &self.logs] {
            assert_eq!(processes_naming(path), Vec::<String>::new(), "nothing is left running");
        }
    }

    /// The last lines of every process, for messages.
    #[must_use]
    pub fn said(&self) -> String {
        let mut said = String::new();
        for name in self.processes.keys() {
            let log = self.logs.join(format!("{name}.log"));
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(8)..].join("\n");
            said.push_str(&format!("--- {name}\n{tail}\n"));
        }
        said
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.processes.values_mut() {
            // One that has ended already is only reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
