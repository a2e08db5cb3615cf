//! CPU collectives: the Gloo that libtorch carries inside (`c10d::ProcessGroupGloo`).

mod backend;
mod ffi;

pub use backend::Gloo;
