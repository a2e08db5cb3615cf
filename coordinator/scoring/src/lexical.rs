//! The `lexical` embedder: hashed character n-grams, no model, the same on every machine.

use std::collections::BTreeSet;

use medevo_types::settings::EmbedderSettings;

use crate::embed::{Embedding, normalize};

/// Embeds normalised answers and remembers which it has seen, for the inverse document frequency.
#[derive(Clone, Debug)]
pub struct Lexical {
    settings: EmbedderSettings,
    seen: BTreeSet<String>,
    /// Distinct answers that hold the bucket, `[dims]`.
    frequency: Vec<u32>,
}

impl Lexical {
    /// An embedder that has seen `seen`. Settings without a bucket or an n-gram embed nothing; the
    /// scorer refuses them before it embeds.
    pub fn new(settings: EmbedderSettings, seen: BTreeSet<String>) -> Self {
        let mut lexical =
            Self { frequency: vec![0; settings.dims], settings, seen: BTreeSet::new() };
        for answer in &seen {
            lexical.see(answer);
        }
        lexical
    }

    /// Distinct answers seen so far.
    pub fn seen(&self) -> &BTreeSet<String> {
        &self.seen
    }

    /// Counts a normalised answer as a document, once.
    pub fn see(&mut self, answer: &str) {
        if !self.seen.insert(answer.to_owned()) {
            return;
        }
        for (bucket, count) in self.counts(answer).into_iter().enumerate() {
            if count > 0 {
                self.frequency[bucket] += 1;
            }
        }
    }

    /// Embedding of a normalised answer, `[dims]`: (1 + ln count) · idf per bucket, scaled to length 1,
    /// with idf = ln((1 + documents) / (1 + documents with the bucket)) + 1. The zero vector for a text
    /// without an n-gram.
    pub fn embed(&self, answer: &str) -> Embedding {
        let documents = 1.0 + self.seen.len() as f64;
        let mut embedding: Embedding = self
            .counts(answer)
            .into_iter()
            .zip(&self.frequency)
            .map(|(count, &frequency)| match count {
                0 => 0.0,
                _ => {
                    let idf = (documents / (1.0 + f64::from(frequency))).ln() + 1.0;
                    (1.0 + f64::from(count).ln()) * idf
                }
            })
            .collect();
        normalize(&mut embedding);
        embedding
    }

    /// How often each bucket occurs, `[dims]`. N-grams lie within words padded with a space on either
    /// side, so that word order does not matter and beginnings and ends of words count.
    fn counts(&self, answer: &str) -> Vec<u32> {
        let EmbedderSettings { dims, min_gram, max_gram, .. } = self.settings;
        let mut counts = vec![0; dims];
        for word in answer.split_whitespace() {
            let padded: Vec<char> = format!(" {word} ").chars().collect();
            for length in min_gram..=max_gram {
                for gram in padded.windows(length) {
                    counts[bucket(gram, dims)] += 1;
                }
            }
        }
        counts
    }
}

/// FNV-1a over the n-gram's UTF-8, modulo `dims`: fixed for all time, unlike the standard library's hasher.
fn bucket(gram: &[char], dims: usize) -> usize {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut utf8 = [0; 4];
    for c in gram {
        for byte in c.encode_utf8(&mut utf8).bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    // The low bits of FNV-1a mix least: fold the high half in before the modulo.
    let hash = hash ^ (hash >> 32);
    usize::try_from(hash % dims as u64).expect("a remainder of dims fits in a usize")
}
