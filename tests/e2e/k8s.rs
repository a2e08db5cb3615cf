//! The manifests without a cluster: every variant is built, strictly valid for the oldest and the newest Kubernetes,
//! and says what it has to. k8s/README.md lists it all.

use std::path::PathBuf;

use medevo_tests::k8s::{
    Cluster, Objects, VARIANTS, args, build, folder, jobs, pod, pods, python, strings, validate,
    variant,
};
use serde_json::Value;

/// What is applied beside runs.
const OTHERS: [&str; 5] =
    ["base", "overlays/service-monitor", "storage/shared", "storage/single-node", "operator"];

#[test]
fn every_variant_is_strictly_valid_for_the_oldest_and_the_newest_kubernetes() {
    let runs = VARIANTS.map(|name| format!("overlays/{name}"));
    let folders: Vec<PathBuf> = runs.iter().map(String::as_str).chain(OTHERS).map(folder).collect();
    let objects = Objects::joined(folders.iter().map(|folder| build(folder)));
    for version in ["1.29.0", "1.37.0"] {
        assert_eq!(validate(&objects, version), Ok(()), "{version}");
    }
    eprintln!("{} objects were strictly valid", objects.all().len());
}

/// Otherwise a validator that accepts everything would be taken for a good sign.
#[test]
fn a_broken_manifest_is_refused_by_the_validator() {
    let whole = variant("single-node");
    type Harm = (&'static str, fn(&mut Value));
    let harms: [Harm; 4] = [
        ("an unknown field", |job| job["spec"]["paralelism"] = 1.into()),
        ("a wrong type", |job| job["spec"]["parallelism"] = "one".into()),
        ("a field in a wrong place", |job| {
            job["spec"]["template"]["spec"]["containers"][0]["runAsNonRoot"] = true.into();
        }),
        ("a missing field", |job| {
            let rule = &mut job["spec"]["podFailurePolicy"]["rules"][0];
            rule.as_object_mut().expect("a rule").remove("action");
        }),
    ];
    for (what, harm) in harms {
        let mut objects = whole.clone();
        harm(objects.one_mut("Job", "example-workers"));
        let said = validate(&objects, "1.37.0").expect_err(what);
        assert!(said.contains("example-workers") || said.contains("Job"), "{what}: {said}");
    }
}

#[test]
fn names_and_labels_fit_together() {
    for name in VARIANTS {
        let objects = variant(name);
        for object in objects.all() {
            let meta = &object["metadata"];
            let called = meta["name"].as_str().expect("a name");
            assert!(called.starts_with("example-"), "{name}: {called}");
            assert_eq!(meta["namespace"], "medevo", "{name}: {called}");
            assert_eq!(meta["labels"]["app.kubernetes.io/instance"], "example", "{name}: {called}");
        }
        // The addresses in the arguments are put together from the run's label.
        let [coordinator, workers] = jobs(&objects);
        let service = objects.one("Service", "example-coordinator");
        assert_eq!(pod(coordinator)["subdomain"], "example-coordinator");
        assert_eq!(service["spec"]["clusterIP"], "None");
        assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
        let advertise = "--advertise=$(RUN)-coordinator-$(JOB_COMPLETION_INDEX).$(RUN)-coordinator.$(NAMESPACE).svc";
        assert!(args(coordinator).contains(&advertise), "{name}");
        for job in [coordinator, workers] {
            assert_eq!(job["spec"]["completionMode"], "Indexed", "{name}");
            let labels = &job["spec"]["template"]["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/instance"], "example", "{name}");
            assert!(args(job).contains(&"--run-dir=/runs/$(RUN)"), "{name}");
        }
    }
}

#[test]
fn pods_run_without_root_without_rights_and_on_a_read_only_root() {
    for name in VARIANTS {
        let objects = variant(name);
        for pod in pods(&objects) {
            let security = &pod["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{name}");
            assert_ne!(security["runAsUser"], 0, "{name}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
            for host in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod[host].is_null(), "{name}: {host}");
            }
            for container in pod["containers"].as_array().expect("containers") {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(security["capabilities"]["drop"][0], "ALL", "{name}");
                assert!(security["privileged"].is_null(), "{name}");
                let memory = &container["resources"]["limits"]["memory"];
                assert!(memory.is_string(), "{name}: memory is limited");
                let image = container["image"].as_str().expect("an image");
                let tag = image.rsplit_once(':').expect("a tag").1;
                assert_ne!(tag, "latest", "{name}: images are pinned");
            }
            for volume in pod["volumes"].as_array().into_iter().flatten() {
                assert!(volume["hostPath"].is_null(), "{name}: nothing of the node");
            }
        }
        for [kind, _] in objects.names() {
            assert!(
                !["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"]
                    .contains(&kind.as_str()),
                "{name}"
            );
        }
    }
}

