//! [`Collective`] over Gloo.

use std::{ffi::c_int, sync::Arc, time::Duration};

use tch::{Device, Tensor};

use super::ffi::Group;
use crate::{
    contract::{Collective, CollectiveError, check_parts, check_root},
    rendezvous::Rendezvous,
};

/// A Gloo communicator of CPU tensors over TCP.
///
/// A peer that dies is an error within milliseconds, one that stands still is an error at the
/// timeout. After any error the group is given up at once, so that the peers hear of it too; what is
/// called later fails without touching the network. Tensors need not be contiguous.
pub struct Gloo {
    rank: usize,
    world: usize,
    /// None once an operation has failed.
    group: Option<Group>,
}

impl Gloo {
    /// Forms a communicator of `world` ranks; returns when all of them are connected to each other.
    ///
    /// The ranks find each other under `prefix` in the rendezvous; a prefix must never be used twice.
    /// `address` is this host's name or IP address, at which its peers reach it; the port is chosen
    /// by the system. `timeout` bounds the forming and then every single operation.
    ///
    /// # Errors
    /// The rank is not below `world`, the address is not this host's, or not all ranks came in time.
    pub fn form(
        rendezvous: Arc<dyn Rendezvous>,
        prefix: &str,
        rank: usize,
        world: usize,
        address: &str,
        timeout: Duration,
    ) -> Result<Self, CollectiveError> {
        let fail = |message: String| CollectiveError::new("form", message);
        if rank >= world {
            return Err(fail(format!("rank {rank} is not below the world size {world}")));
        }
        let number = |n: usize| {
            c_int::try_from(n).map_err(|_| fail(format!("{n} ranks are more than Gloo can count")))
        };
        let group =
            Group::form(rendezvous, prefix, number(rank)?, number(world)?, address, timeout)
                .map_err(|message| {
                    fail(format!("rank {rank} of {world} at address {address}: {message}"))
                })?;
        Ok(Self { rank, world, group: Some(group) })
    }

    /// Runs one operation; gives the group up if it fails.
    fn operate<T>(
        &mut self,
        operation: &str,
        body: impl FnOnce(&mut Group) -> Result<T, String>,
    ) -> Result<T, CollectiveError> {
        let fail = |message: &str| {
            CollectiveError::new(operation, format!("rank {}: {message}", self.rank))
        };
        let Some(group) = &mut self.group else {
            return Err(fail("the communicator is gone after an earlier error; form a new one"));
        };
        body(group).map_err(|message| {
            let error = fail(&message);
            self.group = None;
            error
        })
    }

    /// Runs an operation that changes `t` in place, on a dense copy if `t` is a strided view.
    fn in_place(
        &mut self,
        operation: &str,
        t: &mut Tensor,
        body: impl FnOnce(&mut Group, &mut Tensor) -> Result<(), String>,
    ) -> Result<(), CollectiveError> {
        check_device(operation, t)?;
        if t.numel() == 0 {
            return Ok(());
        }
        if t.is_contiguous() {
            return self.operate(operation, |group| body(group, t));
        }
        tch::no_grad(|| {
            let mut dense = t.detach().contiguous();
            self.operate(operation, |group| body(group, &mut dense))?;
            t.copy_(&dense);
            Ok(())
        })
    }
}

impl Collective for Gloo {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn all_reduce_sum(&mut self, t: &mut Tensor) -> Result<(), CollectiveError> {
        self.in_place("all_reduce", t, Group::all_reduce_sum)
    }

    fn broadcast(&mut self, t: &mut Tensor, root: usize) -> Result<(), CollectiveError> {
        check_root(root, self.world)?;
        let root = c_int::try_from(root).expect("form refused worlds that a C int cannot count");
        self.in_place("broadcast", t, |group, t| group.broadcast(t, root))
    }

    fn all_gather(&mut self, t: &Tensor) -> Result<Vec<Tensor>, CollectiveError> {
        check_device("all_gather", t)?;
        let world =
            i64::try_from(self.world).expect("form refused worlds that a C int cannot count");
        tch::no_grad(|| {
            let mine = t.detach().contiguous();
            // [world, numel]: flat, because Gloo wants one more dimension or none, scalars included.
            let flat = mine.view([-1]);
            let mut all = Tensor::zeros([world, flat.numel() as i64], (t.kind(), t.device()));
            if flat.numel() > 0 {
                let mut target = all.view([-1]);
                self.operate("all_gather", |group| group.all_gather(&mut target, &flat))?;
            }
            let shape = mine.size();
            all = all.contiguous();
            Ok((0..world).map(|rank| all.get(rank).view(shape.as_slice())).collect())
        })
    }

    fn reduce_scatter_sum(
        &mut self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<(), CollectiveError> {
        check_device("reduce_scatter", input)?;
        check_parts("reduce_scatter", input, output, self.world)?;
        if output.numel() == 0 {
            return Ok(());
        }
        self.operate("reduce_scatter", |group| group.reduce_scatter_sum(output, input))
    }

    fn all_gather_into(
        &mut self,
        output: &mut Tensor,
        input: &Tensor,
    ) -> Result<(), CollectiveError> {
        check_device("all_gather", input)?;
        check_parts("all_gather", output, input, self.world)?;
        if input.numel() == 0 {
            return Ok(());
        }
        self.operate("all_gather", |group| group.all_gather(output, input))
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.operate("barrier", Group::barrier)
    }
}

/// A wrong device is this rank's own mistake; it is refused before the peers are left waiting.
fn check_device(operation: &str, t: &Tensor) -> Result<(), CollectiveError> {
    if t.device() == Device::Cpu {
        return Ok(());
    }
    Err(CollectiveError::new(
        operation,
        format!("Gloo exchanges CPU tensors, and this one is on {:?}", t.device()),
    ))
}
