//! A real Slurm of several nodes on this host, for one test: `ops/slurm/up` and `down`. Dropped, all of it is gone.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    lab::{Lab, checkout},
    process::{coord, until},
};

/// What the tests need of Debian's packages.
const TOOLS: [&str; 6] = ["munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol"];

/// One cluster at a time: each takes both cores of a small machine.
static ONE: Mutex<()> = Mutex::new(());

/// Three nodes with two workers each, and room for nobody else on a node.
pub const SIX: &str =
    "nodes = 3\ntasks_per_node = 2\ngres = \"gpu:2\"\ntime = \"10\"\nsignal_before_s = 30\n";
/// A run of the tiny model that asks Slurm for this.
#[must_use]
pub fn lab(slurm: &str) -> Lab {
    let lab = Lab::new();
    lab.amend(|text| {
        let text = text.replace("[cluster]\n", "[cluster]\ntrusted_network = true\n");
        format!("{text}\n[cluster.slurm]\n{slurm}")
    });
    lab
}

/// What a cluster is like.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Seconds that a preempted job has.
    pub grace: u32,
    /// Network namespaces of the nodes.
    pub spaces: Vec<String>,
    /// Their addresses.
    pub addresses: Vec<String>,
    /// Address of the controller outside of them.
    pub control: Option<String>,
}

/// The cluster: nodes n1, n2 and n3 with two (pretended) GPUs each, partitions `main` and, above it, `urgent`.
pub struct Slurm {
    base: tempfile::TempDir,
    site: Site,
    /// Let go once all of it is gone.
    _one: MutexGuard<'static, ()>,
}

