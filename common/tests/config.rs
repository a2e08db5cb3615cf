//! The run file: what is refused, where it is named, and what an accepted file means.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::path::Path;

use medevo_common::config::{Place, RunConfig, StageSection, ValidConfig};

const GOOD: &str = r#"
[run]
name = "demo-s1"
seed = 1

[model]
path = "model"

[data.target]
path = "data/target"
format = "slake"

[[stage]]
kind = "evaluate"
name = "before"
data = ["target"]
majority_n = 16

[[stage]]
kind = "rl"
name = "adapt"
data = "target"
steps = 150
questions = 16
rollout = { n = 16, max_new_tokens = 8 }
objective.beta = 1
"#;

fn parse(text: &str, overrides: &[&str]) -> Result<RunConfig, String> {
    let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
    RunConfig::parse_with(text, Path::new("/runs/run.toml"), &overrides).map_err(|e| e.to_string())
}

fn message(text: &str, overrides: &[&str]) -> String {
    parse(text, overrides).expect_err("the file must be refused")
}

fn invalid(overrides: &[&str]) -> String {
    parse(GOOD, overrides)
        .expect("types are right")
        .validate()
        .expect_err("the values must be refused")
        .to_string()
}

fn rl(config: &RunConfig) -> &medevo_common::config::RlStage {
    config
        .stage
        .iter()
        .find_map(|s| match s {
            StageSection::Rl(rl) => Some(&**rl),
            _ => None,
        })
        .unwrap()
}

#[test]
fn a_good_file_is_read_with_defaults_and_absolute_paths() {
    let config = parse(GOOD, &[]).unwrap();
    assert_eq!(config.run.seed, 1);
    assert_eq!(config.model.path, Path::new("/runs/model"));
    assert_eq!(config.data["target"].path, Path::new("/runs/data/target"));
    assert_eq!(config.data["target"].language, "en");
    assert_eq!(rl(&config).rollout.n, 16);
    assert_eq!(rl(&config).rollout.temperature, 1.0);
    assert_eq!(rl(&config).objective.beta, 1.0, "an integer is a fine number");
    assert_eq!(config.cluster.workers, 2);
    config.validate().unwrap();
}

#[test]
fn the_resolved_file_reads_back_as_the_same_run() {
    let config = parse(GOOD, &["run.dir=out"]).unwrap();
    let text = toml::to_string_pretty(&config).unwrap();
    assert_eq!(parse(&text, &[]).unwrap(), config);
    // Without an optional path too: TOML has no null.
    let config = parse(GOOD, &[]).unwrap();
    assert_eq!(parse(&toml::to_string_pretty(&config).unwrap(), &[]).unwrap(), config);
}

/// A section that may be left out is checked like any other once it is there.
#[test]
fn adapters_are_trained_where_the_section_is_written() {
    assert_eq!(parse(GOOD, &[]).unwrap().lora, None);
    let text = format!("{GOOD}\n[lora]\nrank = 8\n");
    let lora = parse(&text, &[]).unwrap().lora.unwrap();
    assert_eq!((lora.rank, lora.alpha, lora.targets.len()), (8, 32.0, 7));
    parse(&format!("{GOOD}\n[lora]\n"), &[]).unwrap().validate().unwrap();
    let said = message(&text.replace("rank", "rnak"), &[]);
    assert!(said.ends_with("unknown key `lora.rnak`; did you mean `rank`?"), "{said}");
    let said = message(&text.replace("8", "\"8\""), &["lora.target=[]"]);
    assert!(said.contains("`lora.rank` must be an integer"), "{said}");
    assert!(said.contains("unknown key `lora.target`; did you mean `targets`?"), "{said}");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
    let text = GOOD.replace("rollout =", "rolout =");
    assert_eq!(
        message(&text, &[]),
        "/runs/run.toml:25: unknown key `stage[1].rolout`; did you mean `rollout`?"
    );
    let text = GOOD.replace("n = 16, max_new", "n = 16, max_knew");
    assert_eq!(
        message(&text, &[]),
        "/runs/run.toml:25: unknown key `stage[1].rollout.max_knew_tokens`; did you mean \
         `max_new_tokens`?"
    );
}