#[test]
fn models_and_data_are_read_only_and_tmp_and_shm_are_there() {
    for name in VARIANTS {
        let objects = variant(name);
        for job in jobs(&objects) {
            let mounts = pod(job)["containers"][0]["volumeMounts"].as_array().expect("mounts");
            let at = |path: &str| mounts.iter().find(|mount| mount["mountPath"] == path);
            for path in ["/models", "/data"] {
                assert_eq!(at(path).expect(path)["readOnly"], true, "{name}: {path}");
            }
            assert!(at("/runs").expect("/runs")["readOnly"].is_null(), "{name}");
            assert!(at("/tmp").is_some(), "{name}");
        }
        let [_, workers] = jobs(&objects);
        let volumes = pod(workers)["volumes"].as_array().expect("volumes");
        let shm = volumes.iter().find(|volume| volume["name"] == "shm").expect("shm");
        assert_eq!(shm["emptyDir"]["medium"], "Memory", "{name}");
        let gib = |amount: &Value| -> u64 {
            let amount = amount.as_str().expect("an amount");
            amount.strip_suffix("Gi").expect("GiB").parse().expect("a number")
        };
        let size = gib(&shm["emptyDir"]["sizeLimit"]);
        assert!(size >= 1, "{name}: NCCL needs more than the usual 64 MiB");
        let memory = gib(&pod(workers)["containers"][0]["resources"]["limits"]["memory"]);
        assert!(size < memory, "{name}: /dev/shm counts as the container's memory");
    }
}

#[test]
fn workers_have_a_gpu_each_and_the_coordinator_has_none() {
    for name in VARIANTS {
        let objects = variant(name);
        let [coordinator, workers] = jobs(&objects);
        let gpus = |job: &Value| {
            pod(job)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"].clone()
        };
        assert_eq!(gpus(workers), "1", "{name}");
        assert_eq!(gpus(coordinator), Value::Null, "{name}");
        assert!(args(workers).contains(&"--device=cuda:0"), "{name}");
        assert_eq!(pod(workers)["tolerations"][0]["key"], "nvidia.com/gpu", "{name}");
        assert_eq!(workers["spec"]["completions"], workers["spec"]["parallelism"], "{name}");
    }
    assert_eq!(jobs(&variant("multi-gpu"))[1]["spec"]["parallelism"], 8);
}

/// A run ends. What restarts for ever would hold GPUs for nothing, and two at a time would share a name.
#[test]
fn jobs_end_with_the_run_and_replace_what_was_lost() {
    for name in VARIANTS {
        let objects = variant(name);
        for job in jobs(&objects) {
            let spec = &job["spec"];
            assert_eq!(pod(job)["restartPolicy"], "Never", "{name}");
            assert_eq!(spec["podReplacementPolicy"], "Failed", "{name}");
            let rules = spec["podFailurePolicy"]["rules"].as_array().expect("rules");
            assert_eq!(rules[0]["action"], "Ignore", "{name}: evictions first");
            assert_eq!(rules[0]["onPodConditions"][0]["type"], "DisruptionTarget", "{name}");
            let container = &pod(job)["containers"][0]["name"];
            for rule in rules.iter().filter(|rule| rule["onExitCodes"].is_object()) {
                assert_eq!(&rule["onExitCodes"]["containerName"], container, "{name}");
            }
        }
        let rules = jobs(&objects).map(|job| &job["spec"]["podFailurePolicy"]["rules"]);
        let on = |rules: &Value, action: &str| -> Vec<i64> {
            let codes = |rule: &Value| rule["onExitCodes"]["values"].as_array().cloned();
            let rules = rules.as_array().expect("rules").iter();
            let of = rules.filter(|rule| rule["action"] == action).filter_map(codes).flatten();
            of.map(|code| code.as_i64().expect("a code")).collect()
        };
        // `medevo-coord --help` and `medevo-worker --help` say what these mean.
        assert_eq!(
            (on(rules[0], "FailJob"), on(rules[0], "Ignore")),
            (vec![1, 2], vec![]),
            "{name}"
        );
        assert_eq!((on(rules[1], "FailJob"), on(rules[1], "Ignore")), (vec![2], vec![3]), "{name}");
        assert!(jobs(&objects)[1]["spec"]["backoffLimitPerIndex"].is_u64(), "{name}");
    }
}

