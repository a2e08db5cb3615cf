//! Getting weights and moments into place: from a directory, from peers, and from what a new roster still holds.

use std::path::Path;

use medevo_collective::Collective;
use medevo_types::{
    PolicyVersion,
    messages::{Holding, RestoreSource},
    settings::Shard as Sharding,
};

use crate::{
    engine::{Engine, no_weights},
    error::EngineError,
    holding::nothing_to_hold,
    optimizer_file,
    peer::{self, Brings},
    shard::Shard,
    state::State,
};

impl Engine {
    /// Gets weights and moments in place. With [`RestoreSource::Peer`], and always where the optimizer's numbers are
    /// sharded, every rank takes part. A failed [`RestoreSource::Peer`] leaves each with what it held before, or
    /// with nothing.
    ///
    /// # Errors
    /// Files that cannot be read, a peer that holds another version, a collective that fails.
    pub fn restore(
        &mut self,
        source: &RestoreSource,
        policy: PolicyVersion,
        collective: &mut dyn Collective,
    ) -> Result<Holding, EngineError> {
        self.discard();
        let state = match source {
            RestoreSource::Model { dir } => self.read(dir, false, policy, collective)?,
            RestoreSource::Checkpoint { dir } => self.read(dir, true, policy, collective)?,
            RestoreSource::Peer { root } => self.receive(*root, policy, collective)?,
        };
        self.take(state, collective)
    }

    /// The state in a directory: weights, and moments where it is a checkpoint.
    fn read(
        &mut self,
        dir: &Path,
        checkpoint: bool,
        policy: PolicyVersion,
        collective: &mut dyn Collective,
    ) -> Result<State, EngineError> {
        let read = if checkpoint {
            self.resume(dir, policy, collective)
        } else {
            self.origin.start(dir, policy)
        };
        if checkpoint && read.is_err() && self.shards() && collective.world() > 1 {
            nothing_to_hold(self.device, collective);
        }
        let mut state = read?;
        state.shard = self.shard_of(state.length, collective);
        Ok(state)
    }

    fn resume(
        &mut self,
        dir: &Path,
        policy: PolicyVersion,
        collective: &dyn Collective,
    ) -> Result<State, EngineError> {
        let mut state = self.origin.resume(dir, policy)?;
        state.shard = self.shard_of(state.length, collective);
        let restored = optimizer_file::read(&state, dir)?;
        (state.moments, state.master) = (restored.moments, restored.master);
        Ok(state)
    }

    /// The state that the other ranks have.
    fn receive(
        &mut self,
        root: usize,
        policy: PolicyVersion,
        collective: &mut dyn Collective,
    ) -> Result<State, EngineError> {
        let mut holders = Some(vec![root]);
        if self.shards() {
            let brings = Brings::of(self.state.as_ref(), self.holding.as_ref());
            holders = Brings::holders(&brings.exchange(self.device, collective)?, root);
        }
        let holders = holders.ok_or_else(|| {
            let what = format!("restoring from rank {root}");
            EngineError::stale(what, "a part of its moments is gone; restore from a checkpoint")
        })?;
        let held = self.state.take();
        let was_held = held.is_some();
        let mut state = match held {
            Some(state) => state,
            // A fresh worker needs tensors of the right shapes; the starting model has them.
            None => self.origin.start(&self.setup.model, PolicyVersion(0))?,
        };
        let shard = self.shard_of(state.length, collective);
        let received = peer::broadcast(&mut state, root, policy, &holders, shard, collective);
        if let Err(error) = received {
            self.state = was_held.then_some(state);
            return Err(error);
        }
        Ok(state)
    }

    pub(crate) fn take(
        &mut self,
        state: State,
        collective: &mut dyn Collective,
    ) -> Result<Holding, EngineError> {
        self.features.clear();
        self.holding = None;
        let holding = state.holding(collective)?;
        self.state = Some(state);
        self.holding = Some(holding.clone());
        Ok(holding)
    }

    /// What this engine holds, now that it stands in a new roster. Where the optimizer's numbers are sharded, every
    /// rank takes part: if one of the parts is gone with the rank that had it, then what is left is of no use, and
    /// each holds nothing; if the parts are all there but at other ranks, they go to where they belong.
    ///
    /// # Errors
    /// A collective that fails.
    pub fn assemble(
        &mut self,
        collective: &mut dyn Collective,
    ) -> Result<Option<Holding>, EngineError> {
        if !self.shards() {
            return Ok(self.holding());
        }
        let rank = collective.rank();
        let brings = Brings::of(self.state.as_ref(), self.holding.as_ref());
        let all = brings.exchange(self.device, collective)?;
        let Some(holders) = Brings::holders(&all, rank) else {
            (self.state, self.holding) = (None, None);
            return Ok(None);
        };
        let shard = {
            let state = self.state()?;
            self.shard_of(state.length, collective)
        };
        let state = self.state.as_mut().ok_or_else(no_weights)?;
        if !state.stepped() {
            state.shard = shard;
        } else if all.iter().all(|other| other.same(&brings))
            && holders.iter().enumerate().any(|(index, holder)| index != *holder)
        {
            let (moments, master) = peer::divide(state, holders[0], &holders, shard, collective)?;
            (state.shard, state.moments, state.master) = (shard, moments, master);
        }
        // Where some rank still needs everything, it is divided when that rank gets it.
        Ok(self.holding())
    }

    /// Whether each rank steps a part of the trained numbers.
    fn shards(&self) -> bool {
        self.setup.train.shard == Sharding::Optimizer
    }

    /// This rank's part of `length` trained numbers.
    fn shard_of(&self, length: i64, collective: &dyn Collective) -> Shard {
        if self.shards() {
            Shard { index: collective.rank(), count: collective.world(), total: length }
        } else {
            Shard::whole(length)
        }
    }

    /// This rank's part in an update over `collective`.
    ///
    /// # Errors
    /// [`EngineError::Stale`] when moments are held for another part.
    pub(crate) fn take_shard(&mut self, collective: &dyn Collective) -> Result<Shard, EngineError> {
        let shard = self.shard_of(self.state()?.length, collective);
        let state = self.state.as_mut().ok_or_else(no_weights)?;
        if state.stepped() && state.shard != shard {
            let (held, count) = (state.shard.index + 1, state.shard.count);
            return Err(EngineError::stale(
                format!("an update as rank {} of {}", collective.rank(), collective.world()),
                format!("the moments held are part {held} of {count}; form or restore first"),
            ));
        }
        state.shard = shard;
        Ok(shard)
    }
}
