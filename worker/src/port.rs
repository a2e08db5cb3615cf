//! The seam between the agent and the engine: what a directive may ask of whoever holds the weights.

use medevo_collective::Collective;
use medevo_engine::EngineError;
use medevo_types::{
    PolicyVersion,
    messages::{
        ApplyWork, Ballot, CheckpointWork, EngineSetup, FileEntry, Group, Holding, RestoreSource,
        RolloutUnit, UpdateWork,
    },
};
use tch::Device;

/// The one owner of weights, moments and gradients. It lives and dies on the engine thread.
pub trait Engine {
    /// Gets weights and moments into place.
    ///
    /// # Errors
    /// The source cannot be read or does not fit, or the collective failed.
    fn restore(
        &mut self,
        source: &RestoreSource,
        policy: PolicyVersion,
        collective: &mut dyn Collective,
    ) -> Result<Holding, EngineError>;

    /// Where its tensors are; the communicator that is passed in exchanges tensors there.
    fn device(&self) -> Device {
        Device::Cpu
    }

    /// What is in memory, once this rank stands in a new roster.
    ///
    /// # Errors
    /// The collective failed.
    fn assemble(&mut self, collective: &mut dyn Collective)
    -> Result<Option<Holding>, EngineError>;

    /// Draws a group for each prompt.
    ///
    /// # Errors
    /// Other weights are held, or a prompt cannot be answered.
    fn rollout(&mut self, unit: &RolloutUnit) -> Result<Vec<Group>, EngineError>;

    /// Computes and reduces a gradient and keeps it; the weights stay as they are.
    ///
    /// # Errors
    /// The work does not fit what is held, or the collective failed.
    fn update(
        &mut self,
        work: &UpdateWork,
        collective: &mut dyn Collective,
    ) -> Result<Ballot, EngineError>;

    /// Steps the optimizer with the kept gradient.
    ///
    /// # Errors
    /// The kept gradient is not the one that was voted for (INV-2), or the collective failed.
    fn apply(
        &mut self,
        work: &ApplyWork,
        collective: &mut dyn Collective,
    ) -> Result<Holding, EngineError>;

    /// Forgets the kept gradient.
    fn discard(&mut self);

    /// Writes this rank's share of a checkpoint's files.
    ///
    /// # Errors
    /// The directory cannot be written.
    fn save(&mut self, work: &CheckpointWork) -> Result<Vec<FileEntry>, EngineError>;
}

/// Makes an engine; called on the engine thread, once for each setup.
pub type Build = Box<dyn FnMut(&EngineSetup) -> anyhow::Result<Box<dyn Engine>> + Send>;

/// Builds the real engine on `device`.
#[must_use]
pub fn on_device(device: Device) -> Build {
    Box::new(move |setup| Ok(Box::new(medevo_engine::Engine::new(setup, device)?)))
}

impl Engine for medevo_engine::Engine {
    fn device(&self) -> Device {
        Self::device(self)
    }

    fn restore(
        &mut self,
        source: &RestoreSource,
        policy: PolicyVersion,
        collective: &mut dyn Collective,
    ) -> Result<Holding, EngineError> {
        Self::restore(self, source, policy, collective)
    }

    fn assemble(
        &mut self,
        collective: &mut dyn Collective,
    ) -> Result<Option<Holding>, EngineError> {
        Self::assemble(self, collective)
    }

    fn rollout(&mut self, unit: &RolloutUnit) -> Result<Vec<Group>, EngineError> {
        Self::rollout(self, unit)
    }

    fn update(
        &mut self,
        work: &UpdateWork,
        collective: &mut dyn Collective,
    ) -> Result<Ballot, EngineError> {
        Self::update(self, work, collective)
    }

    fn apply(
        &mut self,
        work: &ApplyWork,
        collective: &mut dyn Collective,
    ) -> Result<Holding, EngineError> {
        Self::apply(self, work, collective)
    }

    fn discard(&mut self) {
        Self::discard(self);
    }

    fn save(&mut self, work: &CheckpointWork) -> Result<Vec<FileEntry>, EngineError> {
        Self::save(self, work)
    }
}
