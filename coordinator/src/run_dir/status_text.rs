//! The status as `medevo-coord status` prints it.

use std::fmt::Write;

use super::{
    status::Status,
    time::{now_ms, rfc3339_ms},
};

/// The status in a few lines. `alive` says whether the coordinator that wrote it still runs.
#[must_use]
pub fn render_status(status: &Status, alive: bool) -> String {
    let view = &status.view;
    let over = status.view.ending.is_some();
    let mut text = String::new();
    // Writing to a String cannot fail, so the results below say nothing.
    let _ = writeln!(text, "run         {}", status.run);
    let state = match (alive, over) {
        (_, true) => view.explain.clone(),
        (true, false) => format!("{} ({})", view.phase, view.explain),
        (false, false) if status.is_here() => format!(
            "stopped in phase {} (coordinator {} is gone; `medevo-coord resume` goes on)",
            view.phase, status.pid
        ),
        (false, false) => format!(
            "no word in phase {} (coordinator {} on {} is silent; if it is gone, `medevo-coord resume` goes on)",
            view.phase, status.pid, status.host
        ),
    };
    let _ = writeln!(text, "state       {state}");
    let _ = writeln!(text, "stage       {}", view.stage);
    let _ = writeln!(text, "step        {} of {}", view.step, view.total_steps);
    let _ = writeln!(
        text,
        "counters    policy {}, generation {}, term {}",
        view.policy, view.generation, view.term
    );
    if alive {
        let _ = writeln!(text, "led by      process {} on {}", status.pid, status.host);
    }
    if let Some(rate) = status.tokens_per_s {
        let _ = writeln!(text, "speed       {rate:.0} tokens/s");
    }
    if let Some(left) = status.eta_s.filter(|_| alive && !over) {
        let _ = writeln!(text, "time left   {}", human_duration(left));
    }
    let age = now_ms().saturating_sub(status.updated_at) as f64 / 1000.0;
    let _ = writeln!(
        text,
        "updated     {} ({} ago)",
        rfc3339_ms(status.updated_at),
        human_duration(age)
    );
    if !view.workers.is_empty() {
        let _ = writeln!(text, "workers");
    }
    for worker in &view.workers {
        let rank = worker.rank.map_or("no rank".to_owned(), |rank| format!("rank {rank}"));
        let _ = writeln!(
            text,
            "  {:<10} {:<8} {:<8} heard of {:.1} s before the update",
            worker.worker.0,
            rank,
            worker.device,
            worker.silent_ms as f64 / 1000.0
        );
    }
    if !status.figures.is_empty() {
        let _ = writeln!(text, "last step");
        for (name, value) in &status.figures {
            let _ = writeln!(text, "  {name:<22} {value:.4}");
        }
    }
    let rejected: Vec<String> =
        view.rejected.iter().map(|(reason, count)| format!("{count} × {reason}")).collect();
    if !rejected.is_empty() {
        let _ = writeln!(text, "turned away {}", rejected.join("; "));
    }
    text
}

/// A duration for people: "8 s", "3 min 20 s", "2 h 05 min".
#[must_use]
pub fn human_duration(seconds: f64) -> String {
    // Negative and endless times come from clocks that moved; both read as nothing known.
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".into();
    }
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}
