//! What types cannot say: ranges, references between sections, deadlines that must nest.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    ops::Deref,
    path::{Path, PathBuf},
};

use super::{
    error::{ConfigErrors, ConfigProblem, Place},
    raw::{RunConfig, StageSection},
    rules::Rules,
};

/// A run file that has passed [`RunConfig::validate`]; the only one that a run is started from.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidConfig(RunConfig);

impl ValidConfig {
    /// Reads a run file from disk, lays `overrides` (`key=value`) over it and validates the whole. Unlike
    /// [`RunConfig::validate`] it knows the file, so values out of range are named with their line too.
    ///
    /// # Errors
    /// As [`RunConfig::load`] and [`RunConfig::validate`].
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigErrors> {
        let (config, root) = RunConfig::load_with_places(path, overrides)?;
        config.checked(path, |key| root.place_of(key))
    }

    /// The plain value, for writing the resolved run file.
    #[must_use]
    pub fn into_inner(self) -> RunConfig {
        self.0
    }
}

impl Deref for ValidConfig {
    type Target = RunConfig;

    fn deref(&self) -> &RunConfig {
        &self.0
    }
}

impl RunConfig {
    /// Checks ranges, names and deadlines.
    ///
    /// # Errors
    /// Every value that cannot work, each with its path in the file and what would.
    pub fn validate(self) -> Result<ValidConfig, ConfigErrors> {
        self.checked(Path::new("run file"), |_| Place::File)
    }

    fn checked(
        self,
        path: &Path,
        place: impl Fn(&str) -> Place,
    ) -> Result<ValidConfig, ConfigErrors> {
        let mut rules = Rules::default();
        rules.run(&self);
        rules.cluster(&self);
        rules.slurm(&self.cluster);
        rules.store(&self.store);
        rules.k8s(&self);
        rules.stages(&self);
        if let Some(lora) = &self.lora {
            rules.lora(lora);
        }
        if rules.broken.is_empty() {
            return Ok(ValidConfig(self));
        }
        let problems = rules
            .broken
            .into_iter()
            .map(|(key, message)| ConfigProblem { place: place(&key), message })
            .collect();
        Err(ConfigErrors::new(PathBuf::from(path), problems))
    }
}

