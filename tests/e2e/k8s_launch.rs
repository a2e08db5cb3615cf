//! `launch --on k8s` without a cluster: it gives the objects of the overlays, what the run file says arrives in them, and
//! what cannot work is refused.

use std::{path::Path, process::Command};

use medevo_tests::{
    k8s::{Objects, VARIANTS, folder, jobs, kubectl, pod, validate, variant},
    process::{coord, finish},
};
use serde_json::Value;

fn launched(run_file: &Path, more: &[&str]) -> Command {
    let mut command = coord(["launch", &run_file.to_string_lossy(), "--on", "k8s"]);
    command.args(more).env("KUBECTL", kubectl());
    command
}

#[test]
fn launch_renders_what_the_overlays_say() {
    for name in VARIANTS {
        let said = finish(launched(&folder(&format!("overlays/{name}/run.toml")), &["--dry-run"]));
        let said = said.expect_code(0);
        let (mut rendered, mut written) = (Objects::parse(&said.stdout), variant(name));
        // The run file is resolved by the one and plain in the other; both are read by the same code.
        for objects in [&mut rendered, &mut written] {
            objects.one_mut("ConfigMap", "example-run")["data"] = Value::Null;
            objects.sort_named();
        }
        assert_eq!(rendered, written, "{name}");
    }
}

/// Whatever a run file may say of its pods arrives in them, and the result is still valid.
#[test]
fn what_the_run_file_says_of_the_pods_arrives_in_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let text =
        std::fs::read_to_string(folder("overlays/external-etcd/run.toml")).expect("a run file");
    let more = r#"
claim = "files"
user = 2000
coordinator_image = "registry.example/coord:7"
worker_image = "registry.example/worker@sha256:0a"
image_pull_secrets = ["pull"]
coordinator_memory = "3Gi"
worker_cpus = "8"
worker_memory = "99Gi"
shm = "9Gi"
token_secret = "own-token"
priority_class = "patient"
node_selector = { "nvidia.com/gpu.product" = "NVIDIA-H100", zone = "" }
"#;
    let text = text
        .replace("\"medevo-etcd\"", "\"own-etcd\"")
        .replace("\"medevo-certificates\"", "\"own-certs\"");
    let file = dir.path().join("run.toml");
    std::fs::write(&file, text + more).expect("written");
    let more = ["--dry-run", "--workers", "5", "--set", "cluster.min_workers=3"];
    let objects = Objects::parse(&finish(launched(&file, &more)).expect_code(0).stdout);
    assert_eq!(validate(&objects, "1.29.0"), Ok(()));
    let [coordinator, workers] = jobs(&objects).map(pod);
    for pod in [coordinator, workers] {
        let (env, volumes) = (&pod["containers"][0]["env"], &pod["volumes"]);
        let named = |list: &Value, name: &str| {
            let mut list = list.as_array().expect("a list").iter();
            list.find(|one| one["name"] == name)
                .unwrap_or_else(|| panic!("{name} in {pod}"))
                .clone()
        };
        let token = &named(env, "MEDEVO_TOKEN")["valueFrom"]["secretKeyRef"];
        assert_eq!((&token["name"], &token["optional"]), (&"own-token".into(), &false.into()));
        let password = &named(env, "ETCD_PASSWORD")["valueFrom"]["secretKeyRef"];
        assert_eq!(password["name"], "own-etcd");
        assert_eq!(named(volumes, "etcd")["secret"]["secretName"], "own-etcd");
        assert_eq!(named(volumes, "certificates")["secret"]["secretName"], "own-certs");
        assert_eq!(named(volumes, "files")["persistentVolumeClaim"]["claimName"], "files");
        assert_eq!(pod["securityContext"]["runAsUser"], 2000);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "merged, not replaced");
        assert_eq!(pod["priorityClassName"], "patient");
        assert_eq!(pod["imagePullSecrets"][0]["name"], "pull");
    }
    assert_eq!(coordinator["containers"][0]["image"], "registry.example/coord:7");
    assert_eq!(coordinator["containers"][0]["resources"]["limits"]["memory"], "3Gi");
    assert_eq!(coordinator["nodeSelector"], Value::Null);
    assert_eq!(workers["containers"][0]["image"], "registry.example/worker@sha256:0a");
    assert_eq!(workers["containers"][0]["resources"]["requests"]["cpu"], "8");
    assert_eq!(workers["containers"][0]["resources"]["limits"]["memory"], "99Gi");
    assert_eq!(workers["nodeSelector"]["nvidia.com/gpu.product"], "NVIDIA-H100");
    assert_eq!(jobs(&objects)[1]["spec"]["completions"], 5);
    let budget = objects.one("PodDisruptionBudget", "example-workers");
    assert_eq!(budget["spec"]["minAvailable"], 3);
}

