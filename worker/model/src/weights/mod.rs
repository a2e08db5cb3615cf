//! The weights: which there are, reading, drawing and writing them.

mod draw;
mod index;
mod load;
mod names;
mod save;
mod shard;

use tch::Tensor;

pub(crate) use draw::draw;
pub(crate) use load::load;
pub(crate) use names::{Scheme, TIED_HEAD, expected};
pub(crate) use save::save;

/// Every tensor of the model by its canonical name, sorted by name.
#[derive(Debug)]
pub(crate) struct Tensors(pub(crate) Vec<(String, Tensor)>);

impl Tensors {
    /// The tensor `name`, sharing storage and gradient with the list's.
    pub(crate) fn get(&self, name: &str) -> Tensor {
        let at = self
            .0
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .expect("the list holds every tensor that names::expected names");
        self.0[at].1.shallow_clone()
    }
}
