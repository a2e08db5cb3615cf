//! Small facts that ranks tell each other.

use medevo_collective::Collective;
use tch::{Device, Tensor};

use crate::error::EngineError;

/// Every rank's numbers, by rank; each brings as many.
pub(crate) fn exchange(
    mine: &[i64],
    device: Device,
    collective: &mut dyn Collective,
) -> Result<Vec<Vec<i64>>, EngineError> {
    let all = collective.all_gather(&Tensor::from_slice(mine).to_device(device))?;
    let rows: Result<Vec<_>, _> = all.iter().map(Vec::<i64>::try_from).collect();
    Ok(rows.map_err(anyhow::Error::from)?)
}
