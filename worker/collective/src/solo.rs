//! A rank that is alone: nothing to exchange.

use tch::Tensor;

use crate::contract::{Collective, CollectiveError, check_root};

/// The communicator of a world of one; every operation leaves the tensor as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Solo;

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn all_reduce_sum(&mut self, _t: &mut Tensor) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn broadcast(&mut self, _t: &mut Tensor, root: usize) -> Result<(), CollectiveError> {
        check_root(root, 1)
    }

    fn all_gather(&mut self, t: &Tensor) -> Result<Vec<Tensor>, CollectiveError> {
        Ok(vec![tch::no_grad(|| t.detach().copy())])
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        Ok(())
    }
}
