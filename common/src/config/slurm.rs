//! `[cluster.slurm]`: what a run asks of Slurm, and its rules.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{raw::ClusterSection, rules::Rules};

/// What a run asks of Slurm (`medevo-coord launch RUN.toml --on slurm`): every key may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmSection {
    /// Nodes with workers.
    pub nodes: usize,
    /// Start, and start again after a loss, with as few nodes as this when there are not `nodes` of them; left out:
    /// only with all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_nodes: Option<usize>,
    /// Workers a node. With `cluster.device = "cuda"` that many GPUs a node are asked for, one for each worker.
    pub tasks_per_node: usize,
    /// CPUs a worker; its engine computes with so many threads unless `engine.threads` says otherwise. Left out: what
    /// the partition gives, and one thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus_per_task: Option<usize>,
    /// Memory a node, as `sbatch --mem` reads it ("64G"; "0" is all of it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem: Option<String>,
    /// Partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Quality of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<String>,
    /// Time limit of one life of the job ("24:00:00", "2-00:00:00"); the run goes on in the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Generic resources a node; left out: `gpu:<tasks_per_node>` with `cluster.device = "cuda"`, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gres: Option<String>,
    /// Features that nodes must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
    /// Further options of `sbatch`, one an entry, such as "--exclude=gpu07" or "--mail-type=FAIL".
    pub extra: Vec<String>,
    /// Lines of shell that the batch script runs first, such as "module load cuda".
    pub setup: Vec<String>,
    /// The run drains this long before the time limit, seconds: it must be enough for one step and a checkpoint. Slurm
    /// may be up to a minute early.
    pub signal_before_s: u64,
    /// Queue the job again when the time limit, preemption or the loss of too many nodes ends it; the run then goes on
    /// by itself.
    pub requeue: bool,
    /// No more than so many times.
    pub max_restarts: u64,
    /// What the loss of a node means.
    pub on_node_loss: NodeLoss,
    /// Where the coordinator runs.
    pub coordinator: CoordinatorNode,
    /// How long workers wait for a coordinator that is not there (any more) before they leave, seconds.
    pub coordinator_grace_s: u64,
    /// Run the workers in this container image by pyxis (`srun --container-image`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_image: Option<String>,
    /// Run the workers in this image by Apptainer (`apptainer exec`, with `--nv` for GPUs).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apptainer_image: Option<String>,
    /// What the container sees besides the run directory, the model, the data and the certificates: "PATH" or
    /// "PATH:PATH_INSIDE".
    pub container_mounts: Vec<String>,
    /// The worker's binary in the image: a path, or a name that is found there.
    pub container_worker: String,
}

/// What the loss of a node means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeLoss {
    /// The run goes on with the workers of the other nodes while `cluster.min_workers` are left. When it was the
    /// coordinator's node, the job may stay without a coordinator until its time limit: `scontrol requeue` it by hand.
    GoOn,
    /// Slurm ends the job and queues it again, with as many nodes as before.
    Requeue,
}

/// Where the coordinator runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CoordinatorNode {
    /// On the job's first node, beside its workers.
    First,
    /// On a node of its own: one more is asked for, with the same resources as the others.
    Own,
}

impl Default for SlurmSection {
    fn default() -> Self {
        Self {
            nodes: 1,
            min_nodes: None,
            tasks_per_node: 1,
            cpus_per_task: None,
            mem: None,
            partition: None,
            account: None,
            qos: None,
            time: None,
            gres: None,
            constraint: None,
            extra: Vec::new(),
            setup: Vec::new(),
            signal_before_s: 120,
            requeue: true,
            max_restarts: 100,
            on_node_loss: NodeLoss::Requeue,
            coordinator: CoordinatorNode::First,
            coordinator_grace_s: 120,
            container_image: None,
            apptainer_image: None,
            container_mounts: Vec::new(),
            container_worker: "medevo-worker".into(),
        }
    }
}

impl SlurmSection {
    /// Workers that the run has when all nodes are there.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.nodes.saturating_mul(self.tasks_per_node)
    }
}

