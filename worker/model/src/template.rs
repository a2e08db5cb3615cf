//! The model's own Jinja chat template, and its text cut at special tokens.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::{Value, json};

use crate::json_file;

/// Stands for the question while the template is rendered, so that nothing in the question can be taken
/// for a part of the template. Private-use characters: no template and no trimming touches them.
const QUESTION: &str = "\u{F0000}question\u{F0001}";

/// Part of a rendered prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A special token of the template.
    Token(u32),
    /// Text between special tokens; may hold the question.
    Text(String),
}

/// The chat template of a model directory.
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    eos_token: Option<String>,
    bos_token: Option<String>,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja`, else `chat_template.json`, else `chat_template` in
    /// `tokenizer_config.json`.
    pub(crate) fn load(dir: &Path, tokenizer_config: &Value) -> Result<Self> {
        let source = find(dir, tokenizer_config)?;
        let mut environment = Environment::new();
        // As transformers compiles templates.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .add_template_owned("chat", source)
            .with_context(|| format!("the chat template in {} cannot be parsed", dir.display()))?;
        let token = |key: &str| {
            let value = tokenizer_config.get(key)?;
            value.as_str().or(value.get("content").and_then(Value::as_str)).map(str::to_owned)
        };
        Ok(Self { environment, eos_token: token("eos_token"), bos_token: token("bos_token") })
    }

    /// The prompt of one user message: `images` pictures, then `question`, then the opening of the answer.
    /// `specials` are the tokens that the template may write, by their text.
    pub(crate) fn render(
        &self,
        question: &str,
        images: usize,
        specials: &[(String, u32)],
    ) -> Result<Vec<Piece>> {
        let mut content = vec![json!({"type": "image"}); images];
        content.push(json!({"type": "text", "text": QUESTION}));
        let rendered = self
            .environment
            .get_template("chat")
            .and_then(|template| {
                template.render(context! {
                    messages => json!([{"role": "user", "content": content}]),
                    add_generation_prompt => true,
                    eos_token => self.eos_token,
                    bos_token => self.bos_token,
                })
            })
            .context("the chat template cannot be rendered")?;
        let count = rendered.matches(QUESTION).count();
        ensure!(count == 1, "the chat template writes the question {count} times, not once");
        Ok(cut(&rendered, specials)
            .into_iter()
            .map(|piece| match piece {
                Piece::Text(text) => Piece::Text(text.replace(QUESTION, question)),
                token @ Piece::Token(_) => token,
            })
            .collect())
    }
}

fn find(dir: &Path, tokenizer_config: &Value) -> Result<String> {
    let path = dir.join("chat_template.jinja");
    if path.exists() {
        return std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()));
    }
    let path = dir.join("chat_template.json");
    let (value, at) = match json_file::read(&path)? {
        Some(value) => (value.get("chat_template").cloned(), path),
        None => (tokenizer_config.get("chat_template").cloned(), dir.join("tokenizer_config.json")),
    };
    match value {
        Some(Value::String(source)) => Ok(source),
        // Several named templates; the default one is for chat.
        Some(Value::Array(named)) => named
            .iter()
            .find(|t| t.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|t| t.get("template")?.as_str().map(str::to_owned))
            .with_context(|| format!("{} holds no chat template named \"default\"", at.display())),
        _ => bail!(
            "{} holds no chat template: put one into chat_template.jinja or tokenizer_config.json",
            dir.display()
        ),
    }
}

/// Cuts a text at the special tokens: the leftmost first, of several at one place the longest.
fn cut(text: &str, specials: &[(String, u32)]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let next = specials
            .iter()
            .filter(|(token, _)| !token.is_empty())
            .filter_map(|(token, id)| rest.find(token.as_str()).map(|at| (at, token.len(), *id)))
            .min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length)));
        let end = next.map_or(rest.len(), |(at, ..)| at);
        if end > 0 {
            pieces.push(Piece::Text(rest[..end].to_owned()));
        }
        let Some((at, length, id)) = next else { return pieces };
        pieces.push(Piece::Token(id));
        rest = &rest[at + length..];
    }
}