#[test]
fn a_coordinator_has_the_time_for_a_step_a_checkpoint_and_its_copy() {
    for name in VARIANTS {
        let objects = variant(name);
        let grace =
            pod(jobs(&objects)[0])["terminationGracePeriodSeconds"].as_u64().expect("seconds");
        // The run file's deadlines: unit, scoring, update, apply, checkpoint, copy.
        let needed = 120 + 60 + 300 + 60 + 600 + if name == "s3" { 600 } else { 0 };
        assert!(grace >= needed, "{name}: {grace} s of {needed} s");
    }
}

/// Probes look at a file that the process touches only while it does what it should.
#[test]
fn probes_look_at_what_the_process_does() {
    for name in VARIANTS {
        let objects = variant(name);
        for job in jobs(&objects) {
            let container = &pod(job)["containers"][0];
            let env = container["env"].as_array().expect("variables");
            let alive = env.iter().find(|one| one["name"] == "MEDEVO_ALIVE").expect("the file");
            let file = alive["value"].as_str().expect("a path");
            assert!(file.starts_with("/tmp/"), "on the pod's own disk");
            for probe in ["livenessProbe", "readinessProbe"] {
                let command = strings(&container[probe]["exec"]["command"]);
                assert!(command[2].contains(file), "{name}: {probe}");
            }
        }
    }
}

/// Which pods may speak to which, worked out from the policies as Kubernetes does: what no policy allows is refused.
#[test]
fn the_network_is_closed_but_for_what_a_run_needs() {
    for name in VARIANTS {
        let objects = variant(name);
        for policy in objects.all().iter().filter(|one| one["kind"] == "NetworkPolicy") {
            // Without the run's label it would close the other pods of the namespace, too.
            let chosen = &policy["spec"]["podSelector"];
            let own = &chosen["matchLabels"]["app.kubernetes.io/instance"];
            assert_eq!(own, "example", "{name}: {policy}");
        }
        let network = Cluster::of(&objects);
        let open = |from: &str, to: &str, port: u16| network.open(from, to, port);
        assert!(open("worker", "coordinator", 7000), "{name}");
        assert!(open("worker", "worker", 41_000), "{name}: collectives take any port");
        assert!(!open("worker", "coordinator", 22), "{name}");
        assert!(!open("coordinator", "worker", 41_000), "{name}");
        for pod in ["coordinator", "worker"] {
            for port in [7000, 7080] {
                assert!(!network.open_from_outside(pod, port), "{name}: {pod}: {port}");
            }
            assert!(network.open_to_outside(pod, 53), "{name}: {pod} asks DNS");
            assert!(!network.open_to_outside(pod, 80), "{name}: {pod}");
            assert_eq!(
                network.open_to_outside(pod, 2379),
                name == "external-etcd",
                "{name}: {pod}"
            );
        }
        assert_eq!(network.open_to_outside("coordinator", 443), name == "s3", "{name}");
        assert!(!network.open_to_outside("worker", 443), "{name}: workers copy nothing");
        if name == "etcd" {
            for pod in ["coordinator", "worker", "etcd"] {
                assert!(open(pod, "etcd", 2379), "{pod}");
            }
            assert!(open("etcd", "etcd", 2380) && !open("worker", "etcd", 2380));
            assert!(!network.open_from_outside("etcd", 2379));
        }
    }
}

#[test]
fn each_side_sees_its_own_secrets_only() {
    let objects = variant("s3");
    let files = jobs(&objects).map(|job| {
        let volumes = pod(job)["volumes"].as_array().expect("volumes");
        let secret =
            volumes.iter().find(|volume| volume["name"] == "certificates").expect("certificates");
        assert_eq!(secret["secret"]["defaultMode"], 0o440, "not for everybody");
        let items = secret["secret"]["items"].as_array().expect("items").iter();
        items.map(|item| item["path"].as_str().expect("a path")).collect::<Vec<_>>()
    });
    assert_eq!(files[0], ["ca.pem", "coordinator.pem", "coordinator.key"]);
    assert_eq!(files[1], ["ca.pem", "worker.pem", "worker.key"]);
    let [coordinator, workers] = jobs(&objects).map(|job| &pod(job)["containers"][0]["envFrom"]);
    assert_eq!(coordinator[0]["secretRef"]["name"], "medevo-s3");
    assert!(workers.is_null(), "workers have no credentials of the object store");
    for name in VARIANTS {
        let objects = variant(name);
        assert!(
            objects.names().iter().all(|[kind, _]| kind != "Secret"),
            "{name}: secrets are not written down"
        );
    }
}