impl Slurm {
    /// Starts it. None, with the reason printed, where this cannot be done.
    ///
    /// # Panics
    /// When it does not come up where it should.
    #[must_use]
    pub fn up(site: Site) -> Option<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = lacking() {
            println!("skipped: no Slurm can be started here: {why}");
            return None;
        }
        let base = tempfile::Builder::new().prefix("slurm-").tempdir().expect("a folder");
        let mut up = Command::new(checkout().join("ops/slurm/up"));
        up.arg(base.path()).env("PORT", free_block(4).to_string());
        up.env("GRACE", site.grace.to_string());
        up.env("SPACES", site.spaces.join(" ")).env("ADDRESSES", site.addresses.join(" "));
        if let Some(control) = &site.control {
            up.env("CONTROL", control);
        }
        let slurm = Self { base, site, _one: one };
        let output = up.output().expect("ops/slurm/up starts");
        assert!(output.status.success(), "ops/slurm/up: {}", said(&output));
        Some(slurm)
    }

    /// Has `command` talk to this cluster.
    #[must_use]
    pub fn on(&self, mut command: Command) -> Command {
        command.env("SLURM_CONF", self.base.path().join("slurm.conf"));
        for name in ["SLURM_JOB_ID", "MEDEVO_TOKEN"] {
            command.env_remove(name);
        }
        command
    }

    /// A command's line for a shell, with what it needs to talk to this cluster.
    #[must_use]
    pub fn with_conf(&self, typed: &str) -> String {
        let conf = self.base.path().join("slurm.conf");
        format!("env -u SLURM_JOB_ID SLURM_CONF={} {typed}", conf.display())
    }

    /// `medevo-coord launch` of `lab`'s run file into run directory `name`, not yet started.
    #[must_use]
    pub fn launch(&self, lab: &Lab, name: &str) -> Command {
        self.on(coord([
            "launch",
            &lab.path("run.toml"),
            "--on",
            "slurm",
            "--run-dir",
            &lab.path(name),
        ]))
    }

    /// What a command of Slurm prints, or that it failed.
    ///
    /// # Panics
    /// When there is no such command.
    pub fn try_ask(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("timeout");
        command.args(["30", program]).args(arguments);
        let output = self.on(command).output().expect("timeout starts");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(said(&output)),
        }
    }

    /// What a command of Slurm prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> String {
        self.try_ask(program, arguments).unwrap_or_else(|why| panic!("{program}: {why}"))
    }

    /// The ids of all jobs that the controller lists.
    #[must_use]
    pub fn jobs(&self) -> Vec<String> {
        self.ask("squeue", &["-h", "-o", "%A"]).lines().map(str::to_owned).collect()
    }

    /// The only job there is, once there is one.
    #[must_use]
    pub fn the_job(&self) -> String {
        until("a job is submitted", || !self.jobs().is_empty());
        self.jobs().pop().expect("a job")
    }

    /// What the controller knows of a job, by key; nothing of one that it has forgotten.
    #[must_use]
    pub fn job(&self, id: &str) -> BTreeMap<String, String> {
        let told = self.try_ask("scontrol", &["show", "job", "-o", id]).unwrap_or_default();
        let pairs = told.split_whitespace().filter_map(|word| word.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Waits until a job is in a state ("RUNNING") with so many restarts.
    pub fn until_job(&self, id: &str, state: &str, restarts: u32) {
        let restarts = restarts.to_string();
        until(&format!("job {id} is {state} after {restarts} restarts"), || {
            let job = self.job(id);
            job.get("JobState").is_some_and(|now| now == state)
                && job.get("Restarts") == Some(&restarts)
        });
    }

    /// Kills a node's daemon (SIGKILL) and nothing else: its tasks go on.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill_daemon(&self, node: &str) {
        let file = self.base.path().join(format!("run/slurmd-{node}.pid"));
        let pid = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        kill(pid.trim().parse().expect("a process id"));
    }

    /// A node loses its power: daemon, step managers and tasks are gone at once.
    pub fn lose(&self, node: &str) {
        self.kill_daemon(node);
        let tasks = self.tasks(node);
        for task in &tasks {
            if let Some(manager) = manager(*task) {
                kill(manager);
            }
        }
        for task in tasks {
            kill(task);
        }
    }

    /// Starts a node's daemon again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restore(&self, node: &str) {
        let number: usize = node.trim_start_matches('n').parse().expect("a node is n and a number");
        let mut command = Command::new(checkout().join("ops/slurm/node"));
        command.arg(self.base.path()).arg(node);
        command.arg(self.site.spaces.get(number - 1).map_or("", String::as_str));
        let output = self.on(command).output().expect("ops/slurm/node starts");
        assert!(output.status.success(), "{}", said(&output));
    }

    /// Processes of jobs on a node: batch scripts, tasks, and what they have started.
    #[must_use]
    pub fn tasks(&self, node: &str) -> Vec<u32> {
        let conf = format!("SLURM_CONF={}", self.base.path().join("slurm.conf").display());
        let node = format!("SLURMD_NODENAME={node}");
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let has = |wanted: &str| environment.split(|b| *b == 0).any(|v| v == wanted.as_bytes());
            if has(&conf) && has(&node) && !is_zombie(pid) {
                found.push(pid);
            }
        }
        found
    }

    /// The folder of the cluster's logs, for messages.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.base.path().join("log")
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        let down = Command::new(checkout().join("ops/slurm/down")).arg(self.base.path()).output();
        if let Ok(output) = down
            && !output.status.success()
        {
            println!("ops/slurm/down: {}", said(&output));
        }
    }
}

/// Why no Slurm can be started here.
fn lacking() -> Option<String> {
    let id = Command::new("id").arg("-u").output().ok()?;
    if String::from_utf8_lossy(&id.stdout).trim() != "0" {
        return Some("it needs root".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &&str| std::env::split_paths(&path).any(|dir| dir.join(tool).exists());
    let missing: Vec<&str> = TOOLS.into_iter().filter(|tool| !there(tool)).collect();
    (!missing.is_empty()).then(|| format!("{} missing; ops/setup-services", missing.join(", ")))
}

/// The first of so many free ports in a row, below those that the system hands out.
fn free_block(count: u16) -> u16 {
    let start = 20_000 + (std::process::id() % 1000) as u16 * 8;
    let mut firsts = (0..1000).map(|i| 20_000 + (start - 20_000 + i * 8) % 8_000);
    let free = |port: u16| TcpListener::bind(("0.0.0.0", port)).is_ok();
    firsts.find(|first| (*first..first + count).all(free)).expect("free ports")
}

/// The step manager that a process hangs on.
fn manager(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    let name =
        std::fs::read_to_string(Path::new("/proc").join(parent.to_string()).join("comm")).ok()?;
    match name.trim() {
        "slurmstepd" => Some(parent),
        _ if parent > 1 => manager(parent),
        _ => None,
    }
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// One that has ended already is no failure.
fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
}

fn said(output: &Output) -> String {
    let [out, err] =
        [&output.stdout, &output.stderr].map(|s| String::from_utf8_lossy(s).into_owned());
    format!("{}\n{out}{err}", output.status)
}
