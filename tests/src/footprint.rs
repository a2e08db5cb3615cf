//! What a live process holds: memory, file handles, threads; and whether that grows from step to step.

use std::path::PathBuf;

/// One look at a process.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Committed steps of its run at that time.
    pub step: u64,
    /// Resident memory, KiB.
    pub resident_kib: f64,
    /// Open file handles.
    pub handles: usize,
    /// Threads.
    pub threads: usize,
}

impl Footprint {
    /// Looks at process `pid`; none when it is gone.
    #[must_use]
    pub fn of(pid: u32, step: u64) -> Option<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let status = std::fs::read_to_string(proc.join("status")).ok()?;
        let number = |key: &str| -> Option<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        Some(Self {
            step,
            resident_kib: number("VmRSS:")?,
            handles: std::fs::read_dir(proc.join("fd")).ok()?.count(),
            threads: number("Threads:")? as usize,
        })
    }
}

/// The lowest look of each `block` steps: what an update holds for a moment is no growth.
#[must_use]
pub fn floor(looks: &[Footprint], block: u64) -> Vec<Footprint> {
    let mut floor: Vec<Footprint> = Vec::new();
    for look in looks {
        match floor.last_mut() {
            Some(low) if low.step / block == look.step / block => {
                if look.resident_kib < low.resident_kib {
                    *low = *look;
                }
            }
            _ => floor.push(*look),
        }
    }
    floor
}

/// How much resident memory grows, KiB a step: the slope of the least-squares line through the looks.
///
/// # Panics
/// With fewer than two different steps.
#[must_use]
pub fn growth_kib_per_step(looks: &[Footprint]) -> f64 {
    let count = looks.len() as f64;
    let mean = |value: &dyn Fn(&Footprint) -> f64| looks.iter().map(value).sum::<f64>() / count;
    let (step, resident) = (mean(&|look| look.step as f64), mean(&|look| look.resident_kib));
    let spread: f64 = looks.iter().map(|look| (look.step as f64 - step).powi(2)).sum();
    assert!(spread > 0.0, "a slope needs looks at two steps");
    let together = |look: &Footprint| (look.step as f64 - step) * (look.resident_kib - resident);
    looks.iter().map(together).sum::<f64>() / spread
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when an update's passing memory counts as growth, or growth is lost with it.
    #[test]
    fn the_floor_keeps_growth_and_drops_spikes() {
        let spike = |step: u64| if step.is_multiple_of(3) { 12_000.0 } else { 0.0 };
        let resident = |step: u64| 1e5 + 25.0 * step as f64 + spike(step);
        let looks: Vec<_> = (0..400)
            .map(|step| Footprint { step, resident_kib: resident(step), handles: 0, threads: 0 })
            .collect();
        let floor = floor(&looks, 20);
        assert_eq!(floor.len(), 20);
        assert!((growth_kib_per_step(&floor) - 25.0).abs() < 0.5);
    }

    /// Fails when the slope is not that of a line, whatever lies around it.
    #[test]
    fn a_leak_is_measured_and_noise_is_not() {
        let look =
            |step: u64, resident_kib: f64| Footprint { step, resident_kib, handles: 0, threads: 0 };
        let noise = |step: u64| if step.is_multiple_of(2) { 300.0 } else { -300.0 };
        let leak: Vec<_> =
            (0..400).map(|step| look(step, 1e5 + 25.0 * step as f64 + noise(step))).collect();
        let flat: Vec<_> = (0..400).map(|step| look(step, 1e5 + noise(step))).collect();
        assert!((growth_kib_per_step(&leak) - 25.0).abs() < 0.1);
        assert!(growth_kib_per_step(&flat).abs() < 0.1);
    }
}
