//! `medevo-worker logprobs`: what the model thinks of given answers, for comparisons with transformers.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::{cli::LogprobsArgs, generate::load};

/// One line of the input. Public contract.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    image: Option<PathBuf>,
    question: String,
    answer: String,
}

/// One line of the output. Public contract: the answer's tokens are followed by the end-of-turn token.
#[derive(Debug, Serialize)]
struct Scored {
    prompt_ids: Vec<u32>,
    answer_ids: Vec<u32>,
    logprobs: Vec<f32>,
}

/// Scores the answers of a file, line by line.
///
/// # Errors
/// The model cannot be read, or a line is wrong: it is named, and nothing after it is scored. Lines
/// are checked before the model is loaded.
pub fn logprobs(args: &LogprobsArgs) -> anyhow::Result<ExitCode> {
    let name = args.input.display().to_string();
    let lines = if args.input == Path::new("-") {
        read(std::io::stdin().lock(), "standard input")?
    } else {
        let file = File::open(&args.input).with_context(|| format!("cannot open {name}"))?;
        read(BufReader::new(file), &name)?
    };
    let mut engine = load(&args.model, args.base.as_deref(), args.device)?;
    let mut out = std::io::stdout().lock();
    for (number, line) in &lines {
        let (prompt_ids, answer_ids, logprobs) = engine
            .logprobs(line.image.as_deref(), &line.question, &line.answer)
            .with_context(|| format!("{name}, line {number}"))?;
        let scored = Scored { prompt_ids, answer_ids, logprobs };
        if args.json {
            serde_json::to_writer(&mut out, &scored)?;
            writeln!(out)?;
        } else {
            let total: f64 = scored.logprobs.iter().map(|&p| f64::from(p)).sum();
            let tokens = scored.answer_ids.len();
            writeln!(out, "line {number}: log-probability {total:.4} over {tokens} tokens")?;
        }
        // Whoever reads along sees each line as it is done.
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All lines with their numbers from 1; blank ones are passed over. Every bad line is reported.
fn read(input: impl BufRead, name: &str) -> anyhow::Result<Vec<(usize, Line)>> {
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    for (index, text) in input.lines().enumerate() {
        let text = text.with_context(|| format!("cannot read {name}"))?;
        if text.trim().is_empty() {
            continue;
        }
        match serde_json::from_str::<Line>(&text) {
            Ok(line) => lines.push((index + 1, line)),
            // serde's own line number is always 1 here.
            Err(e) => problems.push(format!("{name}, line {}: {e}", index + 1)),
        }
    }
    if !problems.is_empty() {
        bail!(
            "{}\na line looks like {{\"image\": path or null, \"question\": str, \"answer\": str}}",
            problems.join("\n")
        );
    }
    Ok(lines)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn image_may_be_null_or_left_out() {
        let text = "{\"image\": null, \"question\": \"q\", \"answer\": \"a\"}\n\n\
                    {\"question\": \"q\", \"answer\": \"a\"}\n\
                    {\"image\": \"x.png\", \"question\": \"q\", \"answer\": \"\"}\n";
        let lines = read(text.as_bytes(), "f").unwrap();
        let images: Vec<_> = lines.iter().map(|(n, l)| (*n, l.image.clone())).collect();
        assert_eq!(images, [(1, None), (3, None), (4, Some(PathBuf::from("x.png")))]);
    }

    #[test]
    fn every_bad_line_is_named() {
        let text = "{\"question\": \"q\"}\n{\"question\": \"q\", \"answer\": \"a\"}\nnonsense\n";
        let error = read(text.as_bytes(), "f").unwrap_err().to_string();
        assert!(error.contains("f, line 1") && error.contains("f, line 3"), "{error}");
        assert!(!error.contains("line 2"), "{error}");
    }
}