#[test]
fn the_grace_of_a_coordinator_follows_the_run_file() {
    let longer =
        ["--dry-run", "--set", "cluster.update_s=1700", "--set", "checkpoint.timeout_s=4000"];
    let said = finish(launched(&folder("overlays/s3/run.toml"), &longer)).expect_code(0);
    let objects = Objects::parse(&said.stdout);
    let grace = pod(jobs(&objects)[0])["terminationGracePeriodSeconds"].as_u64().expect("seconds");
    assert!(grace >= 120 + 60 + 1700 + 60 + 2 * 4000, "it follows the run file: {grace} s");
}

/// The coordinator's own check of what the pods will read.
#[test]
fn run_files_in_the_config_maps_are_good() {
    for name in VARIANTS {
        let said = finish(launched(&folder(&format!("overlays/{name}/run.toml")), &["--dry-run"]));
        let objects = Objects::parse(&said.expect_code(0).stdout);
        let text = objects.one("ConfigMap", "example-run")["data"]["run.toml"]
            .as_str()
            .expect("a run file");
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("run.toml");
        std::fs::write(&file, text).expect("written");
        // It reads as far as the model, which is not on this machine.
        let file = file.to_string_lossy();
        let said = finish(coord(["launch", &file, "--dry-run", "--on", "local", "--workers", "0"]));
        assert_eq!(said.status.code(), Some(2), "{name}: {}", said.said());
        assert!(said.stderr.contains("/models/qwen2.5-vl-3b"), "{name}: {}", said.said());
        assert!(text.contains("listen = \"0.0.0.0:7000\""), "{name}: {text}");
    }
}

#[test]
fn what_cannot_work_on_a_cluster_is_refused_before_kubectl_is_called() {
    let dir = tempfile::tempdir().expect("a folder");
    let good =
        std::fs::read_to_string(folder("overlays/single-node/run.toml")).expect("a run file");
    let refused = |change: &dyn Fn(String) -> String, more: &[&str], words: &[&str]| {
        let file = dir.path().join("run.toml");
        std::fs::write(&file, change(good.clone())).expect("written");
        let mut command = launched(&file, more);
        command.env("KUBECTL", "/nowhere/kubectl");
        let said = finish(command).expect_code(2);
        for word in words {
            assert!(said.stderr.contains(word), "{word:?} is named: {}", said.said());
        }
    };
    let swap = |from: &'static str, to: &'static str| {
        move |text: String| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        }
    };
    refused(&swap("name = \"example\"", "name = \"Example_1\""), &[], &["run.name", "Example_1"]);
    refused(&swap("/models/qwen2.5-vl-3b", "models/qwen"), &[], &["model.path", "/models"]);
    refused(&swap("/data/slake", "/data/../etc"), &[], &["data.slake.path"]);
    let update = "starve_s = 3600\nupdate_s = 2000";
    refused(&swap("starve_s = 3600", update), &[], &["cluster.update_s", "1800", "hung"]);
    refused(&swap("starve_s = 3600", "starve_s = 120"), &[], &["cluster.starve_s", "600"]);
    refused(
        &swap("certificates = \"medevo-certificates\"", ""),
        &[],
        &["certs init", "kubectl create secret", "cluster.k8s.certificates", "trusted_network"],
    );
    refused(
        &swap("namespace = \"medevo\"", "namespace = \"Med Evo\""),
        &[],
        &["cluster.k8s.namespace"],
    );
    let k8s = "[cluster.k8s]\n";
    refused(&swap(k8s, "[cluster.k8s]\nshm = \"16gb\"\n"), &[], &["cluster.k8s.shm", "16Gi"]);
    refused(&swap(k8s, "[cluster.k8s]\nuser = 0\n"), &[], &["cluster.k8s.user", "root"]);
    refused(&swap(k8s, "[cluster.k8s]\ncoordinators = 2\n"), &[], &["coordinators", "etcd"]);
    refused(&swap(k8s, "[cluster.k8s]\nworker_image = \"a b\"\n"), &[], &["worker_image"]);
    refused(&swap(k8s, "[cluster.k8s]\nnamspace = \"a\"\n"), &[], &["namspace", "namespace"]);
    refused(&|text| text, &["--run-dir", "x"], &["--run-dir", "/runs/example"]);
    refused(&|text| text, &["--token-file", "x"], &["--token-file", "token_secret"]);
    refused(&|text| text, &["--dry-run"], &["/nowhere/kubectl", "install kubectl"]);
}

/// A cluster that is not there: `kubectl` itself, without a context that answers.
#[test]
fn a_cluster_that_does_not_answer_is_named() {
    let mut command = launched(&folder("overlays/single-node/run.toml"), &[]);
    command.env("KUBECONFIG", "/nowhere/config").env_remove("KUBERNETES_SERVICE_HOST");
    let said = finish(command).expect_code(2);
    assert!(said.stderr.contains("kubectl get"), "{}", said.said());
}
