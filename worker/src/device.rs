//! The device that a worker computes on: `--device cpu`, `cuda` or `cuda:N`.

use anyhow::{bail, ensure};
use medevo_collective::load_libtorch_cuda;
use tch::{Cuda, Device};

/// Reads a device from the command line.
///
/// # Errors
/// Says what is possible.
pub(crate) fn parse(text: &str) -> Result<Device, String> {
    let number = match text {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
    };
    let way_out = "use --device cpu, --device cuda, or --device cuda:1 for the second GPU";
    number.map(Device::Cuda).ok_or_else(|| format!("there is no device {text}; {way_out}"))
}

/// As on the command line.
#[must_use]
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Gets a device ready; the first thing that a process does with libtorch.
///
/// # Errors
/// There is no such GPU, and why libtorch sees none.
pub fn prepare(device: Device) -> anyhow::Result<()> {
    let Device::Cuda(number) = device else { return Ok(()) };
    let loaded = load_libtorch_cuda();
    if let Err(why) = &loaded {
        bail!(
            "--device {}: libtorch sees no GPU: {why}; set this machine up with `ops/setup --gpu`, or use --device \
             cpu",
            name(device)
        );
    }
    ensure!(
        Cuda::is_available(),
        "--device {}: libtorch sees no GPU: is NVIDIA's driver installed, and does CUDA_VISIBLE_DEVICES hide \
         it? Or use --device cpu",
        name(device)
    );
    let count = Cuda::device_count();
    ensure!(
        i64::try_from(number).is_ok_and(|number| number < count),
        "--device {}: libtorch sees {count} GPU(s), cuda:0 to cuda:{}",
        name(device),
        count - 1
    );
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_named_alike() {
        for (text, device) in
            [("cpu", Device::Cpu), ("cuda", Device::Cuda(0)), ("cuda:3", Device::Cuda(3))]
        {
            assert_eq!(parse(text), Ok(device));
        }
        assert_eq!(name(Device::Cuda(0)), "cuda:0");
        assert_eq!(parse(&name(Device::Cuda(2))), Ok(Device::Cuda(2)));
        for wrong in ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda1", ""] {
            assert!(parse(wrong).unwrap_err().contains("--device cpu"), "{wrong}");
        }
    }

    /// Training on the CPU because the GPU was not found would look like a slow run, for days.
    #[test]
    fn a_gpu_that_is_not_there_is_refused_with_the_way_out() {
        let error = prepare(Device::Cuda(4096)).unwrap_err().to_string();
        assert!(error.starts_with("--device cuda:4096: libtorch sees "), "{error}");
        prepare(Device::Cpu).unwrap();
    }
}