#[test]
fn a_key_of_a_nested_table_is_found_there() {
    let text = GOOD.replace("steps = 150", "steps = 150\nlr = 1e-5");
    assert!(
        message(&text, &[]).contains("did you mean `optimizer.lr`?"),
        "{}",
        message(&text, &[])
    );
}

#[test]
fn all_problems_come_at_once_in_file_order() {
    let text = GOOD
        .replace("seed = 1", "seed = \"one\"")
        .replace("format = \"slake\"", "format = \"slak\"")
        .replace("steps = 150\n", "")
        .replace("questions = 16", "questions = -1");
    let text = text.replace("[model]", "[modle]");
    let all = message(&text, &[]);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(
        lines,
        [
            "/runs/run.toml: `model` is missing (The model to start from)",
            "/runs/run.toml:4: `run.seed` must be an integer, but this is text",
            "/runs/run.toml:6: unknown key `modle`; did you mean `model`?",
            "/runs/run.toml:11: `data.target.format` cannot be \"slak\"; did you mean `slake`?",
            "/runs/run.toml:19: `stage[1].steps` is missing (Optimizer steps)",
            "/runs/run.toml:23: `stage[1].questions` must not be negative, but it is -1",
        ]
    );
}

#[test]
fn a_stage_without_or_with_a_wrong_kind_says_which_there_are() {
    let text = GOOD.replace("kind = \"rl\"\n", "");
    assert!(
        message(&text, &[]).contains("`stage[1]` lacks `kind`; write one of sft, rl, evaluate")
    );
    let text = GOOD.replace("kind = \"rl\"", "kind = \"grpo\"");
    assert!(
        message(&text, &[]).contains("`stage[1].kind` cannot be \"grpo\"; known here: sft, rl")
    );
}

#[test]
fn broken_toml_is_named_with_its_line() {
    let text = GOOD.replace("seed = 1", "seed = = 1");
    let all = message(&text, &[]);
    assert!(all.starts_with("/runs/run.toml:4: this is not TOML"), "{all}");
    assert!(!all.contains('\n'));
}

/// The editing parser of TOML panics on this text; the reader must not.
#[test]
fn a_text_that_breaks_the_editing_parser_is_refused() {
    let all = message("=[{[].0.\"\n.=.", &[]);
    assert!(all.contains("this is not TOML"), "{all}");
}

#[test]
fn an_override_sets_one_value_only() {
    let config = parse(GOOD, &["run.name=a=b", "model.path=x y\nz = 1"]).unwrap();
    assert_eq!(config.run.name, "a=b");
    assert_eq!(config.model.path, Path::new("/runs/x y\nz = 1"));
    assert!(message(GOOD, &["run.seed=1\nmodel = 2"]).contains("`run.seed` must be an integer"));
    assert!(message(GOOD, &["run.seed=2026-01-01"]).contains("this is a date"));
}

#[test]
fn overrides_win_by_number_by_name_and_by_order() {
    let config = parse(
        GOOD,
        &[
            "run.seed=3",
            "stage.1.steps=10",
            "stage.adapt.steps=11",
            "stage.adapt.objective.beta=0.1",
            "stage.adapt.label.kind=majority",
            "run.name=other",
            "stage.before.data=[\"target\"]",
        ],
    )
    .unwrap();
    assert_eq!(config.run.seed, 3);
    assert_eq!(config.run.name, "other");
    assert_eq!(rl(&config).steps, 11);
    assert_eq!(rl(&config).objective.beta, 0.1);
    assert_eq!(rl(&config).label.kind, medevo_types::settings::LabelKind::Majority);
}

