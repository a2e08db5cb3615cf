//! Questions and answers as tokens, with the positions of the multimodal rotary embedding.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::json_file;
use crate::template::{ChatTemplate, Piece};

/// Closes a turn in Qwen's templates.
const END_OF_TURN: &str = "<|im_end|>";

/// A prompt, ready for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptTokens {
    /// Token ids, one `<|image_pad|>` per merged image token.
    pub ids: Vec<u32>,
    /// Time, height and width of each token, all of one length.
    pub positions: [Vec<i64>; 3],
    /// Position, in all three, of the first answer token.
    pub next_position: i64,
}

/// A model directory's tokenizer, chat template and special tokens.
pub struct Encoder {
    /// Knows the special tokens: for decoding.
    tokenizer: Tokenizer,
    /// Knows none: text given to it stays text, whatever it says.
    plain: Tokenizer,
    template: ChatTemplate,
    /// Every added token by its text.
    specials: Vec<(String, u32)>,
    image_id: u32,
    merge: i64,
    end_of_turn: u32,
    stop: Vec<u32>,
    banned: Vec<u32>,
}

impl Encoder {
    /// Reads `tokenizer.json`, `tokenizer_config.json`, the chat template, `config.json` and
    /// `generation_config.json` of a model directory.
    ///
    /// # Errors
    /// Names the file that is missing or cannot be followed.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let mut json =
            json_file::read(&path)?.with_context(|| format!("{} is missing", path.display()))?;
        let build = |json: &Value| {
            serde_json::from_value::<Tokenizer>(json.clone())
                .map_err(|e| anyhow!("{} is no tokenizer: {e}", path.display()))
        };
        let tokenizer = build(&json)?;
        json["added_tokens"] = Value::Array(Vec::new());
        let plain = build(&json)?;
        let added = tokenizer.get_added_tokens_decoder();
        let mut specials: Vec<(String, u32)> =
            added.iter().map(|(id, token)| (token.content.clone(), *id)).collect();
        specials.sort_by_key(|(_, id)| *id);

        let config = json_file::read(&dir.join("config.json"))?.unwrap_or_default();
        let generation = json_file::read(&dir.join("generation_config.json"))?.unwrap_or_default();
        let tokenizer_config =
            json_file::read(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        let stop = stop_ids(&tokenizer, &generation, &config, &tokenizer_config);
        ensure!(
            !stop.is_empty(),
            "{} names no end of an answer: set eos_token_id in generation_config.json",
            dir.display()
        );
        let end_of_turn =
            tokenizer.token_to_id(END_OF_TURN).filter(|id| stop.contains(id)).unwrap_or(stop[0]);
        let image_id = match config.get("image_token_id").and_then(Value::as_u64) {
            Some(id) => {
                u32::try_from(id).context("image_token_id in config.json is out of range")?
            }
            None => tokenizer
                .token_to_id("<|image_pad|>")
                .context("neither config.json nor the tokenizer knows <|image_pad|>")?,
        };
        let merge = config
            .get("vision_config")
            .and_then(|v| v.get("spatial_merge_size"))
            .and_then(Value::as_i64)
            .filter(|n| *n > 0)
            .unwrap_or(2);
        let mut banned: Vec<u32> = added
            .iter()
            .filter(|(id, token)| token.special && !stop.contains(id))
            .map(|(id, _)| *id)
            .collect();
        banned.sort_unstable();
        Ok(Self {
            template: ChatTemplate::load(dir, &tokenizer_config)?,
            tokenizer,
            plain,
            specials,
            image_id,
            merge,
            end_of_turn,
            stop,
            banned,
        })
    }

