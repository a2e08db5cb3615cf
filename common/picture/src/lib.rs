//! Picture files: [`open`] and [`decode`] give upright pixels, or say in a [`PictureError`] why there are none.
//!
//! The check of a data set and the engine's image processor both decode here and so agree on what can be used.

mod complete;
mod jpeg;
mod open;
mod resize;

pub use open::{PictureError, decode, open, size};
pub use resize::smart_resize;