#[test]
fn a_wrong_override_names_itself() {
    assert_eq!(
        message(GOOD, &["stage.adapt.step=10"]),
        "--set stage.adapt.step=10: unknown key `stage[1].step`; did you mean `steps`?"
    );
    assert_eq!(
        message(GOOD, &["stage.adopt.steps=10"]),
        "--set stage.adopt.steps=10: there is no `adopt` among the 2 here; say 0 to 1 or one of the \
         names: before, adapt"
    );
    assert!(message(GOOD, &["run.seed"]).contains("an override is written key=value"));
    assert!(message(GOOD, &["run.seed=x"]).contains("`run.seed` must be an integer"));
    assert!(message(GOOD, &["run.seed.deep=1"]).contains("its parent is an integer"));
    assert!(message(GOOD, &["stage.adapt.optimizer.lr=inf"]).contains("must be a finite number"));
}

#[test]
fn values_out_of_range_name_their_path_and_the_way_out() {
    for (set, said) in [
        ("stage.adapt.rollout.n=1", "`stage[1].rollout.n` must be at least 2"),
        (
            "stage.adapt.rollout.top_p=0",
            "`stage[1].rollout.top_p` must be more than 0 and at most 1",
        ),
        ("stage.adapt.reward.w_sem=0.75", "w_token + w_sem = 1"),
        ("stage.adapt.optimizer.lr=0", "`stage[1].optimizer.lr` must be more than 0"),
        (
            "stage.adapt.objective.loss_type=cispo",
            "`stage[1].objective.clip_high` bounds the ratio itself with loss_type = \"cispo\"",
        ),
        (
            "stage.adapt.objective.importance_cap=0.5",
            "`stage[1].objective.importance_cap` must be 0 (off) or at least 1",
        ),
        (
            "stage.adapt.objective.num_iterations=0",
            "`stage[1].objective.num_iterations` must be at least 1",
        ),
        (
            "stage.adapt.objective.entropy_weight=-1",
            "`stage[1].objective.entropy_weight` must be 0 or more",
        ),
        ("stage.adapt.steps=0", "`stage[1].steps` must be at least 1"),
        ("stage.adapt.data=nowhere", "there is no [data.nowhere], only target"),
        ("stage.adapt.evaluate_every=5", "`stage[1].evaluate` names no data set"),
        ("stage.adapt.name=before", "which an earlier stage has already"),
        ("cluster.min_workers=3", "`cluster.workers` must lie between"),
        ("cluster.min_workers=99", "`cluster.max_workers` must be at least"),
        ("cluster.update_s=30", "must be longer than cluster.collective_timeout_s"),
        ("cluster.listen=localhost", "`cluster.listen` must be host:port"),
        ("cluster.metrics=localhost", "`cluster.metrics` must be host:port"),
        ("cluster.listen=0.0.0.0:7000", "set cluster.trusted_network = true"),
        ("cluster.listen=\"[::]:7000\"", "`medevo-coord certs init DIR`"),
        ("cluster.listen=node-a:7000", "other machines may reach"),
        ("run.name=\"a/b\"", "`run.name` names files"),
        ("engine.tokens_per_batch=10", "must be at least engine.max_prompt_tokens"),
        ("lora.rank=0", "`lora.rank` must be at least 1"),
        ("lora.alpha=0", "`lora.alpha` must be more than 0"),
        ("lora.targets=[]", "`lora.targets` is empty"),
        ("lora.targets=[\"\"]", "`lora.targets[0]` is empty"),
        ("lora.targets=[\"a\", \"b\", \"a\"]", "`lora.targets[2]` names \"a\" a second time"),
    ] {
        let all = invalid(&[set]);
        assert!(all.contains(said), "{set}: {all}");
    }
    assert_eq!(invalid(&["stage.adapt.steps=0", "cluster.grace_s=-1"]).lines().count(), 2);
}

