//! The batch script: what Slurm is asked for, and one command.

use std::path::{Path, PathBuf};

use medevo_common::config::{CoordinatorNode, NodeLoss, RunConfig, SlurmSection, WorkerDevice};

/// What the script is made of.
pub(super) struct Script<'a> {
    /// The run file, resolved; of an array that of its first run.
    pub(super) config: &'a RunConfig,
    /// The name that the queue shows.
    pub(super) name: &'a str,
    /// This program.
    pub(super) program: &'a Path,
    /// The run directory; of an array what stands before `-s<seed>`.
    pub(super) place: &'a Path,
    /// Seeds of an array of runs: its indices.
    pub(super) seeds: Option<&'a str>,
}

impl Script<'_> {
    /// Its text.
    pub(super) fn text(&self) -> String {
        let slurm = self.config.cluster.slurm.clone().unwrap_or_default();
        let mut lines = vec!["#!/bin/bash".to_owned()];
        lines.extend(self.options(&slurm).into_iter().map(|option| format!("#SBATCH {option}")));
        // Early, or while the lines below take their time, the signal would end the job.
        lines.push(
            "trap '' USR2 # it goes to this process, which is the launcher from `exec` on".into(),
        );
        lines.extend(slurm.setup.iter().cloned());
        let place = match self.seeds {
            Some(_) => {
                format!("{}\"-s$SLURM_ARRAY_TASK_ID\"", quoted(&self.place.to_string_lossy()))
            }
            None => quoted(&self.place.to_string_lossy()),
        };
        let program = quoted(&self.program.to_string_lossy());
        lines.push(format!("exec {program} launch {place} --on slurm"));
        lines.join("\n") + "\n"
    }

    fn options(&self, slurm: &SlurmSection) -> Vec<String> {
        let own = usize::from(slurm.coordinator == CoordinatorNode::Own);
        let (least, most) = (slurm.min_nodes.unwrap_or(slurm.nodes) + own, slurm.nodes + own);
        let nodes = if least == most { most.to_string() } else { format!("{least}-{most}") };
        let tasks = slurm.tasks_per_node;
        let mut options = vec![format!("--job-name={}", self.name), format!("--nodes={nodes}")];
        options.push(if least == most {
            format!("--ntasks-per-node={tasks}")
        } else {
            // A job that has begun keeps its number of tasks: with so many a node it could never start on fewer nodes.
            // The step has its tasks from `srun`.
            format!("--mincpus={}", tasks * slurm.cpus_per_task.unwrap_or(1))
        });
        let gpus = format!("gpu:{}", slurm.tasks_per_node);
        let gpus = (self.config.cluster.device == WorkerDevice::Cuda).then_some(gpus);
        for (option, value) in [
            ("cpus-per-task", slurm.cpus_per_task.map(|cpus| cpus.to_string())),
            ("mem", slurm.mem.clone()),
            ("gres", slurm.gres.clone().or(gpus)),
            ("constraint", slurm.constraint.clone()),
            ("partition", slurm.partition.clone()),
            ("account", slurm.account.clone()),
            ("qos", slurm.qos.clone()),
            ("time", slurm.time.clone()),
            ("array", self.seeds.map(str::to_owned)),
        ] {
            options.extend(value.map(|value| format!("--{option}={value}")));
        }
        options.push(format!("--signal=B:USR2@{}", slurm.signal_before_s));
        options.push(if slurm.requeue { "--requeue".into() } else { "--no-requeue".into() });
        options.extend((slurm.on_node_loss == NodeLoss::GoOn).then(|| "--no-kill".to_owned()));
        options.push("--open-mode=append".into());
        options.push(format!("--output={}", self.output().display()));
        options.extend(slurm.extra.iter().cloned());
        options
    }

    /// Where the launcher's and the coordinator's words go: `%j` is the job's id, `%a` the array's index.
    fn output(&self) -> PathBuf {
        let file = if self.seeds.is_some() { "slurm-%A_%a.out" } else { "slurm-%j.out" };
        let place = match self.seeds {
            Some(_) => PathBuf::from(format!("{}-s%a", self.place.display())),
            None => self.place.to_owned(),
        };
        place.join("logs").join(file)
    }
}

