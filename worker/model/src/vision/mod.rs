//! The vision tower.

mod layout;
mod tower;

pub(crate) use tower::VisionTower;