/// Options of `sbatch` that the script sets itself, and the key that is meant for each.
const TAKEN: [(&str, &str); 15] = [
    ("--nodes", "cluster.slurm.nodes"),
    ("-N", "cluster.slurm.nodes"),
    ("--ntasks-per-node", "cluster.slurm.tasks_per_node"),
    ("--ntasks", "cluster.slurm.tasks_per_node"),
    ("-n", "cluster.slurm.tasks_per_node"),
    ("--cpus-per-task", "cluster.slurm.cpus_per_task"),
    ("-c", "cluster.slurm.cpus_per_task"),
    ("--gpus-per-task", "cluster.slurm.gres (each worker must see all GPUs of its node)"),
    ("--signal", "cluster.slurm.signal_before_s"),
    ("--requeue", "cluster.slurm.requeue"),
    ("--no-requeue", "cluster.slurm.requeue"),
    ("--no-kill", "cluster.slurm.on_node_loss"),
    ("-k", "cluster.slurm.on_node_loss"),
    ("--array", "launch --seeds"),
    ("-a", "launch --seeds"),
];

impl Rules {
    pub fn slurm(&mut self, cluster: &ClusterSection) {
        let Some(slurm) = &cluster.slurm else { return };
        let key = |name: &str| format!("cluster.slurm.{name}");
        self.at_least_one(slurm.nodes as u64, &key("nodes"));
        self.at_least_one(slurm.tasks_per_node as u64, &key("tasks_per_node"));
        self.require(
            slurm.min_nodes.is_none_or(|least| (1..=slurm.nodes).contains(&least)),
            &key("min_nodes"),
            format!("must lie between 1 and cluster.slurm.nodes ({})", slurm.nodes),
        );
        if let Some(cpus) = slurm.cpus_per_task {
            self.at_least_one(cpus as u64, &key("cpus_per_task"));
        }
        self.require(
            (30..=65_535).contains(&slurm.signal_before_s),
            &key("signal_before_s"),
            format!("must lie between 30 s and 65535 s, but it is {}", slurm.signal_before_s),
        );
        self.at_least_one(slurm.coordinator_grace_s, &key("coordinator_grace_s"));
        let workers = slurm.workers();
        self.require(
            (cluster.min_workers..=cluster.max_workers).contains(&workers),
            &key("nodes"),
            format!(
                "× cluster.slurm.tasks_per_node is {workers} workers, which must lie between cluster.min_workers ({}) \
                 and cluster.max_workers ({})",
                cluster.min_workers, cluster.max_workers
            ),
        );
        for (name, value) in [
            ("mem", &slurm.mem),
            ("partition", &slurm.partition),
            ("account", &slurm.account),
            ("qos", &slurm.qos),
            ("time", &slurm.time),
            ("gres", &slurm.gres),
            ("constraint", &slurm.constraint),
            ("container_image", &slurm.container_image),
            ("apptainer_image", &slurm.apptainer_image),
        ] {
            let Some(value) = value else { continue };
            self.require(
                is_word(value),
                &key(name),
                format!(
                    "must be a word without spaces, quotes and line breaks, but it is {value:?}"
                ),
            );
        }
        self.require(
            slurm.container_image.is_none() || slurm.apptainer_image.is_none(),
            &key("apptainer_image"),
            "and cluster.slurm.container_image exclude each other; leave one out",
        );
        self.require(
            is_word(&slurm.container_worker),
            &key("container_worker"),
            "must be a path or a name without spaces and quotes",
        );
        for (i, mount) in slurm.container_mounts.iter().enumerate() {
            self.require(
                is_word(mount) && mount.starts_with('/') && !mount.contains(','),
                &key(&format!("container_mounts[{i}]")),
                format!("must be /PATH or /PATH:/PATH_INSIDE, but it is {mount:?}"),
            );
        }
        for (i, line) in slurm.setup.iter().enumerate() {
            self.one_line(line, &key(&format!("setup[{i}]")));
        }
        for (i, line) in slurm.extra.iter().enumerate() {
            let path = key(&format!("extra[{i}]"));
            self.one_line(line, &path);
            self.require(
                line.starts_with('-'),
                &path,
                format!(
                    "must be an option of sbatch, such as \"--exclude=n7\", but it is {line:?}"
                ),
            );
            let option = line.split(['=', ' ']).next().unwrap_or_default();
            if let Some((_, instead)) = TAKEN.iter().find(|(taken, _)| *taken == option) {
                self.require(false, &path, format!("is {line:?}, which has a key: {instead}"));
            }
        }
    }

    /// More than one line would be more than one command of the script.
    fn one_line(&mut self, text: &str, path: &str) {
        self.require(
            !text.is_empty() && !text.chars().any(char::is_control),
            path,
            format!("must be one line of text, but it is {text:?}"),
        );
    }
}

/// Whether a text can stand in a line of the script without being read as anything else.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && !text.chars().any(|c| c.is_whitespace() || c.is_control() || "\"'`\\$;<>#".contains(c))
}
