//! From a run file to the one that the pods read, or a refusal.

use std::path::Path;

use medevo_common::config::{K8sSection, RunConfig, StoreKind, ValidConfig, is_object_name};

use crate::{launch::Run, preflight::Refused};

/// Longest name of a run: `<name>-coordinator-0` and the random end of a pod's name have to fit 63 characters.
const LONGEST_NAME: usize = 40;
/// A run that fails sooner without workers would fail while their images are still being fetched, seconds.
const LEAST_STARVE: f64 = 600.0;
/// Where a coordinator listens in its pod.
const LISTEN: &str = "0.0.0.0:7000";
/// What the workers' liveness probe (`k8s/base/workers.yaml`) waits, seconds.
const LONGEST_ORDER: f64 = 1800.0;
/// Where its metrics are; closed but for the overlay `service-monitor`.
const METRICS: &str = "0.0.0.0:7080";
/// Where certificates lie in the pods.
const CERTIFICATES: &str = "/certificates";

/// The run file as the pods are to read it, and its section for Kubernetes. Data and model are on the cluster: the
/// coordinator checks them there.
///
/// # Errors
/// [`Refused`], with every problem that can be seen from here.
pub(super) fn settle(run: &Run) -> Result<(ValidConfig, K8sSection), Refused> {
    let mut config = RunConfig::load(&run.file, &run.set).map_err(Refused::because)?;
    if let Some(workers) = run.workers {
        config.cluster.workers = workers;
    }
    let k8s = config.cluster.k8s.clone().unwrap_or_default();
    let problems = problems(run, &config, &k8s);
    if !problems.is_empty() {
        return Err(Refused::new(problems.join("\n")));
    }
    // The run directory's place is the manifests' affair.
    config.run.dir = None;
    config.cluster.listen = LISTEN.into();
    config.cluster.metrics = Some(METRICS.into());
    config.cluster.advertise = None;
    config.cluster.certificates = k8s.certificates.as_ref().map(|_| CERTIFICATES.into());
    if k8s.etcd {
        let name = &config.run.name;
        config.store.endpoints =
            (0..3).map(|member| format!("http://{name}-etcd-{member}.{name}-etcd:2379")).collect();
    }
    let config = config.validate().map_err(Refused::because)?;
    Ok((config, k8s))
}

fn problems(run: &Run, config: &RunConfig, k8s: &K8sSection) -> Vec<String> {
    let mut problems = Vec::new();
    let mut require = |holds: bool, sentence: String| {
        if !holds {
            problems.push(sentence);
        }
    };
    let name = &config.run.name;
    require(
        is_object_name(name, LONGEST_NAME) && !name.contains('.'),
        format!(
            "`run.name` is {name:?}; on Kubernetes it names objects, so it holds up to {LONGEST_NAME} lower-case \
             letters, digits and `-`"
        ),
    );
    require(
        run.run_dir.is_none(),
        format!("--run-dir is for this machine; on Kubernetes the run directory is /runs/{name}"),
    );
    require(
        run.token_file.is_none(),
        "--token-file is for this machine; put the token into a secret and name it in `cluster.k8s.token_secret`"
            .into(),
    );
    require(
        config.cluster.workers > 0,
        "--workers 0 is for this machine; on Kubernetes there are pods for all workers".into(),
    );
    let mut paths = vec![("model.path".to_owned(), &config.model.path)];
    paths.extend(config.data.iter().map(|(name, data)| (format!("data.{name}.path"), &data.path)));
    for (key, path) in paths {
        let there = ["/models", "/data", "/runs"].iter().any(|root| below(path, root));
        require(
            there,
            format!(
                "`{key}` is {}, but in the pods there are only /models, /data and /runs (folders of the claim {}); \
                 put it there, and write its path there",
                path.display(),
                k8s.claim
            ),
        );
    }
    require(
        k8s.certificates.is_some() || config.cluster.trusted_network,
        "nothing secures the connections between the pods; make certificates with `medevo-coord certs init DIR`, put \
         them into a secret (`kubectl create secret generic medevo-certificates --from-file=DIR/ca.pem \
         --from-file=DIR/coordinator.pem --from-file=DIR/coordinator.key --from-file=DIR/worker.pem \
         --from-file=DIR/worker.key`) and set cluster.k8s.certificates = \"medevo-certificates\", or set \
         cluster.trusted_network = true"
            .into(),
    );
    require(
        config.cluster.starve_s >= LEAST_STARVE,
        format!(
            "`cluster.starve_s` is {} s, but pods wait for nodes and images before there is a worker; set it to \
             {LEAST_STARVE} or more",
            config.cluster.starve_s
        ),
    );
    let cluster = &config.cluster;
    for (key, seconds) in [
        ("form_s", cluster.form_s),
        ("restore_s", cluster.restore_s),
        ("unit_s", cluster.unit_s),
        ("update_s", cluster.update_s),
        ("apply_s", cluster.apply_s),
    ] {
        require(
            seconds < LONGEST_ORDER,
            format!(
                "`cluster.{key}` is {seconds} s, but a pod whose worker has been busy for {LONGEST_ORDER} s is taken \
                 for hung and killed; set it to less"
            ),
        );
    }
    if config.store.kind == StoreKind::Etcd {
        require(
            !(k8s.etcd && config.store.endpoints.iter().any(|e| !is_own_member(e, name))),
            "`cluster.k8s.etcd` brings members along, and `store.endpoints` names others; leave one of them out".into(),
        );
        let store = &config.store;
        for (key, file) in [("ca", &store.ca), ("cert", &store.cert), ("key", &store.key)] {
            if let Some(file) = file {
                require(
                    below(file, "/etcd") && k8s.etcd_secret.is_some(),
                    format!(
                        "`store.{key}` is {}, but in the pods such files lie in /etcd, from the secret \
                         `cluster.k8s.etcd_secret`",
                        file.display()
                    ),
                );
            }
        }
        if let Some(variable) = &store.password_env {
            require(
                variable == "ETCD_PASSWORD" && k8s.etcd_secret.is_some(),
                format!(
                    "`store.password_env` is {variable:?}, but in the pods the password is in ETCD_PASSWORD, from the \
                     secret `cluster.k8s.etcd_secret`"
                ),
            );
        }
    }
    problems
}

/// Within the folder, and not out of it again.
fn below(path: &Path, root: &str) -> bool {
    path.starts_with(root) && !path.components().any(|part| part.as_os_str() == "..")
}

fn is_own_member(endpoint: &str, run: &str) -> bool {
    (0..3).any(|member| *endpoint == format!("http://{run}-etcd-{member}.{run}-etcd:2379"))
}