#[test]
fn budgets_hold_for_pods_that_exist() {
    for name in VARIANTS {
        let objects = variant(name);
        for (budget, least) in
            [("example-coordinator", 1), ("example-workers", 1), ("example-etcd", 2)]
        {
            let Some(found) = objects.find("PodDisruptionBudget", budget) else {
                assert!(budget.ends_with("etcd") && name != "etcd", "{name}: {budget}");
                continue;
            };
            // A Job has no scale, so neither a percentage nor maxUnavailable would be taken for its pods.
            assert_eq!(found["spec"]["minAvailable"], least, "{name}: {budget}");
            assert!(found["spec"]["maxUnavailable"].is_null(), "{name}: {budget}");
            let wanted = &found["spec"]["selector"]["matchLabels"];
            assert!(objects.pods_with(wanted) > 0, "{name}: {budget} selects nothing");
        }
    }
}

#[test]
fn etcd_has_three_members_on_disks_of_their_own() {
    let objects = variant("etcd");
    let etcd = objects.one("StatefulSet", "example-etcd");
    assert_eq!(etcd["spec"]["replicas"], 3);
    assert_eq!(etcd["spec"]["serviceName"], "example-etcd");
    assert_eq!(etcd["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"][0], "ReadWriteOnce");
    let service = objects.one("Service", "example-etcd");
    assert_eq!(
        service["spec"]["publishNotReadyAddresses"], true,
        "members meet before they are ready"
    );
    let command = strings(&pod(etcd)["containers"][0]["command"]);
    let cluster =
        command.iter().find_map(|arg| arg.strip_prefix("--initial-cluster=")).expect("members");
    assert_eq!(cluster.split(',').count(), 3);
    let [coordinator, _] = jobs(&objects);
    assert_eq!(coordinator["spec"]["parallelism"], 2, "one leads, one stands by");
    assert!(args(coordinator).contains(&"--standby"));
    let run =
        objects.one("ConfigMap", "example-run")["data"]["run.toml"].as_str().expect("a run file");
    for member in 0..3 {
        assert!(run.contains(&format!("http://example-etcd-{member}.example-etcd:2379")), "{run}");
    }
}

#[test]
fn the_monitor_watches_a_port_of_the_service() {
    let objects = build(&folder("overlays/service-monitor"));
    let monitor = objects.one("ServiceMonitor", "example-coordinator");
    let port = &monitor["spec"]["endpoints"][0]["port"];
    let service = objects.one("Service", "example-coordinator");
    let ports = service["spec"]["ports"].as_array().expect("ports");
    assert!(ports.iter().any(|one| one["name"] == "rpc"), "the other port is left as it is");
    let watched = ports.iter().find(|one| &one["name"] == port).expect("the monitor's port");
    let served = format!("--set=cluster.metrics=0.0.0.0:{}", watched["targetPort"]);
    let [coordinator, _] = jobs(&objects);
    assert!(args(coordinator).contains(&served.as_str()), "{served}");
    let network = Cluster::of(&objects);
    assert!(network.open_from_outside("coordinator", 7080), "Prometheus reaches it");
    assert!(!network.open_from_outside("coordinator", 7000));
    let wanted = &monitor["spec"]["selector"]["matchLabels"];
    for (label, value) in wanted.as_object().expect("labels") {
        assert_eq!(&service["metadata"]["labels"][label], value, "{label}");
    }
    for name in VARIANTS {
        assert!(variant(name).find("ServiceMonitor", "example-coordinator").is_none(), "{name}");
    }
}

#[test]
fn an_operator_may_do_what_the_commands_need_and_nothing_else() {
    let objects = build(&folder("operator"));
    let role = objects.one("Role", "medevo-operator");
    for rule in role["rules"].as_array().expect("rules") {
        for part in ["apiGroups", "resources", "verbs"] {
            assert!(!strings(&rule[part]).contains(&"*"), "{rule}");
        }
        assert!(!strings(&rule["resources"]).contains(&"secrets"), "{rule}");
    }
    // Every kind that a run consists of can be applied.
    let allowed: Vec<String> = role["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .filter(|rule| strings(&rule["verbs"]).contains(&"patch"))
        .flat_map(|rule| {
            strings(&rule["resources"]).into_iter().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    for name in VARIANTS {
        for [kind, _] in variant(name).names() {
            let plural = match kind.to_lowercase() {
                kind if kind.ends_with('y') => format!("{}ies", kind.trim_end_matches('y')),
                kind => format!("{kind}s"),
            };
            assert!(allowed.contains(&plural), "{name}: {plural}");
        }
    }
}

#[test]
fn the_python_that_validates_is_there() {
    assert!(python().exists(), "run ops/setup-k8s");
}
