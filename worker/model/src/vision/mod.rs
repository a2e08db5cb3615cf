//! The vision tower.

mod family;
mod layout;
mod tower;

pub(crate) use tower::VisionTower;
