//! A rank that is alone: nothing to exchange.

use tch::Tensor;

use crate::contract::{Collective, CollectiveError, check_parts, check_root};

/// The communicator of a world of one: what is exchanged is what this rank has.
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

    fn reduce_scatter_sum(
        &mut self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<(), CollectiveError> {
        check_parts("reduce_scatter", input, output, 1)?;
        tch::no_grad(|| output.copy_(input));
        Ok(())
    }

    fn all_gather_into(
        &mut self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<(), CollectiveError> {
        check_parts("all_gather", output, input, 1)?;
        tch::no_grad(|| output.copy_(input));
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        Ok(())
    }
}
