//! The page: its head, its sections, and the file.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{
    accuracy::{Pair, accuracy},
    curves::curves,
    facts::{facts, notes, phases},
    gallery::gallery,
    html::{escape, percent, points},
    story::Story,
};
use crate::{
    compare::Selection,
    run_dir::{RunDir, SampleRecord, now_ms, rfc3339_ms, write_atomic},
};

const STYLE: &str = include_str!("style.css");

/// Writes `report.html` into the run directory at `path` and returns where it is. Works at any time of a run; what is
/// not there yet is left out and said to be missing.
///
/// # Errors
/// There is no run at `path`, a file of the run cannot be read, or the report cannot be written.
pub fn write(path: &Path) -> anyhow::Result<PathBuf> {
    let run = &RunDir::open(path)?;
    let context = || format!("no report can be made of {}", run.path().display());
    let config = run.config().with_context(context)?;
    let story = Story::read(&run.events_file()).with_context(context)?;
    let records = run.read_evaluations().with_context(context)?;
    let samples = SampleRecord::read_all(&run.samples_file()).with_context(context)?;
    let selection = Selection::of(&config);
    let pairs = Pair::all(&selection, &records);

    let mut page = head(&config.run.name);
    let _ = write!(
        page,
        "<header><p class=\"kicker\">medevo run</p><h1>{}</h1><p class=\"state\">{}</p></header>",
        escape(&config.run.name),
        escape(&state(&story))
    );
    cards(&mut page, &pairs);
    let body = accuracy(&pairs);
    section(&mut page, "Accuracy", &body, "No evaluation has been made yet.");
    if !body.is_empty() {
        page.push_str(READING);
    }
    section(
        &mut page,
        "Curves",
        &curves(&story, &records, &selection),
        "No step has been committed yet.",
    );
    let table = gallery(&samples, &pairs);
    if !table.is_empty() {
        let intro = "<p>The last group drawn for some samples of the adaptation data: in turn those that \
                     the adaptation won, lost, left wrong and left right. The candidate that became the \
                     pseudo label is marked. Before and after are greedy answers; ✓ and ✗ come from the \
                     evaluator, which alone knows the reference answers.</p>";
        section(&mut page, "Samples", &format!("{intro}{table}"), "");
    }
    let run_facts = format!("{}{}{}", facts(&config, &story), phases(&story), notes(&story));
    section(&mut page, "The run", &run_facts, "");
    let text = std::fs::read_to_string(run.config_file()).with_context(context)?;
    let _ = writeln!(
        page,
        "<details><summary>Run file, with defaults and overrides resolved</summary><pre>{}</pre></details>\
         <footer>Made {} from the run directory alone. This page holds questions, answers and pictures \
         of the data: pass it on only where the data may go.</footer></main></body></html>",
        escape(&text),
        rfc3339_ms(now_ms())
    );
    let path = run.report_file();
    write_atomic(&path, page.as_bytes())?;
    Ok(path)
}

/// How to read the accuracies; the reader must not take form for knowledge.
const READING: &str = "<aside><h3>How to read this</h3><p>All questions are in the denominator; an answer \
    that cannot be read counts as wrong. Brackets hold 95 % intervals, bootstrapped over questions: they say \
    how much another sample of questions would move the figure, not how much another seed would. The \
    difference is paired: the same questions before and after.</p><p><b>Strict accuracy also rises when \
    answers only take the expected form</b> (&ldquo;liver&rdquo; instead of &ldquo;it is the liver&rdquo;). \
    Token recall asks only whether the reference's words are there: what it gains, or loses, is what is left \
    of a gain in accuracy once form is set aside. Questions that the run never adapted on are marked as held out.</p></aside>";

fn head(name: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{} · medevo</title>\
         <style>{STYLE}</style></head><body><main>",
        escape(name)
    )
}

fn section(page: &mut String, title: &str, body: &str, missing: &str) {
    let body = if body.is_empty() {
        format!("<p class=\"missing\">{missing}</p>")
    } else {
        body.to_owned()
    };
    let _ = write!(page, "<section><h2>{title}</h2>{body}</section>");
}

fn state(story: &Story) -> String {
    let steps = story.commits.len();
    match (&story.outcome, &story.stage) {
        (Some(outcome), _) if outcome == "done" => format!("Done after {steps} steps."),
        (Some(outcome), _) => format!("This run {outcome} ({steps} steps stand)."),
        (None, Some(stage)) => {
            format!(
                "Not finished: in stage {stage}, {steps} steps so far. This page shows what there is."
            )
        }
        (None, None) => "Nothing has been run yet.".into(),
    }
}

/// The figures that matter most, large.
fn cards(page: &mut String, pairs: &[Pair<'_>]) {
    let mut cards = String::new();
    for pair in pairs {
        let (Some(before), Some(after)) = (pair.before, pair.after) else { continue };
        let gain = pair.gain();
        let change = gain.map_or_else(String::new, |g| {
            let class = match (g.low > 0.0, g.high < 0.0) {
                (true, _) => "up",
                (_, true) => "down",
                _ => "even",
            };
            format!(
                "<p class=\"change {class}\">{} points <small>[{}, {}]</small></p>",
                points(g.mean),
                points(g.low),
                points(g.high)
            )
        });
        let _ = write!(
            cards,
            "<div class=\"card\"><p class=\"what\">{} <small>{}</small></p>\
             <p class=\"figure\"><span>{}</span> → <b>{}</b> <small>% accuracy</small></p>{change}\
             <p class=\"recall\">recall {} → {}</p></div>",
            escape(pair.data),
            pair.role(),
            percent(before.accuracy.mean),
            percent(after.accuracy.mean),
            percent(before.recall.mean),
            percent(after.recall.mean)
        );
    }
    if !cards.is_empty() {
        let _ = write!(page, "<div class=\"cards\">{cards}</div>");
    }
}
