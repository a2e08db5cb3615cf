//! What a run takes on each device, before anything is started: pure arithmetic on the model's shape ([`Shape`])
//! and on what one worker is asked ([`Job`]). [`Estimate`] is the answer, [`advice`] what to do when it is too much.
//!
//! These are estimates: the formulas count what the engine keeps, not what an allocator rounds up. A test of the
//! engine measures a few small runs and holds them against it.

pub mod activations;
pub mod advice;
pub mod estimate;
pub mod job;
pub mod shape;

pub use advice::{Advice, advice};
pub use estimate::{Estimate, Need, Phase};
pub use job::{Job, Place, Row};
pub use shape::Shape;
