//! `medevo-worker generate`: one question, for eyes and for comparisons with transformers.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use medevo_engine::Engine;
use medevo_model::Adapter;
use medevo_types::{
    messages::{Candidate, EngineSetup},
    settings::{Dtype, Sampling, TrainSettings},
};
use serde::Serialize;
use tch::Device;

use crate::cli::GenerateArgs;

/// What `--json` prints. Public contract.
#[derive(Debug, Serialize)]
struct Output<'a> {
    prompt_ids: &'a [u32],
    answers: Vec<Answer<'a>>,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    ids: &'a [u32],
    text: &'a str,
    logprobs: &'a [f32],
}

/// Answers one question.
///
/// # Errors
/// The model or an image cannot be read, or the prompt is too long.
pub fn generate(args: &GenerateArgs) -> anyhow::Result<ExitCode> {
    let sampling = sampling(args);
    let mut engine = load(&args.model, args.base.as_deref(), args.device)?;
    let images: &[PathBuf] = &args.image;
    let (prompt_ids, candidates) =
        engine.generate(images, &args.question, &sampling, args.seed.unwrap_or(0))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &output(&prompt_ids, &candidates))?;
        writeln!(out)?;
    } else {
        for candidate in &candidates {
            let total: f64 = candidate.logprobs.iter().map(|&p| f64::from(p)).sum();
            let cut = if candidate.finished { "" } else { ", cut at --max-new-tokens" };
            let tokens = candidate.ids.len();
            writeln!(
                out,
                "{}\n  [{tokens} tokens, log-probability {total:.3}{cut}]",
                candidate.text
            )?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// An engine with the weights of `model`, for one process on its own. An adapter is put beside `base`, or
/// beside the model that it names.
///
/// # Errors
/// The directory is incomplete or does not fit.
pub(crate) fn load(model: &Path, base: Option<&Path>, device: Device) -> anyhow::Result<Engine> {
    anyhow::ensure!(
        base.is_none() || Adapter::lies_in(model),
        "--base goes with an adapter, and {} holds none; leave it out",
        model.display()
    );
    let setup = EngineSetup {
        model: base.unwrap_or(model).to_path_buf(),
        dtype: Dtype::F32,
        seed: 0,
        threads: 0,
        max_prompt_tokens: 32_768,
        tokens_per_batch: 32_768,
        // No other ranks.
        collective_timeout_ms: 0,
        freeze_vision: true,
        train: TrainSettings::default(),
        lora: None,
    };
    let mut engine = Engine::new(&setup, device)?;
    engine.load_model(model)?;
    Ok(engine)
}

fn sampling(args: &GenerateArgs) -> Sampling {
    let draws = args.n.is_some() || args.temperature.is_some();
    let n = if draws { args.n.unwrap_or(1) as usize } else { 1 };
    Sampling {
        n,
        temperature: if draws { args.temperature.unwrap_or(1.0) } else { 0.0 },
        top_p: args.top_p.unwrap_or(1.0),
        top_k: args.top_k.unwrap_or(0),
        max_new_tokens: args.max_new_tokens as usize,
    }
}

fn output<'a>(prompt_ids: &'a [u32], candidates: &'a [Candidate]) -> Output<'a> {
    let answers = candidates
        .iter()
        .map(|c| Answer { ids: &c.ids, text: &c.text, logprobs: &c.logprobs })
        .collect();
    Output { prompt_ids, answers }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(flags: &str) -> Sampling {
        let line = format!("medevo-worker generate --model m --question q {flags}");
        match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
            Command::Generate(args) => sampling(&args),
            _ => unreachable!("it says generate"),
        }
    }

    #[test]
    fn greedy_is_the_default_and_drawing_is_at_temperature_one() {
        assert_eq!((parsed("").n, parsed("").temperature), (1, 0.0));
        assert_eq!((parsed("--greedy").n, parsed("--greedy").temperature), (1, 0.0));
        assert_eq!((parsed("--n 4").n, parsed("--n 4").temperature), (4, 1.0));
        let cold = parsed("--temperature 0.5 --max-new-tokens 7");
        assert_eq!((cold.n, cold.temperature, cold.max_new_tokens), (1, 0.5, 7));
    }

    #[test]
    fn json_keeps_the_published_field_names() {
        let candidate = Candidate {
            ids: vec![5, 2],
            text: "yes".to_owned(),
            logprobs: vec![-0.5, 0.0],
            finished: true,
            feature: None,
        };
        let json = serde_json::to_string(&output(&[1], &[candidate])).unwrap();
        let expected =
            r#"{"prompt_ids":[1],"answers":[{"ids":[5,2],"text":"yes","logprobs":[-0.5,0.0]}]}"#;
        assert_eq!(json, expected);
    }
}
