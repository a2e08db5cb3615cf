//! The curves of a run: one small chart a figure.

use super::{
    chart::{Line, chart},
    story::Story,
};
use crate::{
    compare::Selection,
    run_dir::{EvalKind, EvaluationRecord},
};

/// Title, meaning, and the names of the figure in the event stream, the first that occurs.
const CURVES: [(&str, &str, &[&str]); 13] = [
    ("Reward", "mean over candidates", &["reward_mean", "reward"]),
    ("Label share", "candidates in the chosen cluster", &["cluster_share", "share_mean"]),
    ("KL", "to the weights at the stage's start, nats", &["kl"]),
    ("Entropy", "of the policy, nats a token", &["entropy", "rollout_entropy"]),
    ("Answer length", "tokens", &["answer_tokens", "answer_length"]),
    ("Gradient norm", "before clipping", &["grad_norm"]),
    ("Learning rate", "", &["lr"]),
    ("Loss", "as the objective defines it", &["loss"]),
    ("Groups that trained", "of a step", &["groups_trained", "trained"]),
    ("Rounds", "of questions in a rollout, by dynamic sampling", &["rounds"]),
    ("Label flips", "share of pseudo labels changed since the last visit", &["flip_rate"]),
    ("Clipped", "share of tokens at the clip", &["clip_fraction"]),
    ("Ratio", "training against rollout probability", &["ratio_mean"]),
];

/// All charts that the run has figures for, stage by stage, with their headings.
pub(super) fn curves(story: &Story, records: &[EvaluationRecord], selection: &Selection) -> String {
    let mut page = String::new();
    let mut stages: Vec<&str> = Vec::new();
    for commit in &story.commits {
        if !stages.contains(&commit.stage.as_str()) {
            stages.push(&commit.stage);
        }
    }
    // The adaptation is what the report is about, and it comes last in a run.
    for stage in stages.iter().rev() {
        let mut charts: Vec<String> = accuracy(stage, records, selection).into_iter().collect();
        for (title, meaning, names) in CURVES {
            let points = |name: &&str| -> Vec<(f64, f64)> {
                story
                    .commits
                    .iter()
                    .filter(|c| c.stage == *stage)
                    .filter_map(|c| Some((c.step as f64, *c.figures.get(*name)?)))
                    .filter(|(_, y)| y.is_finite())
                    .collect()
            };
            let points = names.iter().map(points).find(|p| !p.is_empty()).unwrap_or_default();
            // The learning rate is a plan, not a measurement.
            let noisy = names[0] != "lr";
            let line = Line { label: title.into(), points, intervals: Vec::new(), noisy };
            charts.extend(chart(title, meaning, &[line]));
        }
        if !charts.is_empty() {
            page.push_str(&format!(
                "<h3>Stage <code>{}</code></h3><div class=\"charts\">{}</div>",
                super::html::escape(stage),
                charts.concat()
            ));
        }
    }
    page
}

/// Accuracy over the steps of an rl stage: the evaluations on its way, and those before and after the
/// adaptation.
fn accuracy(stage: &str, records: &[EvaluationRecord], selection: &Selection) -> Option<String> {
    if !selection.training.iter().any(|name| name == stage) {
        return None;
    }
    let (before, after) = (selection.before.as_deref(), selection.after.as_deref());
    let belongs = |name: &str| name == stage || Some(name) == before || Some(name) == after;
    let mut during: Vec<&EvaluationRecord> =
        records.iter().filter(|r| belongs(&r.stage) && r.kind == EvalKind::Greedy).collect();
    during.sort_by_key(|r| r.step);
    let mut names: Vec<&str> = Vec::new();
    for name in selection.data() {
        if during.iter().any(|r| r.data == *name) && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let lines: Vec<Line> = names
        .iter()
        .map(|name| {
            let of = during.iter().filter(|r| r.data == *name);
            Line {
                label: (*name).to_owned(),
                points: of.clone().map(|r| (r.step as f64, 100.0 * r.accuracy.mean)).collect(),
                noisy: false,
                intervals: of.map(|r| (100.0 * r.accuracy.low, 100.0 * r.accuracy.high)).collect(),
            }
        })
        .collect();
    chart("Accuracy", "greedy answers, strict, per cent, 95 % intervals", &lines)
}
