//! The final table as text.

use std::path::Path;

use medevo_text::Interval;

use super::rows::{Row, Score, rows};

/// The table over the runs in these directories, ready to print.
///
/// # Errors
/// As [`rows`].
pub fn table<P: AsRef<Path>>(runs: &[P]) -> anyhow::Result<String> {
    Ok(render(&rows(runs)?))
}

/// The table of these rows. One seed shows its 95 % interval over questions; several show their mean and,
/// in brackets, the lowest and the highest seed: an interval over three seeds would claim too much.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "No run has been evaluated yet.\n".into();
    }
    let header = ["", "adapted accuracy", "recall", "held-out accuracy", "recall", "seeds"];
    let mut lines: Vec<[String; 6]> = vec![header.map(str::to_owned)];
    for row in rows {
        let (adapted, held_out): (&Score, &Score) = (&row.figures.adapted, &row.figures.held_out);
        lines.push([
            row.label.clone(),
            cell(&adapted.accuracy),
            cell(&adapted.recall),
            cell(&held_out.accuracy),
            cell(&held_out.recall),
            row.seeds.len().to_string(),
        ]);
    }
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        if i == 0 {
            text.push_str(&"─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)));
            text.push('\n');
        }
    }
    text.push_str(
        "Per cent, strict protocol, greedy answers. In brackets: one seed, 95 % interval over questions; \
         several seeds, lowest and highest.\nAccuracy also rises when answers only take the expected \
         form; recall shows what is left of that.\n",
    );
    text
}

fn cell(values: &[Interval]) -> String {
    let (mean, low, high) = match values {
        [] => return "–".into(),
        [one] => (one.mean, one.low, one.high),
        many => (
            many.iter().map(|v| v.mean).sum::<f64>() / many.len() as f64,
            many.iter().map(|v| v.mean).fold(f64::INFINITY, f64::min),
            many.iter().map(|v| v.mean).fold(f64::NEG_INFINITY, f64::max),
        ),
    };
    format!("{:.1} [{:.1}, {:.1}]", 100.0 * mean, 100.0 * low, 100.0 * high)
}
