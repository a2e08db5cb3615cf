//! Manifests as objects: built by kustomize, validated, and what their network policies allow.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use crate::{
    lab::checkout,
    process::{finish, must},
};

/// kubectl as `ops/setup-k8s` installs it.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn kubectl() -> PathBuf {
    let path = checkout().join(".k8s/bin/kubectl");
    assert!(path.exists(), "{} is missing: run ops/setup-k8s", path.display());
    path
}

/// The Python that reads YAML and validates.
#[must_use]
pub fn python() -> PathBuf {
    checkout().join(".k8s/bin/python")
}

/// All that a run may be (`k8s/overlays`), with the run file beside it.
pub const VARIANTS: [&str; 5] = ["single-node", "multi-gpu", "etcd", "external-etcd", "s3"];

/// A folder of `k8s`.
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    checkout().join("k8s").join(name)
}

/// The objects of a variant.
#[must_use]
pub fn variant(name: &str) -> Objects {
    build(&folder(&format!("overlays/{name}")))
}

/// The Jobs of the run `example`: coordinator, workers.
#[must_use]
pub fn jobs(objects: &Objects) -> [&Value; 2] {
    ["example-coordinator", "example-workers"].map(|name| objects.one("Job", name))
}

/// The pod that a Job makes.
#[must_use]
pub fn pod(job: &Value) -> &Value {
    &job["spec"]["template"]["spec"]
}

/// The pod templates of a variant, etcd's too.
#[must_use]
pub fn pods(objects: &Objects) -> Vec<&Value> {
    objects.all().iter().map(pod).filter(|pod| pod.is_object()).collect()
}

/// The arguments of a Job's container.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn args(job: &Value) -> Vec<&str> {
    strings(&pod(job)["containers"][0]["args"])
}

/// A list of texts.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn strings(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("text")).collect()
}

/// Objects of Kubernetes, sorted by kind and name.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects(Vec<Value>);

const TO_JSON: &str = "import json, sys, yaml
json.dump([one for one in yaml.safe_load_all(sys.stdin) if one], sys.stdout)";

/// Reads objects as JSON lines from a file, prints a line for each that is not valid.
const VALIDATE: &str = "import json, sys, kubernetes_validate
for one in json.load(open(sys.argv[1])):
    try:
        kubernetes_validate.validate(one, sys.argv[2], strict=True)
    except kubernetes_validate.ValidationError as error:
        print(one['kind'], one['metadata']['name'], error.message)";

impl Objects {
    /// From YAML documents.
    ///
    /// # Panics
    /// When they are none.
    #[must_use]
    pub fn parse(yaml: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("objects.yaml");
        std::fs::write(&file, yaml).expect("written");
        let mut command = Command::new(python());
        command
            .args(["-c", TO_JSON])
            .stdin(std::fs::File::open(&file).expect("just written"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let said = must(command);
        let mut objects: Vec<Value> = serde_json::from_str(&said.stdout).expect("JSON");
        objects.sort_by_key(key);
        Self(objects)
    }

    /// Those of several builds.
    #[must_use]
    pub fn joined(parts: impl Iterator<Item = Self>) -> Self {
        Self(parts.flat_map(|part| part.0).collect())
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Value] {
        &self.0
    }

    /// Kind and name of each.
    #[must_use]
    pub fn names(&self) -> Vec<[String; 2]> {
        self.0.iter().map(key).collect()
    }

    /// The object of this kind and name, if there is one.
    #[must_use]
    pub fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0.iter().find(|one| key(one) == [kind, name])
    }

    /// The object of this kind and name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn one(&self, kind: &str, name: &str) -> &Value {
        self.find(kind, name).unwrap_or_else(|| panic!("no {kind} {name} in {:?}", self.names()))
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// When there is none.
    pub fn one_mut(&mut self, kind: &str, name: &str) -> &mut Value {
        let found = self.0.iter_mut().find(|one| key(one) == [kind, name]);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// Puts lists whose elements have names (volumes, containers, variables) in their order: to Kubernetes they are
    /// maps, and kustomize orders them by the patches that they came from.
    pub fn sort_named(&mut self) {
        self.0.iter_mut().for_each(sort_named);
    }

    /// How many pod templates have all these labels.
    #[must_use]
    pub fn pods_with(&self, labels: &Value) -> usize {
        let templates = self.0.iter().map(|one| &one["spec"]["template"]["metadata"]["labels"]);
        templates.filter(|has| has.is_object() && contains(has, labels)).count()
    }
}

fn key(object: &Value) -> [String; 2] {
    [&object["kind"], &object["metadata"]["name"]]
        .map(|text| text.as_str().unwrap_or_default().to_owned())
}

fn sort_named(value: &mut Value) {
    match value {
        Value::Array(list) => {
            list.iter_mut().for_each(sort_named);
            if list.iter().all(|one| one["name"].is_string()) {
                list.sort_by_key(|one| format!("{}{}", one["name"], one["mountPath"]));
            }
        }
        Value::Object(map) => map.values_mut().for_each(sort_named),
        _ => {}
    }
}

fn contains(labels: &Value, wanted: &Value) -> bool {
    wanted.as_object().is_none_or(|wanted| wanted.iter().all(|(key, value)| &labels[key] == value))
}

/// What has been built, by folder: many tests look at the same few.
static BUILT: Mutex<BTreeMap<PathBuf, Objects>> = Mutex::new(BTreeMap::new());

/// What `kubectl kustomize` makes of a folder.
///
/// # Panics
/// When it makes nothing.
#[must_use]
pub fn build(folder: &Path) -> Objects {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let mut command = Command::new(kubectl());
        command.arg("kustomize").arg(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
        Objects::parse(&must(command).stdout)
    };
    built.entry(folder.to_owned()).or_insert_with(make).clone()
}

/// Holds every object against the schemas of a version of Kubernetes, where unknown fields are errors too. Custom
/// resources have none there and are left out.
///
/// # Errors
/// What is wrong, a line for each object.
///
/// # Panics
/// When the validator does not run.
pub fn validate(objects: &Objects, version: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("objects.json");
    let own: Vec<&Value> =
        objects.all().iter().filter(|one| one["kind"] != "ServiceMonitor").collect();
    std::fs::write(&file, serde_json::to_vec(&own).expect("JSON")).expect("written");
    let mut command = Command::new(python());
    command
        .args(["-c", VALIDATE])
        .arg(&file)
        .arg(version)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let said = finish(command).expect_code(0);
    if said.stdout.is_empty() { Ok(()) } else { Err(said.stdout) }
}

/// The pods of a run and the network policies around them.
pub struct Cluster<'a> {
    policies: Vec<&'a Value>,
    pods: Vec<&'a Value>,
}

impl<'a> Cluster<'a> {
    /// That of these objects.
    #[must_use]
    pub fn of(objects: &'a Objects) -> Self {
        let policies = objects.all().iter().filter(|one| one["kind"] == "NetworkPolicy").collect();
        let labels = objects.all().iter().map(|one| &one["spec"]["template"]["metadata"]["labels"]);
        Self { policies, pods: labels.filter(|labels| labels.is_object()).collect() }
    }

