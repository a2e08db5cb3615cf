//! Weights and moments over the collective, from ranks that have them to those that do not. With an adapter
//! only the adapter travels: everyone has read the base, and its digests are compared.

use medevo_collective::Collective;
use medevo_types::{Digest, PolicyVersion, messages::Holding};
use tch::{Device, Kind, Tensor};

use crate::{adamw::Moments, error::EngineError, exchange::exchange, shard::Shard, state::State};

/// What a rank brings into a new roster, as far as shards are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Brings {
    /// What is held, shortened; equal ones are parts of one whole. None: nothing.
    held: Option<i64>,
    index: usize,
    count: usize,
    /// Whether there are moments or masters.
    stepped: bool,
}

impl Brings {
    pub fn of(state: Option<&State>, holding: Option<&Holding>) -> Self {
        let (Some(state), Some(holding)) = (state, holding) else {
            return Self { held: None, index: 0, count: 1, stepped: false };
        };
        let held = first_bytes(&holding.digest);
        let Shard { index, count, .. } = state.shard;
        Self { held, index, count, stepped: state.stepped() }
    }

    /// Whether two ranks bring parts of the same whole.
    pub fn same(&self, other: &Self) -> bool {
        self.held == other.held && self.count == other.count
    }

    /// What every rank brings, by rank.
    pub fn exchange(
        self,
        device: Device,
        collective: &mut dyn Collective,
    ) -> Result<Vec<Self>, EngineError> {
        let facts = [
            self.held.unwrap_or(-1),
            self.index as i64,
            self.count as i64,
            i64::from(self.stepped),
        ];
        let all = exchange(&facts, device, collective)?;
        let read = |row: &Vec<i64>| Self {
            held: (row[0] >= 0).then_some(row[0]),
            index: row[1] as usize,
            count: row[2] as usize,
            stepped: row[3] == 1,
        };
        Ok(all.iter().map(read).collect())
    }

    /// The ranks that together hold everything of which `rank` holds a part, one for each part; none when a part
    /// is gone, or `rank` holds nothing.
    pub fn holders(all: &[Self], rank: usize) -> Option<Vec<usize>> {
        let of = all[rank];
        let held = of.held?;
        let part = |index: usize| {
            let has = |other: &Self| {
                other.held == Some(held) && other.count == of.count && other.index == index
            };
            all.iter().position(has)
        };
        // Weights that no step has changed have no moments that could be missed.
        if of.stepped { (0..of.count).map(part).collect() } else { Some(vec![rank]) }
    }
}

/// Everyone calls this; afterwards all hold what `root` holds, and `shard` of its moments and masters, which
/// come from `holders`, one for each part that they are in now. Everything is received before anything is
/// changed, so a broken transfer leaves each rank with what it had.
pub(crate) fn broadcast(
    state: &mut State,
    root: usize,
    policy: PolicyVersion,
    holders: &[usize],
    shard: Shard,
    collective: &mut dyn Collective,
) -> Result<(), EngineError> {
    let _no_grad = tch::no_grad_guard();
    let device = state.device();
    let sends = collective.rank() == root;
    let mut weights = state.all_weights();
    let base = state.base.as_ref().and_then(first_bytes).unwrap_or_default();
    let mine = [state.policy.0 as i64, weights.numel() as i64, state.length, base];
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
    } else if header[3] != mine[3] {
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
    collective.broadcast(&mut weights, root)?;
    let (moments, master) = divide(state, root, holders, shard, collective)?;
    // Nobody moves on before everyone has everything.
    collective.barrier()?;
    if !sends {
        state.set_weights(&weights);
        state.policy = policy;
    }
    (state.shard, state.moments, state.master) = (shard, moments, master);
    Ok(())
}

/// Divides moments and masters anew: every rank gets `shard` of what `holders` have in as many parts as there
/// are of them. `root` is one of them.
pub(crate) fn divide(
    state: &State,
    root: usize,
    holders: &[usize],
    shard: Shard,
    collective: &mut dyn Collective,
) -> Result<(Option<Moments>, Option<Tensor>), EngineError> {
    let _no_grad = tch::no_grad_guard();
    let device = state.device();
    let steps = state.moments.as_ref().map_or(-1, |moments| moments.steps as i64);
    let mut header = Tensor::from_slice(&[steps, i64::from(state.master.is_some())]);
    header = header.to_device(device);
    collective.broadcast(&mut header, root)?;
    let header = Vec::<i64>::try_from(&header).map_err(anyhow::Error::from)?;
    let mut part = |own: Option<&Tensor>| -> Result<Tensor, EngineError> {
        let wanted = shard.range();
        let options = (Kind::Float, device);
        let mut divided: Option<Tensor> = None;
        for (index, holder) in holders.iter().enumerate() {
            let from = Shard { index, count: holders.len(), total: state.length };
            if from.length() == 0 {
                continue;
            }
            let mut numbers = match own {
                Some(own) if collective.rank() == *holder => own.shallow_clone(),
                _ => Tensor::zeros([from.length()], options),
            };
            collective.broadcast(&mut numbers, *holder)?;
            let (begin, end) =
                (wanted.start.max(from.range().start), wanted.end.min(from.range().end));
            if from.is_whole() && shard.is_whole() {
                divided = Some(numbers);
            } else if begin < end {
                let own = divided.get_or_insert_with(|| Tensor::zeros([shard.length()], options));
                let theirs = numbers.narrow(0, begin - from.range().start, end - begin);
                own.narrow(0, begin - wanted.start, end - begin).copy_(&theirs);
            }
        }
        Ok(divided.unwrap_or_else(|| Tensor::zeros([shard.length()], options)))
    };
    let own = state.moments.as_ref();
    let moments = match u64::try_from(header[0]) {
        Ok(steps) => Some(Moments {
            first: part(own.map(|moments| &moments.first))?,
            second: part(own.map(|moments| &moments.second))?,
            steps,
        }),
        Err(_) => None,
    };
    let master = if header[1] == 1 { Some(part(state.master.as_ref())?) } else { None };
    Ok((moments, master))
}

/// The beginning of a digest, as a number that travels.
fn first_bytes(digest: &Digest) -> Option<i64> {
    i64::from_str_radix(digest.0.get(..15)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::Brings;

    fn brings(held: Option<i64>, index: usize, count: usize) -> Brings {
        Brings { held, index, count, stepped: true }
    }

    /// Counting a lost part as there would train on with moments that are zero.
    #[test]
    fn a_lost_part_is_missed() {
        let whole = [brings(Some(7), 1, 2), brings(None, 0, 1), brings(Some(7), 0, 2)];
        assert_eq!(Brings::holders(&whole, 0), Some(vec![2, 0]));
        assert_eq!(Brings::holders(&whole, 1), None);
        let lost = [brings(Some(7), 1, 2), brings(Some(8), 0, 2)];
        assert_eq!(Brings::holders(&lost, 0), None, "another version's part does not count");
        let fresh = Brings { stepped: false, ..brings(Some(7), 1, 2) };
        assert_eq!(Brings::holders(&[fresh], 0), Some(vec![0]), "there is nothing to miss");
    }
}
