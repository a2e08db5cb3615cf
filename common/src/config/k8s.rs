//! `[cluster.k8s]`: how a run's pods look on Kubernetes, and the rules for it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{raw::RunConfig, rules::Rules, store::StoreKind};

/// Kubernetes: how `launch --on k8s` makes the run's pods, `cluster.workers` of them and the coordinator's. Paths in the
/// run file are those in the pods: `/models` and `/data` are read from the claim, `/runs/<run.name>` is written there.
/// With `device = "cuda"` each worker has a GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct K8sSection {
    /// Namespace, which exists; without it, that of kubectl's current context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Image of the coordinator, from k8s/Containerfile.
    pub coordinator_image: String,
    /// Image of the workers, from k8s/Containerfile.
    pub worker_image: String,
    /// Secrets with which images are pulled.
    pub image_pull_secrets: Vec<String>,
    /// PersistentVolumeClaim with `runs`, `models` and `data`; it exists, and allows the run's nodes at once.
    pub claim: String,
    /// User and group id of all processes, and so of the files on the claim; not 0.
    pub user: u32,
    /// Memory of the coordinator.
    pub coordinator_memory: String,
    /// Processors of a worker.
    pub worker_cpus: String,
    /// Memory of a worker, what lies in its /dev/shm included.
    pub worker_memory: String,
    /// Size of a worker's /dev/shm, which NCCL uses.
    pub shm: String,
    /// Coordinators: one leads, the others stand by. More than one needs `store.kind = "etcd"`.
    pub coordinators: usize,
    /// Bring three etcd members along for this run; `store.endpoints` is left out then.
    pub etcd: bool,
    /// Secret with what `store.ca`, `store.cert` and `store.key` name in `/etcd`, and with `password` for
    /// `store.password_env = "ETCD_PASSWORD"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_secret: Option<String>,
    /// Secret with the certificates that `medevo-coord certs init` made; takes the place of `cluster.certificates`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<String>,
    /// Secret with the join token under `token`; without it the coordinator makes one and puts it into the run directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<String>,
    /// Secret with the `AWS_*` variables for `checkpoint.copy_to`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_secret: Option<String>,
    /// Labels that the workers' nodes have.
    pub node_selector: BTreeMap<String, String>,
    /// Priority class of all pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
}

impl Default for K8sSection {
    fn default() -> Self {
        Self {
            namespace: None,
            coordinator_image: concat!("medevo-coord:", env!("CARGO_PKG_VERSION")).into(),
            worker_image: concat!("medevo-worker:", env!("CARGO_PKG_VERSION")).into(),
            image_pull_secrets: Vec::new(),
            claim: "medevo".into(),
            user: 10_001,
            coordinator_memory: "2Gi".into(),
            worker_cpus: "4".into(),
            worker_memory: "16Gi".into(),
            shm: "2Gi".into(),
            coordinators: 1,
            etcd: false,
            etcd_secret: None,
            certificates: None,
            token_secret: None,
            s3_secret: None,
            node_selector: BTreeMap::new(),
            priority_class: None,
        }
    }
}

