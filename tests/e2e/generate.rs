//! `medevo-worker generate` and `logprobs` by hand: they agree with each other, and say what is wrong.

use std::collections::HashMap;

use medevo_tests::{
    lab::Lab,
    process::{Finished, finish, must, worker},
};
use serde_json::{Value, json};

const QUESTION: &str = "in which organ is the lesion ?";

/// Prompt ids and, for each answer, its ids, text and log-probabilities.
fn generate(lab: &Lab, flags: &[&str]) -> Value {
    let mut command = worker(["generate", "--model", &lab.path("model"), "--json"]);
    command.args(["--question", QUESTION, "--max-new-tokens", "6"]).args(flags);
    serde_json::from_str(&must(command).stdout).expect("one JSON object")
}

/// `logprobs` of these lines, one JSON object each.
fn logprobs(lab: &Lab, lines: &[Value]) -> Vec<Value> {
    let path = lab.path("pairs.jsonl");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, text).expect("pairs.jsonl is written");
    let said =
        must(worker(["logprobs", "--model", &lab.path("model"), "--input", &path, "--json"]));
    said.stdout.lines().map(|l| serde_json::from_str(l).expect("a JSON object a line")).collect()
}

fn answers(output: &Value) -> &Vec<Value> {
    output["answers"].as_array().expect("a list of answers")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|n| n.as_f64().expect("a number")).collect()
}

/// Fails unless `command` ends with an error that holds every one of `words`, and no answer.
fn refused(command: std::process::Command, words: &[&str]) {
    let said: Finished = finish(command).expect_code(1);
    for word in words {
        assert!(said.stderr.contains(word), "{word:?} is named: {}", said.said());
    }
    assert!(!said.stderr.contains("panicked") && said.stdout.is_empty(), "{}", said.said());
}

/// Fails when the cached decoder and the one full pass disagree, or when drawing changes what is reported.
#[test]
fn drawn_answers_have_the_log_probabilities_that_scoring_gives() {
    let lab = Lab::new();
    let image = lab.an_image();
    let (mut lines, mut expected) = (Vec::new(), Vec::new());
    for picture in [None, Some(image.as_str())] {
        for flags in [&["--greedy"][..], &["--n", "64", "--temperature", "1", "--seed", "3"]] {
            let mut flags = flags.to_vec();
            flags.extend(picture.map(|p| ["--image", p]).iter().flatten());
            let output = generate(&lab, &flags);
            for answer in answers(&output) {
                lines.push(json!({
                    "image": picture, "question": QUESTION, "answer": answer["text"]
                }));
                expected.push((output["prompt_ids"].clone(), answer.clone()));
            }
        }
    }
    let mut compared = 0;
    for (scored, (prompt, answer)) in logprobs(&lab, &lines).iter().zip(&expected) {
        assert_eq!(scored["prompt_ids"], *prompt);
        // A random model's text is seldom spelled as it was drawn; as far as the tokens are the same, so
        // must their log-probabilities be.
        let (ids, scored_ids) = (numbers(&answer["ids"]), numbers(&scored["answer_ids"]));
        let same = ids.iter().zip(&scored_ids).take_while(|(a, b)| a == b).count();
        compared += same;
        let (drawn, scored) = (numbers(&answer["logprobs"]), numbers(&scored["logprobs"]));
        for (a, b) in drawn.iter().zip(&scored).take(same) {
            assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{drawn:?} and {scored:?}");
        }
    }
    assert!(compared >= 20, "only {compared} tokens of {} answers are the same", expected.len());
}

/// Fails when a candidate depends on anything but the seed and its index.
#[test]
fn a_seed_and_an_index_name_an_answer() {
    let lab = Lab::new();
    let image = lab.an_image();
    let draw = |n: &str, seed: &str| {
        generate(&lab, &["--n", n, "--temperature", "1", "--seed", seed, "--image", &image])
    };
    let four = draw("4", "3");
    assert_eq!(four, draw("4", "3"), "the same seed");
    assert_ne!(four, draw("4", "4"), "another seed");
    let ids = |output: &Value| -> Vec<Value> {
        answers(output).iter().map(|answer| answer["ids"].clone()).collect()
    };
    assert_eq!(ids(&four)[..2], ids(&draw("2", "3"))[..], "the first two of four");
    let distinct: HashMap<String, ()> =
        ids(&four).iter().map(|ids| (ids.to_string(), ())).collect();
    assert!(distinct.len() > 1, "a random model does not draw one answer four times");
}

/// Fails when the default output leaves out an answer, or the JSON output says more than JSON.
#[test]
fn people_get_text_and_programs_get_json() {
    let lab = Lab::new();
    let mut command = worker(["generate", "--model", &lab.path("model"), "--question", QUESTION]);
    command.args(["--n", "3", "--max-new-tokens", "4"]);
    let said = must(command);
    assert_eq!(said.stdout.matches("log-probability").count(), 3, "{}", said.said());
    let path = lab.path("pairs.jsonl");
    std::fs::write(&path, "\n{\"question\": \"q\", \"answer\": \"\"}\n").expect("written");
    let said = must(worker(["logprobs", "--model", &lab.path("model"), "--input", &path]));
    // The end-of-turn token is scored even where the answer is empty.
    assert!(said.stdout.starts_with("line 2: log-probability -"), "{}", said.said());
    assert!(said.stdout.contains("over 1 tokens"), "{}", said.said());
    let scored = logprobs(&lab, &[json!({"question": "q", "answer": ""})]);
    assert_eq!(numbers(&scored[0]["answer_ids"]).len(), 1);
}

#[test]
fn errors_name_what_is_wrong() {
    let lab = Lab::new();
    let model = lab.path("model");
    let absent = lab.path("absent");
    refused(worker(["generate", "--model", &absent, "--question", "q"]), &[&absent]);
    let image = lab.path("absent.png");
    refused(
        worker(["generate", "--model", &model, "--question", "q", "--image", &image]),
        &["absent.png", "cannot be read"],
    );
    let path = lab.path("pairs.jsonl");
    let score = || worker(["logprobs", "--model", &model, "--input", &path, "--json"]);
    refused(score(), &["pairs.jsonl"]);
    std::fs::write(
        &path,
        "{\"question\": \"q\", \"answer\": \"a\"}\n{\"question\": 1}\nnonsense\n",
    )
    .expect("written");
    refused(score(), &["pairs.jsonl, line 2", "pairs.jsonl, line 3"]);
    let line = json!({"image": image, "question": "q", "answer": "a"});
    std::fs::write(&path, format!("{line}\n")).expect("written");
    refused(score(), &["line 1", "absent.png"]);
    refused(worker(["logprobs", "--model", &absent, "--input", &path]), &[&absent]);
}
