//! What was run: model, data, stages, time by phase, events of note.

use std::fmt::Write;

use medevo_common::config::{RunConfig, StageSection};

use super::{
    html::{escape, percent},
    story::Story,
};
use crate::run_dir::{human_duration, rfc3339_ms};

/// Events of note shown at most.
const NOTES: usize = 60;

/// A table of facts.
pub(super) fn facts(config: &RunConfig, story: &Story) -> String {
    let mut rows: Vec<(&str, String)> = vec![
        ("model", escape(&config.model.path.display().to_string())),
        ("seed", config.run.seed.to_string()),
        ("weights", format!("{:?}", config.model.dtype).to_lowercase()),
    ];
    if let Some(lora) = &config.lora {
        let targets = escape(&lora.targets.join(", "));
        rows.push(("adapters", format!("rank {}, alpha {}, on {targets}", lora.rank, lora.alpha)));
    }
    for (name, data) in &config.data {
        let limit = if data.limit > 0 { format!(", first {}", data.limit) } else { String::new() };
        rows.push((
            "data",
            format!(
                "<code>{}</code> {}{limit}",
                escape(name),
                escape(&data.path.display().to_string())
            ),
        ));
    }
    for stage in &config.stage {
        rows.push(("stage", describe(stage)));
    }
    let workers: Vec<String> =
        story.workers.iter().map(|(w, device)| escape(&format!("{w} ({device})"))).collect();
    if !workers.is_empty() {
        rows.push(("workers", workers.join(", ")));
    }
    if let (Some(first), Some(last)) = (story.first_ms, story.last_ms) {
        let seconds = last.saturating_sub(first) as f64 / 1000.0;
        rows.push(("began", rfc3339_ms(first)));
        rows.push(("took", human_duration(seconds)));
    }
    rows.push(("steps that stand", story.commits.len().to_string()));
    let mut page = String::from("<div class=\"scroll\"><table class=\"facts\"><tbody>");
    for (name, value) in rows {
        let _ = write!(page, "<tr><th>{name}</th><td>{value}</td></tr>");
    }
    page.push_str("</tbody></table></div>");
    page
}

fn describe(stage: &StageSection) -> String {
    let text = match stage {
        StageSection::Sft(s) => format!(
            "supervised on {}: {} steps of {} examples, lr {:e}",
            s.data, s.steps, s.batch, s.optimizer.lr
        ),
        StageSection::Rl(s) => format!(
            "label-free on {}: {} steps{} of {} questions × {} candidates, label {:?}, embedder {:?}, reward \
             {:?}, β {}, lr {:e}",
            s.data,
            s.steps,
            match s.objective.num_iterations {
                1 => String::new(),
                each => format!(", {each} a rollout,"),
            },
            s.questions,
            s.rollout.n,
            s.label.kind,
            s.embedder.kind,
            s.reward.kind,
            s.objective.beta,
            s.optimizer.lr
        ),
        StageSection::Evaluate(s) => {
            let majority = match s.majority_n {
                0 => String::new(),
                n => format!(", maj@{n}"),
            };
            format!("evaluate {}: greedy{majority}", s.data.join(", "))
        }
    };
    format!("<code>{}</code> {}", escape(stage.name()), escape(&text))
}

/// Time by phase as one bar with a legend; empty without steps.
pub(super) fn phases(story: &Story) -> String {
    let phases = story.phases();
    let total: u64 = phases.iter().map(|(_, ms)| ms).sum();
    if total == 0 {
        return String::new();
    }
    let mut page =
        String::from("<h3>Time by phase</h3><div class=\"phases\" aria-hidden=\"true\">");
    for (i, (_, ms)) in phases.iter().enumerate() {
        let share = 100.0 * *ms as f64 / total as f64;
        let _ = write!(page, "<i class=\"f{}\" style=\"width:{share:.2}%\"></i>", i % 6 + 1);
    }
    page.push_str("</div><div class=\"legend\">");
    for (i, (phase, ms)) in phases.iter().enumerate() {
        let _ = write!(
            page,
            "<span class=\"key f{}\">{} {} ({} %)</span>",
            i % 6 + 1,
            escape(phase),
            human_duration(*ms as f64 / 1000.0),
            percent(*ms as f64 / total as f64)
        );
    }
    page.push_str("</div>");
    page
}

/// What went wrong, and what was done about it.
pub(super) fn notes(story: &Story) -> String {
    let mut page = String::from("<h3>Events of note</h3>");
    if story.notes.is_empty() && story.reissued == 0 && story.rejected.is_empty() {
        page.push_str("<p>None: no worker was lost, no attempt voided, nothing rolled back.</p>");
        return page;
    }
    page.push_str("<ul class=\"notes\">");
    for note in story.notes.iter().take(NOTES) {
        let _ = write!(page, "<li><time>{}</time> {}</li>", escape(&note.time), escape(&note.text));
    }
    if story.notes.len() > NOTES {
        let _ = write!(page, "<li>and {} more, in events.jsonl</li>", story.notes.len() - NOTES);
    }
    if story.reissued > 0 {
        let _ =
            write!(page, "<li>{} units of rollout work were handed out again</li>", story.reissued);
    }
    for (reason, count) in &story.rejected {
        let reason = reason.replace('_', " ");
        let _ = write!(page, "<li>{count} reports were turned away: {}</li>", escape(&reason));
    }
    page.push_str("</ul>");
    page
}
