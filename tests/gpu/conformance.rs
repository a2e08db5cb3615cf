//! NCCL keeps what every backend promises: alone, where the operations still go through NCCL, and over all GPUs.

use std::time::Duration;

use medevo_collective::Collective;
use medevo_gpu_tests::{form, gpus, there_are};
use tch::Device;

use crate::claims::{self, Ranks};

fn nccl(world: usize) -> Option<Ranks> {
    if !there_are(world) {
        return None;
    }
    let ranks = form(world, Duration::from_secs(60)).unwrap();
    let on = |(rank, group)| (Box::new(group) as Box<dyn Collective>, Device::Cuda(rank));
    Some(ranks.into_iter().enumerate().map(on).collect())
}

crate::conformance!(
    on_one_gpu: nccl(1),
    on_all_gpus: nccl(gpus().max(2)),
);