/// Characters of a path that `#SBATCH --output` would read as something else.
pub(super) fn unfit(place: &Path) -> bool {
    let text = place.to_string_lossy();
    text.chars().any(|c| c.is_whitespace() || c.is_control() || "\"'\\%#".contains(c))
}

/// A word for the shell, as it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::config, *};

    fn script(config: &RunConfig, seeds: Option<&str>) -> String {
        let (program, place) = (Path::new("/opt/medevo-coord"), Path::new("/runs/small"));
        Script { config, name: "small", program, place, seeds }.text()
    }

    fn options(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("#SBATCH ")).collect()
    }

    /// Fails when anything of the script changes that a cluster would notice.
    #[test]
    fn every_key_has_its_option() {
        let text = script(
            &config(
                "[cluster]\ndevice = \"cuda\"\n[cluster.slurm]\nnodes = 3\nmin_nodes = 2\ntasks_per_node = 8\n\
                 cpus_per_task = 6\nmem = \"0\"\npartition = \"gpu\"\naccount = \"radiology\"\nqos = \"long\"\n\
                 time = \"2-00:00:00\"\nconstraint = \"a100|h100\"\nextra = [\"--exclude=n7\"]\n\
                 setup = [\"module load cuda\"]\nsignal_before_s = 300\non_node_loss = \"go_on\"\n",
            ),
            None,
        );
        assert_eq!(
            options(&text),
            [
                "--job-name=small",
                "--nodes=2-3",
                "--mincpus=48",
                "--cpus-per-task=6",
                "--mem=0",
                "--gres=gpu:8",
                "--constraint=a100|h100",
                "--partition=gpu",
                "--account=radiology",
                "--qos=long",
                "--time=2-00:00:00",
                "--signal=B:USR2@300",
                "--requeue",
                "--no-kill",
                "--open-mode=append",
                "--output=/runs/small/logs/slurm-%j.out",
                "--exclude=n7",
            ]
        );
        let last: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(
            last,
            ["exec '/opt/medevo-coord' launch '/runs/small' --on slurm", "module load cuda"]
        );
    }

    /// Fails when a run on CPUs asks for GPUs, or a coordinator's own node is forgotten.
    #[test]
    fn what_is_left_out_is_not_asked_for() {
        let text = script(
            &config(
                "[cluster.slurm]\nnodes = 2\ncoordinator = \"own\"\nrequeue = false\non_node_loss = \"requeue\"\n",
            ),
            None,
        );
        let options = options(&text);
        assert!(options.contains(&"--nodes=3") && options.contains(&"--no-requeue"), "{text}");
        assert!(options.contains(&"--ntasks-per-node=1"), "{text}");
        for absent in ["--gres", "--time", "--no-kill", "--mem", "--partition"] {
            assert!(!options.iter().any(|option| option.starts_with(absent)), "{absent}: {text}");
        }
    }

    /// Fails when two runs of an array would share a directory or an output.
    #[test]
    fn an_array_has_a_directory_a_seed() {
        let text = script(&config(""), Some("0-4"));
        assert!(text.contains("#SBATCH --array=0-4\n"), "{text}");
        assert!(text.contains("--output=/runs/small-s%a/logs/slurm-%A_%a.out"), "{text}");
        assert!(
            text.contains("launch '/runs/small'\"-s$SLURM_ARRAY_TASK_ID\" --on slurm"),
            "{text}"
        );
    }

    #[test]
    fn no_path_becomes_a_command() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert!(unfit(Path::new("/runs/100%")) && unfit(Path::new("/my runs/x")));
        assert!(!unfit(Path::new("/runs/small-s1.2_3")));
    }
}
