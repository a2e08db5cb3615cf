//! The manifests: the files of k8s/, in the binary.

/// A file under k8s/ and its text.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../k8s/", $path)))),*]
    };
}

/// All that a run may be built from.
pub(super) const FILES: &[(&str, &str)] = files![
    "base/accounts.yaml",
    "base/coordinator.yaml",
    "base/disruption.yaml",
    "base/kustomization.yaml",
    "base/names.yaml",
    "base/network.yaml",
    "base/run.toml",
    "base/workers.yaml",
    "components/certificates/kustomization.yaml",
    "components/certificates/pods.yaml",
    "components/etcd/etcd.yaml",
    "components/etcd/kustomization.yaml",
    "components/etcd-access/kustomization.yaml",
    "components/etcd-access/network.yaml",
    "components/etcd-access/pods.yaml",
    "components/gpu/kustomization.yaml",
    "components/gpu/workers.yaml",
    "components/s3/coordinator.yaml",
    "components/s3/kustomization.yaml",
    "components/s3/network.yaml",
    "components/standby/coordinator.yaml",
    "components/standby/kustomization.yaml",
];