#[test]
fn a_store_that_cannot_work_is_refused_with_the_way_out() {
    let etcd = ["store.kind=etcd", "store.endpoints=[\"https://a:2379\", \"https://b:2379\"]"];
    let good = [&etcd[..], &["store.ca=ca.pem", "store.cert=c.pem", "store.key=c.key"]].concat();
    let config = parse(GOOD, &good).unwrap().validate().expect("a store of a cluster");
    assert_eq!(config.store.ca.as_deref(), Some(Path::new("/runs/ca.pem")));
    assert_eq!(config.store.prefix, "/medevo");
    assert!(parse(GOOD, &[]).unwrap().validate().is_ok(), "the embedded store needs no section");
    let secured = |set: &str| invalid(&[&good[..], &[set]].concat());
    for (all, said) in [
        (invalid(&["store.kind=etcd"]), "`store.endpoints` is empty"),
        (invalid(&["store.endpoints=[\"http://a:1\"]"]), "store.kind is \"embedded\""),
        (invalid(&etcd), "`store.ca` is missing"),
        (secured("store.endpoints=[\"a:1\"]"), "`store.endpoints[0]` must be http://host:port"),
        (
            secured("store.endpoints=[\"https://a:1\", \"http://b:1\"]"),
            "`store.endpoints[1]` is \"http://b:1\", but others are https",
        ),
        (secured("store.endpoints=[\"http://a:1\"]"), "`store.endpoints` are not https"),
        (secured("store.prefix=medevo"), "`store.prefix` must start with `/`"),
        (secured("store.user=coord"), "`store.password_env` and store.user belong together"),
        (invalid(&[&etcd[..], &["store.cert=c.pem"]].concat()), "`store.key` and store.cert"),
        (secured("store.leader_ttl_s=0"), "`store.leader_ttl_s` must be more than 0 s"),
        (secured("store.patience_s=0"), "`store.patience_s` must be more than 0 s"),
    ] {
        assert!(all.contains(said), "{said}: {all}");
    }
}

#[test]
fn a_value_out_of_range_is_named_with_its_line_when_the_file_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    std::fs::write(&path, GOOD.replace("steps = 150", "steps = 0")).unwrap();
    let errors = ValidConfig::load(&path, &["stage.adapt.rollout.n=0".into()]).unwrap_err();
    let places: Vec<_> = errors.problems.iter().map(|p| p.place.clone()).collect();
    assert_eq!(places, [Place::Line(23), Place::Set("stage.adapt.rollout.n=0".into())]);
    let missing = ValidConfig::load(&dir.path().join("none.toml"), &[]).unwrap_err().to_string();
    assert!(missing.contains("the run file cannot be read"), "{missing}");
}

proptest::proptest! {
    /// Whatever text comes in, reading it ends in a value or in problems, never in a panic.
    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]a-c.=\"0-9 \\n{}]{0,80}", set in ".{0,20}") {
        let _ = parse(&text, &[&set]);
        let _ = parse(GOOD, &[&set]);
    }

    /// The same for a good file with a damaged place.
    #[test]
    fn no_damage_makes_the_reader_panic(at in 0..GOOD.len(), cut in 0..6_usize, put in "[\\[\\]={}.\"\n,#a0]{0,4}") {
        let end = (at + cut).min(GOOD.len());
        let _ = parse(&format!("{}{put}{}", &GOOD[..at], &GOOD[end..]), &[]);
    }
}

#[test]
fn checkpoints_are_copied_to_a_place_that_can_be_one_and_carries_no_credentials() {
    let said = |section: &str| {
        let text = format!("{GOOD}\n[checkpoint]\n{section}\n");
        match parse(&text, &[]).unwrap().validate() {
            Ok(_) => String::new(),
            Err(errors) => errors.to_string(),
        }
    };
    for good in ["s3://bucket", "s3://my.bucket/a/b", "file:///mnt/copies"] {
        assert_eq!(said(&format!("copy_to = {good:?}")), "");
    }
    for bad in ["/mnt/copies", "s3://", "s3://key:secret@bucket/x", "file://copies", "gs://x"] {
        let said = said(&format!("copy_to = {bad:?}"));
        assert!(said.contains("`checkpoint.copy_to` must be s3://BUCKET"), "{bad}: {said}");
        assert!(!said.contains("secret"), "a secret must not be printed: {said}");
    }
    assert!(said("endpoint = \"minio:9000\"").contains("must be https://HOST:PORT"));
    assert_eq!(said("best_by = \"evaluation:target\""), "");
    assert!(said("best_by = \"evaluation:other\"").contains("which no stage evaluates"));
    assert!(said("best_by = \"reward mean\"").contains("must be a figure of the steps"));
}
