//! What k8s/ does not say: this run's name, pods and secrets, as a kustomize overlay.

use medevo_common::config::{K8sSection, ValidConfig, WorkerDevice};
use serde_json::{Value, json};

/// The grace that the manifests give a coordinator, seconds.
const GRACE: u64 = 1800;

/// The components of k8s/ that this run has.
fn components(config: &ValidConfig, k8s: &K8sSection) -> Vec<&'static str> {
    [
        (config.cluster.device == WorkerDevice::Cuda, "gpu"),
        (k8s.certificates.is_some(), "certificates"),
        (k8s.etcd, "etcd"),
        (k8s.etcd_secret.is_some(), "etcd-access"),
        (k8s.coordinators > 1, "standby"),
        (k8s.s3_secret.is_some(), "s3"),
    ]
    .into_iter()
    .filter_map(|(has, name)| has.then_some(name))
    .collect()
}

/// The kustomization of this run, next to `base` and `components`. JSON is YAML, too.
pub(super) fn kustomization(config: &ValidConfig, k8s: &K8sSection) -> Value {
    let name = &config.run.name;
    let components: Vec<String> =
        components(config, k8s).iter().map(|name| format!("../components/{name}")).collect();
    let mut overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namePrefix": format!("{name}-"),
        "labels": [{
            "pairs": {"app.kubernetes.io/name": "medevo", "app.kubernetes.io/instance": name},
            "includeSelectors": true,
            "includeTemplates": true,
        }],
        "resources": ["../base"],
        "components": components,
        "configMapGenerator": [{"name": "run", "behavior": "merge", "files": ["run.toml"]}],
        "generatorOptions": {"disableNameSuffixHash": true},
        "patches": patches(config, k8s).into_iter().map(|patch| json!({"patch": patch.to_string()})).collect::<Vec<_>>(),
    });
    if let Some(namespace) = &k8s.namespace {
        overlay["namespace"] = json!(namespace);
    }
    overlay
}

/// Strategic merge patches: lists of containers, volumes and variables are merged by name.
fn patches(config: &ValidConfig, k8s: &K8sSection) -> Vec<Value> {
    let mut patches = vec![coordinator(config, k8s), workers(config, k8s), budget(config)];
    if k8s.s3_secret.is_some()
        && let Some(port) = s3_port(config)
    {
        patches.push(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "s3"},
            "spec": {"egress": [{"ports": [{"port": port, "protocol": "TCP"}]}]},
        }));
    }
    patches
}

fn coordinator(config: &ValidConfig, k8s: &K8sSection) -> Value {
    let mut container = json!({
        "name": "coordinator",
        "image": k8s.coordinator_image,
        "resources": {
            "requests": {"memory": k8s.coordinator_memory},
            "limits": {"memory": k8s.coordinator_memory},
        },
    });
    if let Some(secret) = &k8s.s3_secret {
        container["envFrom"] = json!([{"secretRef": {"name": secret}}]);
    }
    let mut pod = pod(k8s, container);
    pod["terminationGracePeriodSeconds"] = json!(drain_s(config).max(GRACE));
    let mut job = job("coordinator", pod);
    if k8s.coordinators > 1 {
        job["spec"]["completions"] = json!(k8s.coordinators);
        job["spec"]["parallelism"] = json!(k8s.coordinators);
    }
    job
}

fn workers(config: &ValidConfig, k8s: &K8sSection) -> Value {
    let container = json!({
        "name": "worker",
        "image": k8s.worker_image,
        "resources": {
            "requests": {"cpu": k8s.worker_cpus, "memory": k8s.worker_memory},
            "limits": {"memory": k8s.worker_memory},
        },
    });
    let mut pod = pod(k8s, container);
    if let Some(volumes) = pod["volumes"].as_array_mut() {
        volumes.push(json!({"name": "shm", "emptyDir": {"sizeLimit": k8s.shm}}));
    }
    if !k8s.node_selector.is_empty() {
        pod["nodeSelector"] = json!(k8s.node_selector);
    }
    let mut job = job("workers", pod);
    job["spec"]["completions"] = json!(config.cluster.workers);
    job["spec"]["parallelism"] = json!(config.cluster.workers);
    job
}

/// What both kinds of pods have.
fn pod(k8s: &K8sSection, mut container: Value) -> Value {
    let mut env = Vec::new();
    let mut volumes =
        vec![json!({"name": "files", "persistentVolumeClaim": {"claimName": k8s.claim}})];
    let password = |secret: &String| json!({"name": "ETCD_PASSWORD", "valueFrom": {"secretKeyRef": {"name": secret, "key": "password"}}});
    if let Some(secret) = &k8s.token_secret {
        let from = json!({"name": secret, "key": "token", "optional": false});
        env.push(json!({"name": "MEDEVO_TOKEN", "valueFrom": {"secretKeyRef": from}}));
    }
    if let Some(secret) = &k8s.etcd_secret {
        env.push(password(secret));
        volumes.push(json!({"name": "etcd", "secret": {"secretName": secret}}));
    }
    if let Some(secret) = &k8s.certificates {
        volumes.push(json!({"name": "certificates", "secret": {"secretName": secret}}));
    }
    container["env"] = json!(env);
    let mut pod = json!({
        "securityContext": {"runAsUser": k8s.user, "runAsGroup": k8s.user, "fsGroup": k8s.user},
        "containers": [container],
        "volumes": volumes,
    });
    if let Some(class) = &k8s.priority_class {
        pod["priorityClassName"] = json!(class);
    }
    if !k8s.image_pull_secrets.is_empty() {
        pod["imagePullSecrets"] =
            k8s.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    pod
}

fn job(name: &str, pod: Value) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"spec": pod}},
    })
}

/// As many workers stay as the run goes on with.
fn budget(config: &ValidConfig) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "workers"},
        "spec": {"minAvailable": config.cluster.min_workers},
    })
}

/// How long a coordinator may take from SIGTERM to its end: the rest of the step by its deadlines, the checkpoint, its
/// copy, and the farewell.
pub(super) fn drain_s(config: &ValidConfig) -> u64 {
    let cluster = &config.cluster;
    let updates = config.stage.iter().map(|stage| match stage {
        medevo_common::config::StageSection::Rl(rl) => rl.objective.num_iterations,
        _ => 1,
    });
    let updates = updates.max().unwrap_or(1) as f64;
    let step = cluster.unit_s + cluster.score_s + updates * (cluster.update_s + cluster.apply_s);
    let copies = if config.checkpoint.copy_to.is_some() { 2.0 } else { 1.0 };
    // A float's cast to an integer saturates.
    (step + copies * config.checkpoint.timeout_s + 60.0).ceil() as u64
}

/// The port of an S3 store other than Amazon's.
fn s3_port(config: &ValidConfig) -> Option<u16> {
    let endpoint = config.checkpoint.endpoint.as_ref()?;
    let (scheme, rest) = endpoint.split_once("://")?;
    let host = rest.split('/').next().unwrap_or_default();
    let named = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    named.or(if scheme == "http" { Some(80) } else { None })
}