    /// The prompt of one user message, images first, through the chat template with the generation
    /// prompt. `grids` are the images' `Pixels::grid`. A placeholder becomes as many `<|image_pad|>` as its
    /// image has tokens. The question is text throughout: a `<|image_pad|>` or `<|im_end|>` written in it
    /// is spelled out in ordinary tokens and means nothing to the model.
    ///
    /// # Errors
    /// If the template does not place exactly the given images.
    pub fn prompt(&self, question: &str, grids: &[[i64; 3]]) -> Result<PromptTokens> {
        let pieces = self.template.render(question, grids.len(), &self.specials)?;
        let mut prompt = Builder::default();
        let mut images = grids.iter();
        for piece in &pieces {
            match piece {
                Piece::Token(id) if *id == self.image_id => {
                    let grid = images.next().with_context(|| {
                        format!(
                            "the chat template places more images than the {} given",
                            grids.len()
                        )
                    })?;
                    prompt.image(self.image_id, *grid, self.merge)?;
                }
                Piece::Token(id) => prompt.text(&[*id]),
                Piece::Text(text) => prompt.text(&self.encode(text)?),
            }
        }
        ensure!(
            images.next().is_none(),
            "the chat template does not place all of the {} images",
            grids.len()
        );
        Ok(PromptTokens {
            ids: prompt.ids,
            positions: prompt.positions,
            next_position: prompt.next,
        })
    }

    /// An answer as the model should write it: its text, then the end of the turn.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn answer(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text)?;
        ids.push(self.end_of_turn);
        Ok(ids)
    }

    /// The text of tokens, without special tokens and trimmed as Python's `strip` does it.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        // An id that the tokenizer does not know is left out; nothing else can fail.
        let text = self.tokenizer.decode(ids, true).unwrap_or_default();
        // Python counts four separators among the control characters as space.
        let space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
        text.trim_matches(space).to_owned()
    }

    /// Tokens that end an answer (`eos_token_id` of generation_config.json), in the file's order.
    #[must_use]
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop
    }

    /// Tokens that an answer never holds: every special token that does not end it. Sorted.
    #[must_use]
    pub fn banned_ids(&self) -> &[u32] {
        &self.banned
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.plain.encode_fast(text, false).map_err(|e| {
            anyhow!("the tokenizer refuses a text of {} characters: {e}", text.len())
        })?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// Ids and positions so far.
#[derive(Default)]
struct Builder {
    ids: Vec<u32>,
    positions: [Vec<i64>; 3],
    next: i64,
}

impl Builder {
    /// Text moves one position a token, in all three directions.
    fn text(&mut self, ids: &[u32]) {
        for id in ids {
            self.ids.push(*id);
            for axis in &mut self.positions {
                axis.push(self.next);
            }
            self.next += 1;
        }
    }

    /// An image spreads over height and width from the current position; the text after it goes on
    /// beyond its longer side (reference: `get_rope_index`).
    fn image(&mut self, id: u32, [frames, rows, columns]: [i64; 3], merge: i64) -> Result<()> {
        ensure!(
            frames > 0 && rows > 0 && columns > 0 && rows % merge == 0 && columns % merge == 0,
            "an image grid of {frames} x {rows} x {columns} patches does not divide into tokens of {merge} x {merge}"
        );
        let (rows, columns) = (rows / merge, columns / merge);
        for token in 0..frames * rows * columns {
            self.ids.push(id);
            let place = [token / (rows * columns), token / columns % rows, token % columns];
            for (axis, offset) in self.positions.iter_mut().zip(place) {
                axis.push(self.next + offset);
            }
        }
        self.next += rows.max(columns);
        Ok(())
    }
}

/// `eos_token_id` of generation_config.json, else of config.json, else the tokenizer's `eos_token`.
fn stop_ids(
    tokenizer: &Tokenizer,
    generation: &Value,
    config: &Value,
    tokenizer_config: &Value,
) -> Vec<u32> {
    let listed = |v: &Value| -> Vec<u32> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        match v.get("eos_token_id") {
            Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
            Some(one) => id(one).into_iter().collect(),
            None => Vec::new(),
        }
    };
    let mut stop = listed(generation);
    if stop.is_empty() {
        stop = listed(config);
    }
    if stop.is_empty() {
        stop = config.get("text_config").map(listed).unwrap_or_default();
    }
    if stop.is_empty()
        && let Some(eos) = tokenizer_config.get("eos_token")
        && let Some(text) = eos.as_str().or(eos.get("content").and_then(Value::as_str))
    {
        stop.extend(tokenizer.token_to_id(text));
    }
    stop
}