impl Rules {
    pub(super) fn k8s(&mut self, config: &RunConfig) {
        let Some(k8s) = &config.cluster.k8s else { return };
        let at = |key: &str| format!("cluster.k8s.{key}");
        let named = [
            (&k8s.namespace, "namespace"),
            (&k8s.etcd_secret, "etcd_secret"),
            (&k8s.certificates, "certificates"),
            (&k8s.token_secret, "token_secret"),
            (&k8s.s3_secret, "s3_secret"),
            (&k8s.priority_class, "priority_class"),
        ];
        for (name, key) in named {
            if let Some(name) = name {
                self.object(name, &at(key));
            }
        }
        self.object(&k8s.claim, &at("claim"));
        for (i, name) in k8s.image_pull_secrets.iter().enumerate() {
            self.object(name, &at(&format!("image_pull_secrets[{i}]")));
        }
        for (image, key) in
            [(&k8s.coordinator_image, "coordinator_image"), (&k8s.worker_image, "worker_image")]
        {
            let good = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
            self.require(
                !image.is_empty() && image.chars().all(good),
                &at(key),
                format!(
                    "must name an image, such as \"registry.example/medevo:1\", but it is {image:?}"
                ),
            );
        }
        for (amount, key) in [
            (&k8s.coordinator_memory, "coordinator_memory"),
            (&k8s.worker_cpus, "worker_cpus"),
            (&k8s.worker_memory, "worker_memory"),
            (&k8s.shm, "shm"),
        ] {
            self.require(
                is_quantity(amount),
                &at(key),
                format!("must be an amount as Kubernetes writes them, such as \"4\" or \"16Gi\", but it is {amount:?}"),
            );
        }
        for (key, value) in &k8s.node_selector {
            self.require(
                is_label(key, true) && is_label(value, false),
                &at(&format!("node_selector.{key}")),
                format!("must be a label and its value, but it is {key:?} = {value:?}"),
            );
        }
        self.require(k8s.user > 0, &at("user"), "must not be 0: nothing of a run needs root");
        self.at_least_one(k8s.coordinators as u64, &at("coordinators"));
        let etcd = config.store.kind == StoreKind::Etcd;
        self.require(
            etcd || k8s.coordinators <= 1,
            &at("coordinators"),
            "beyond 1 stand by, which needs store.kind = \"etcd\"; set that, or leave it at 1",
        );
        self.require(
            etcd || !(k8s.etcd || k8s.etcd_secret.is_some()),
            &at("etcd"),
            "and etcd_secret are for store.kind = \"etcd\"; set that, or leave them out",
        );
        self.require(
            !(k8s.etcd && k8s.etcd_secret.is_some()),
            &at("etcd_secret"),
            "is for an etcd that is there already; leave it out, or etcd = true",
        );
        self.require(
            k8s.s3_secret.is_none() || config.checkpoint.copy_to.is_some(),
            &at("s3_secret"),
            "is for copies of checkpoints; set checkpoint.copy_to = \"s3://...\", or leave it out",
        );
    }

    /// A name of a Kubernetes object: a DNS-1123 subdomain.
    fn object(&mut self, name: &str, path: &str) {
        self.require(
            is_object_name(name, 253),
            path,
            format!(
                "names a Kubernetes object, so it holds lower-case letters, digits, `-` and `.`, with a letter or \
                 digit at both ends, but it is {name:?}"
            ),
        );
    }
}

/// Whether Kubernetes takes this as an object's name (DNS-1123).
#[must_use]
pub fn is_object_name(name: &str, longest: usize) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    !name.is_empty()
        && name.len() <= longest
        && name.split('.').all(|part| {
            let bytes = part.as_bytes();
            bytes.iter().all(|c| plain(*c) || *c == b'-')
                && bytes.first().is_some_and(|c| plain(*c))
                && bytes.last().is_some_and(|c| plain(*c))
        })
}

/// A positive amount: digits, perhaps a fraction, perhaps a unit.
fn is_quantity(text: &str) -> bool {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    number.parse::<f64>().is_ok_and(|n| n > 0.0)
        && ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&unit)
}

/// A label's key (with a prefix before `/`) or its value (which may be empty).
fn is_label(text: &str, key: bool) -> bool {
    let name = match text.split_once('/') {
        Some((prefix, name)) if key && is_object_name(prefix, 253) => name,
        Some(_) => return false,
        None => text,
    };
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    (!key && name.is_empty())
        || (name.len() <= 63
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && ends(name.chars().next())
            && ends(name.chars().last()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_api_server_would_refuse_are_refused_here() {
        for good in ["medevo", "a", "medevo-s3", "registry.pull", "0"] {
            assert!(is_object_name(good, 63), "{good}");
        }
        for bad in ["", "Medevo", "-a", "a-", "a_b", "a..b", "a b", "a\nb"] {
            assert!(!is_object_name(bad, 63), "{bad:?}");
        }
        assert!(!is_object_name(&"a".repeat(64), 63));
    }

    #[test]
    fn amounts_and_labels() {
        for good in ["4", "500m", "1.5", "16Gi", "64G"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "0", "-1", "16 Gi", "16gb", "Gi", "1.2.3"] {
            assert!(!is_quantity(bad), "{bad:?}");
        }
        assert!(is_label("nvidia.com/gpu.product", true) && is_label("NVIDIA-H100-80GB", false));
        assert!(is_label("", false) && !is_label("", true));
        assert!(!is_label("a b", false) && !is_label("x/y", false) && !is_label("UP/y", true));
    }
}