/// Whether nobody but this machine reaches the address. What is not host:port has its own rule.
fn is_loopback(listen: &str) -> bool {
    let Some((host, _)) = listen.rsplit_once(':') else { return true };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Rules {
    fn run(&mut self, config: &RunConfig) {
        self.name(&config.run.name, "run.name");
        self.require(
            i64::try_from(config.run.seed).is_ok(),
            "run.seed",
            "must be less than 2^63: TOML holds no more",
        );
        self.require(!config.data.is_empty(), "data", "is empty; name at least one data set");
        for name in config.data.keys() {
            self.name(name, &format!("data.{name}"));
        }
        self.at_least_one(config.engine.max_prompt_tokens as u64, "engine.max_prompt_tokens");
        self.require(
            config.engine.tokens_per_batch >= config.engine.max_prompt_tokens,
            "engine.tokens_per_batch",
            format!(
                "must be at least engine.max_prompt_tokens ({}), or the longest prompt fits no forward \
                 pass; raise it or lower that",
                config.engine.max_prompt_tokens
            ),
        );
        self.checkpoint(config);
    }

    fn cluster(&mut self, config: &RunConfig) {
        let cluster = &config.cluster;
        self.at_least_one(cluster.min_workers as u64, "cluster.min_workers");
        self.require(
            cluster.min_workers <= cluster.max_workers,
            "cluster.max_workers",
            format!(
                "must be at least cluster.min_workers ({}), but it is {}",
                cluster.min_workers, cluster.max_workers
            ),
        );
        self.require(
            (cluster.min_workers..=cluster.max_workers).contains(&cluster.workers)
                || cluster.min_workers > cluster.max_workers,
            "cluster.workers",
            format!(
                "must lie between cluster.min_workers ({}) and cluster.max_workers ({}), but it is {}",
                cluster.min_workers, cluster.max_workers, cluster.workers
            ),
        );
        self.at_least_one(cluster.max_attempts, "cluster.max_attempts");
        self.at_least_one(cluster.prompts_per_unit as u64, "cluster.prompts_per_unit");
        self.not_negative(cluster.grace_s, "cluster.grace_s");
        self.not_negative(cluster.device_memory_gib, "cluster.device_memory_gib");
        for (value, path) in [
            (cluster.lease_ttl_s, "cluster.lease_ttl_s"),
            (cluster.starve_s, "cluster.starve_s"),
            (cluster.collective_timeout_s, "cluster.collective_timeout_s"),
            (cluster.unit_s, "cluster.unit_s"),
            (cluster.score_s, "cluster.score_s"),
        ] {
            self.seconds(value, path);
        }
        for (value, path) in [
            (cluster.form_s, "cluster.form_s"),
            (cluster.restore_s, "cluster.restore_s"),
            (cluster.update_s, "cluster.update_s"),
            (cluster.apply_s, "cluster.apply_s"),
        ] {
            self.seconds(value, path);
            self.require(
                cluster.collective_timeout_s < value,
                path,
                format!(
                    "({value} s) must be longer than cluster.collective_timeout_s ({} s), so that a \
                     failed collective names its rank before the phase runs out; raise it or lower that",
                    cluster.collective_timeout_s
                ),
            );
        }
        self.host_and_port(&cluster.listen, "cluster.listen");
        if let Some(metrics) = &cluster.metrics {
            self.host_and_port(metrics, "cluster.metrics");
        }
        self.require(
            is_loopback(&cluster.listen)
                || cluster.certificates.is_some()
                || cluster.trusted_network,
            "cluster.listen",
            format!(
                "is {:?}, which other machines may reach, but nothing secures the connections; make certificates \
                 with `medevo-coord certs init DIR` and set cluster.certificates = \"DIR\", or set \
                 cluster.trusted_network = true if everyone on that network may read along",
                cluster.listen
            ),
        );
    }

    fn host_and_port(&mut self, address: &str, path: &str) {
        let parts = address.rsplit_once(':');
        self.require(
            parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()),
            path,
            format!("must be host:port (port 0 takes a free one), but it is {address:?}"),
        );
    }

    fn stages(&mut self, config: &RunConfig) {
        self.require(!config.stage.is_empty(), "stage", "is empty; write at least one [[stage]]");
        let mut names = BTreeSet::new();
        for (i, stage) in config.stage.iter().enumerate() {
            let at = |key: &str| format!("stage[{i}].{key}");
            self.name(stage.name(), &at("name"));
            self.require(
                names.insert(stage.name()),
                &at("name"),
                format!("is {:?}, which an earlier stage has already", stage.name()),
            );
            match stage {
                StageSection::Sft(sft) => {
                    self.data_name(config, &sft.data, &at("data"));
                    self.at_least_one(sft.steps, &at("steps"));
                    self.at_least_one(sft.batch as u64, &at("batch"));
                    self.at_least_one(sft.together as u64, &at("together"));
                    self.optimizer(&sft.optimizer, &at("optimizer"));
                }
                StageSection::Rl(rl) => {
                    self.data_name(config, &rl.data, &at("data"));
                    self.at_least_one(rl.steps, &at("steps"));
                    self.at_least_one(rl.questions as u64, &at("questions"));
                    self.rollout(&rl.rollout, &at("rollout"));
                    self.label(&rl.label, &at("label"));
                    self.embedder(&rl.embedder, &at("embedder"));
                    self.reward(&rl.reward, &at("reward"));
                    self.objective(&rl.objective, &at("objective"));
                    self.optimizer(&rl.optimizer, &at("optimizer"));
                    self.require(
                        rl.evaluate_every == 0 || !rl.evaluate.is_empty(),
                        &at("evaluate"),
                        "names no data set, but evaluate_every asks for evaluations; name some, or set \
                         evaluate_every = 0",
                    );
                    self.data_list(config, &rl.evaluate, &at("evaluate"));
                }
                StageSection::Evaluate(evaluate) => {
                    self.require(
                        !evaluate.data.is_empty(),
                        &at("data"),
                        "is empty; name at least one data set",
                    );
                    self.data_list(config, &evaluate.data, &at("data"));
                    self.at_least_one(evaluate.max_new_tokens as u64, &at("max_new_tokens"));
                }
            }
        }
    }

    fn data_list(&mut self, config: &RunConfig, names: &[String], path: &str) {
        let mut seen = BTreeSet::new();
        for (i, name) in names.iter().enumerate() {
            let path = format!("{path}[{i}]");
            self.data_name(config, name, &path);
            self.require(seen.insert(name), &path, format!("names {name:?} a second time"));
        }
    }

    fn data_name(&mut self, config: &RunConfig, name: &str, path: &str) {
        let known: Vec<&str> = config.data.keys().map(String::as_str).collect();
        self.require(
            config.data.contains_key(name),
            path,
            format!("names no data set: there is no [data.{name}], only {}", known.join(", ")),
        );
    }
}
