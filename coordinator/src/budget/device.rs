//! How much memory a worker's device has.

use std::fs;

use medevo_common::config::{RunConfig, WorkerDevice};
use medevo_memory::Place;

/// Where a worker computes, and with how much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// A GPU of its own, or its share of this machine.
    pub place: Place,
    /// Bytes.
    pub memory: u64,
}

impl Device {
    /// The device of a run's workers: a GPU of the size that was typed or stands in the run file, else an even share
    /// of this machine's memory for each of its `local` workers. None where the workers are elsewhere or compute on
    /// GPUs of unknown size, or where the machine does not say what it has.
    #[must_use]
    pub fn of(config: &RunConfig, typed: Option<u64>, local: usize) -> Option<Self> {
        let written = config.cluster.device_memory_gib;
        let gpu = typed.or((written > 0.0).then_some((written * GIB) as u64));
        match gpu {
            Some(memory) => Some(Self { place: Place::Gpu, memory }),
            None if local == 0 || config.cluster.device == WorkerDevice::Cuda => None,
            None => machine().map(|all| Self { place: Place::Cpu, memory: all / local as u64 }),
        }
    }
}

/// Bytes in a GiB.
const GIB: f64 = (1u64 << 30) as f64;

/// This machine's memory, or what this process's group may take of it, bytes.
fn machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|limit| limit.trim().parse().ok());
    Some((kilobytes * 1024).min(limit.unwrap_or(u64::MAX)))
}

/// Bytes as people read them: "12.3 GiB", and small ones in MiB.
#[must_use]
pub fn gibibytes(bytes: u64) -> String {
    let gib = bytes as f64 / GIB;
    if gib < 0.1 { format!("{:.0} MiB", gib * 1024.0) } else { format!("{gib:.1} GiB") }
}

/// Reads "80GiB", "80 GB", "512MiB" or a plain number of GiB.
///
/// # Errors
/// A sentence with what is possible.
pub fn parse(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..split].trim(), text[split..].trim());
    let factor = match unit {
        "" | "GiB" => GIB,
        "GB" => 1e9,
        "MiB" => GIB / 1024.0,
        _ => return Err(format!("{unit:?} is no unit of memory; write for example 80GiB")),
    };
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok((number * factor) as u64),
        _ => Err(format!("{text:?} is no size of memory; write for example 80GiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::{gibibytes, parse};

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse("80GiB"), Ok(80 << 30));
        assert_eq!(parse("0.5"), Ok(1 << 29));
        assert_eq!(parse("24 GB"), Ok(24_000_000_000));
        assert_eq!(parse("512MiB"), Ok(512 << 20));
        for wrong in ["", "GiB", "-1GiB", "8 apples", "nan"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(gibibytes(80 << 30), "80.0 GiB");
        assert_eq!(gibibytes(50 << 20), "50 MiB");
    }
}
