//! What a rank says it holds: a digest over version, weights (an adapter and its base's digest), masters and moments, the same on every rank and for
//! any number of them.

use medevo_collective::Collective;
use medevo_types::messages::Holding;
use tch::{Device, Tensor};

use crate::{
    digest,
    error::EngineError,
    exchange::exchange,
    fingerprint::{self, Fingerprint},
    state::State,
};

/// Numbers of an exchange: whether this rank has its part, then the sums of masters and both moments.
const FACTS: usize = 7;

impl State {
    /// What this is. Where there are moments and they are sharded, the ranks exchange what they see of them: all of
    /// them call it, and a rank that could not read its part calls [`nothing_to_hold`] instead.
    ///
    /// # Errors
    /// [`EngineError::Collective`] when the exchange fails, [`EngineError::Stale`] when a rank has nothing.
    pub fn holding(&self, collective: &mut dyn Collective) -> Result<Holding, EngineError> {
        let from = self.shard.range().start;
        let print = |part: Option<&Tensor>| {
            part.map_or_else(Fingerprint::default, |part| fingerprint::of(part, from))
        };
        let moments = self.moments.as_ref();
        let mut parts = [
            print(self.master.as_ref()),
            print(moments.map(|moments| &moments.first)),
            print(moments.map(|moments| &moments.second)),
        ];
        if self.stepped() && !self.shard.is_whole() {
            let mut facts = vec![1];
            facts.extend(parts.iter().flat_map(|print| print.0).map(|sum| sum as i64));
            parts = [Fingerprint::default(); 3];
            for (rank, row) in exchange(&facts, self.device(), collective)?.iter().enumerate() {
                if row[0] == 0 {
                    let why = "it could not read its part; its own report says why";
                    return Err(EngineError::stale(
                        format!("the optimizer's part of rank {rank}"),
                        why,
                    ));
                }
                for (sum, part) in parts.iter_mut().zip(row[1..].chunks_exact(2)) {
                    *sum += Fingerprint([part[0] as u64, part[1] as u64]);
                }
            }
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.policy.0.to_le_bytes());
        if let Some(base) = &self.base {
            hasher.update(base.0.as_bytes());
        }
        for (name, tensor) in self.model.parameters() {
            hasher.update(name.as_bytes());
            digest::add_fingerprint(&mut hasher, fingerprint::of(tensor, 0));
        }
        if self.master.is_some() {
            digest::add_fingerprint(&mut hasher, parts[0]);
        }
        if let Some(moments) = moments {
            hasher.update(&moments.steps.to_le_bytes());
            digest::add_fingerprint(&mut hasher, parts[1]);
            digest::add_fingerprint(&mut hasher, parts[2]);
        }
        Ok(Holding { policy: self.policy, digest: digest::finish(&hasher) })
    }
}

/// Takes part in [`State::holding`]'s exchange with empty hands, so that the peers need not wait for a rank that
/// could not load.
pub(crate) fn nothing_to_hold(device: Device, collective: &mut dyn Collective) {
    // Whatever becomes of it: this rank has an error of its own to report.
    let _ = exchange(&[0; FACTS], device, collective);
}
