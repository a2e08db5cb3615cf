//! The weights: which there are, reading, drawing and writing them.

mod draw;
mod index;
mod load;
mod names;
mod save;
mod shard;

use tch::Tensor;

pub(crate) use draw::draw;
pub(crate) use load::{load, stored_kind};
pub(crate) use names::{Scheme, TIED_HEAD, expected};
pub(crate) use save::{save, write_tensors};

/// Every tensor of the model by its canonical name, sorted by name.
#[derive(Debug)]
pub(crate) struct Tensors(pub(crate) Vec<(String, Tensor)>);

impl Tensors {
    /// The same tensors, sharing storage and gradients.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect())
    }

    /// The tensor `name`, sharing storage and gradient with the list's.
    pub(crate) fn get(&self, name: &str) -> Tensor {
        let at = self
            .0
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .expect("the list holds every tensor that names::expected names");
        self.0[at].1.shallow_clone()
    }
}
