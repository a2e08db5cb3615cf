//! Weights and moments over the collective, from a rank that has them to those that do not. With an adapter
//! only the adapter travels: everyone has read the base, and its digests are compared.

use medevo_collective::Collective;
use medevo_types::{Digest, PolicyVersion};
use tch::{Kind, Tensor};

use crate::{adamw::Moments, error::EngineError, state::State};

/// Everyone calls this; afterwards all hold what `root` holds. Everything is received before anything is
/// changed, so a broken transfer leaves each rank with what it had.
pub(crate) fn broadcast(
    state: &mut State,
    root: usize,
    policy: PolicyVersion,
    collective: &mut dyn Collective,
) -> Result<(), EngineError> {
    let _no_grad = tch::no_grad_guard();
    let device = state.device();
    let sends = collective.rank() == root;
    let weights = state.all_weights();
    let steps = state.moments.as_ref().map_or(-1, |moments| moments.steps as i64);
    let mine = [
        state.policy.0 as i64,
        weights.numel() as i64,
        state.length,
        steps,
        i64::from(state.master.is_some()),
        first_bytes(state.base.as_ref()),
    ];
    let mut header = Tensor::from_slice(&mine).to_device(device);
    collective.broadcast(&mut header, root)?;
    let header = Vec::<i64>::try_from(&header).map_err(anyhow::Error::from)?;
    let problem = if header[0] != policy.0 as i64 {
        Some(format!("it holds version {} and version {policy} is wanted", header[0]))
    } else if header[1..3] != mine[1..3] {
        Some(format!(
            "it has {} weights ({} trained), this worker's model has {} ({})",
            header[1], header[2], mine[1], mine[2]
        ))
    } else if header[5] != mine[5] {
        Some(
            "its adapter lies beside another base model; model.path has to hold the same weights on every \
             machine"
                .to_owned(),
        )
    } else {
        None
    };
    if let Some(why) = problem {
        return Err(EngineError::stale(format!("restoring from rank {root}"), why));
    }

    let mut weights = weights;
    collective.broadcast(&mut weights, root)?;
    let empty = || Tensor::zeros([state.length], (Kind::Float, device));
    let mut moments = None;
    if header[3] >= 0 {
        let (mut first, mut second) = match &state.moments {
            Some(own) if sends => (own.first.shallow_clone(), own.second.shallow_clone()),
            _ => (empty(), empty()),
        };
        collective.broadcast(&mut first, root)?;
        collective.broadcast(&mut second, root)?;
        moments = Some(Moments { first, second, steps: header[3] as u64 });
    }
    let mut master = None;
    if header[4] == 1 {
        let mut whole = match &state.master {
            Some(own) if sends => own.shallow_clone(),
            _ => empty(),
        };
        collective.broadcast(&mut whole, root)?;
        master = Some(whole);
    }
    // Nobody moves on before everyone has everything.
    collective.barrier()?;

    if !sends {
        state.set_weights(&weights);
        state.moments = moments;
        state.master = master;
        state.policy = policy;
    }
    Ok(())
}

/// The beginning of a base's digest, as a number for the header; 0 without one.
fn first_bytes(base: Option<&Digest>) -> i64 {
    let beginning = base.and_then(|digest| digest.0.get(..15));
    beginning.map_or(0, |hex| i64::from_str_radix(hex, 16).unwrap_or_default())
}
