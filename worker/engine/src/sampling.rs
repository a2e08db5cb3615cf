//! How one token is drawn, and what the log-probability stored with it means. This is the one place
//! that defines it:
//!
//! **A token's log-probability is that of the policy at temperature T over the vocabulary without the
//! banned tokens, before top-k and top-p cut anything off.** For greedy answers T counts as 1. The update
//! takes its log-probabilities through the same [`Vocabulary::log_probabilities`], so rollout and training
//! agree to rounding, whatever the truncation was.
//!
//! Random numbers are counter-based: ChaCha8 under a key made of the run's seed, the policy version, the
//! purpose, the sample and the candidate's index, read at the token's position. A candidate therefore comes
//! out the same whichever worker draws it and in whatever batch. One caveat: the shape of a batch can change
//! the last bits of the logits; a draw flips only if its uniform falls into that gap (about 1e-6 a token in
//! f32), and the stored log-probability is that of the token drawn either way.

use medevo_types::{messages::Purpose, settings::Sampling};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use tch::{Device, Kind, Tensor};

/// The tokens that an answer may hold.
#[derive(Debug)]
pub struct Vocabulary {
    /// `[vocabulary]`: 0 for a token that may be drawn, minus infinity for a banned one.
    ban: Option<Tensor>,
    banned: Vec<u32>,
}

impl Vocabulary {
    /// All tokens but `banned`: what rollout, reinforcement learning and supervised training use.
    #[must_use]
    pub fn without(banned: &[u32], size: i64, device: Device) -> Self {
        let mut banned: Vec<u32> =
            banned.iter().copied().filter(|id| i64::from(*id) < size).collect();
        banned.sort_unstable();
        banned.dedup();
        if banned.is_empty() {
            return Self { ban: None, banned };
        }
        let mut ban = vec![0f32; usize::try_from(size).unwrap_or(0)];
        for id in &banned {
            ban[*id as usize] = f32::NEG_INFINITY;
        }
        Self { ban: Some(Tensor::from_slice(&ban).to_device(device)), banned }
    }

    /// Every token: the model's plain distribution, as other software reports it.
    #[must_use]
    pub fn full() -> Self {
        Self { ban: None, banned: Vec::new() }
    }

    /// The same once more; nothing is copied but the list of banned ids.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { ban: self.ban.as_ref().map(Tensor::shallow_clone), banned: self.banned.clone() }
    }

    /// Whether `id` can never be drawn.
    #[must_use]
    pub fn bans(&self, id: u32) -> bool {
        self.banned.binary_search(&id).is_ok()
    }

    /// Log-probabilities at `temperature` (0 counts as 1), f32.
    /// logits `[n, vocabulary]` -> `[n, vocabulary]`; banned tokens get minus infinity.
    pub fn log_probabilities(&self, logits: &Tensor, temperature: f64) -> Tensor {
        let logits = logits.to_kind(Kind::Float);
        let logits =
            if temperature == 0.0 || temperature == 1.0 { logits } else { logits / temperature };
        let logits = match &self.ban {
            Some(ban) => logits + ban,
            None => logits,
        };
        logits.log_softmax(-1, Kind::Float)
    }
}

/// Entropy of each row, nats. logp `[n, vocabulary]` -> `[n]`.
pub fn entropy(logp: &Tensor) -> Tensor {
    // A banned token has probability 0 and contributes 0, not 0 times minus infinity.
    -(logp.exp() * logp.clamp_min(-1e30)).sum_dim_intlist(-1, false, Kind::Float)
}

/// The random numbers of one candidate.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of candidate `index` of `sample` under `policy` in the run with `seed`.
    #[must_use]
    pub fn new(seed: u64, policy: u64, purpose: Purpose, sample: &str, index: usize) -> Self {
        let mut key = blake3::Hasher::new_derive_key("medevo 2026 rollout random numbers");
        key.update(&seed.to_le_bytes());
        key.update(&policy.to_le_bytes());
        key.update(&[match purpose {
            Purpose::Train => 0,
            Purpose::Evaluate => 1,
        }]);
        key.update(&(index as u64).to_le_bytes());
        key.update(sample.as_bytes());
        Self(ChaCha8Rng::from_seed(*key.finalize().as_bytes()))
    }

    /// The uniform in [0, 1) that belongs to token `position` of the answer.
    pub fn uniform(&mut self, position: usize) -> f64 {
        self.0.set_word_pos(2 * position as u128);
        // 52 bits: u · total then rounds below total, so the inverse of the distribution function
        // never leaves the vocabulary.
        (self.0.next_u64() >> 12) as f64 / (1u64 << 52) as f64
    }
}

/// Draws tokens by inverting each row's distribution function, in f64.
/// logp `[rows, vocabulary]` (see [`Vocabulary::log_probabilities`]), uniforms `[rows, draws]` f64
/// -> token ids `[rows, draws]` i64. Greedy (temperature 0) ignores the uniforms; the lowest id wins a tie.
pub fn draw(logp: &Tensor, uniforms: &Tensor, sampling: &Sampling) -> Tensor {
    if sampling.temperature == 0.0 {
        let best = logp.argmax(-1, true);
        return best.expand([logp.size()[0], uniforms.size()[1]], false).contiguous();
    }
    let probability = truncate(logp, sampling);
    let cumulative = probability.cumsum(-1, Kind::Double);
    let total = cumulative.narrow(-1, -1, 1);
    let goal = (uniforms * total).contiguous();
    let ids = goal.searchsorted::<Tensor>(&cumulative, false, true, "right", None);
    ids.clamp_max(logp.size()[1] - 1)
}

/// The distribution that is drawn from: what top-k and then top-p leave, in transformers' order and meaning.
/// Top-p works on what top-k has left, renormalised. logp `[rows, vocabulary]` -> probabilities of the same
/// shape, f64, zero where cut off and not renormalised. Of equal ones at top-k's edge the lowest ids stay, so
/// that there are k; transformers would keep all of them.
pub fn truncate(logp: &Tensor, sampling: &Sampling) -> Tensor {
    let probability = logp.to_kind(Kind::Double).exp();
    let size = probability.size()[1];
    let top_k = i64::try_from(sampling.top_k).unwrap_or(i64::MAX);
    let cut_k = top_k > 0 && top_k < size;
    let cut_p = sampling.top_p < 1.0;
    if !cut_k && !cut_p {
        return probability;
    }
    let (sorted, order) = probability.sort_stable(true, -1, true);
    let sorted = if cut_k {
        let kept = sorted.narrow(1, 0, top_k);
        let tail = Tensor::zeros([sorted.size()[0], size - top_k], (Kind::Double, sorted.device()));
        Tensor::cat(&[kept, tail], 1)
    } else {
        sorted
    };
    let sorted = if cut_p {
        let total = sorted.sum_dim_intlist(-1, true, Kind::Double);
        let before = sorted.cumsum(-1, Kind::Double) - &sorted;
        // The token that crosses the threshold stays, so the first one always does.
        &sorted * before.lt_tensor(&(total * sampling.top_p)).to_kind(Kind::Double)
    } else {
        sorted
    };
    probability.zeros_like().scatter(-1, &order, &sorted)
}