    /// Whether pods of component `from` reach `port` (TCP) of component `to`.
    #[must_use]
    pub fn open(&self, from: &str, to: &str, port: u16) -> bool {
        let (from, to) = (self.pod(from), self.pod(to));
        self.allowed(from, "egress", "to", Some(to), port)
            && self.allowed(to, "ingress", "from", Some(from), port)
    }

    /// Whether pods of no run, in another namespace, reach `port` of component `to`.
    #[must_use]
    pub fn open_from_outside(&self, to: &str, port: u16) -> bool {
        self.allowed(self.pod(to), "ingress", "from", None, port)
    }

    /// Whether component `from` reaches `port` of any address at all.
    #[must_use]
    pub fn open_to_outside(&self, from: &str, port: u16) -> bool {
        self.allowed(self.pod(from), "egress", "to", None, port)
    }

    fn pod(&self, component: &str) -> &'a Value {
        let is = |labels: &&&Value| labels["app.kubernetes.io/component"] == component;
        self.pods.iter().find(is).unwrap_or_else(|| panic!("no pods of {component}"))
    }

    /// Whether a policy that selects `pod` allows it; a pod that none selects would be open to all.
    fn allowed(
        &self,
        pod: &Value,
        direction: &str,
        side: &str,
        other: Option<&Value>,
        port: u16,
    ) -> bool {
        let kind = if direction == "egress" { "Egress" } else { "Ingress" };
        let mut selecting = self.policies.iter().filter(|policy| {
            let kinds: BTreeSet<&str> = policy["spec"]["policyTypes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            kinds.contains(kind) && selects(&policy["spec"]["podSelector"], pod)
        });
        let mut any = false;
        let allows = selecting.any(|policy| {
            any = true;
            let rules = policy["spec"][direction].as_array().into_iter().flatten();
            rules.into_iter().any(|rule| {
                let ports = rule["ports"].as_array();
                let fits = ports.is_none_or(|ports| ports.iter().any(|one| one["port"] == port));
                let peers = rule[side].as_array();
                let meant = peers.is_none_or(|peers| {
                    peers.iter().any(|peer| match other {
                        Some(other) => selects(&peer["podSelector"], other),
                        None => peer["podSelector"].is_null(),
                    })
                });
                fits && meant
            })
        });
        allows || !any
    }
}

/// Whether a label selector selects a pod; an empty one selects all.
fn selects(selector: &Value, pod: &Value) -> bool {
    if selector.is_null() {
        return false;
    }
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    contains(pod, &selector["matchLabels"])
        && expressions.into_iter().all(|one| {
            assert_eq!(one["operator"], "In", "the only operator that these manifests use");
            let key = one["key"].as_str().unwrap_or_default();
            one["values"].as_array().is_some_and(|values| values.contains(&pod[key]))
        })
}
