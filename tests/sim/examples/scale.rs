//! What the coordinator's core costs a step with many workers: `make sim-scale`.

use medevo_sim::scale::{Size, measure};

fn main() {
    println!(
        "core CPU a step, milliseconds, and what falls into a step of 30 s; groups of 8 candidates of 64 tokens"
    );
    println!(
        "| workers | groups | core ms | of it heartbeats, ticks, status | longest input, ms | messages | inputs | events | resident MiB, first and last step |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (workers, groups) in [(10, 100), (100, 1_000), (1_000, 4_000), (1_000, 10_000)] {
        let steps = 4;
        let size = Size {
            workers,
            groups,
            candidates: 8,
            tokens: 64,
            prompts_per_unit: 4,
            steps,
            step_s: 30,
        };
        let cost = measure(size);
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3 / steps as f64;
        let inputs: u64 = cost.inputs.values().map(|(n, _)| n).sum();
        let part = |kind| cost.inputs.get(kind).map_or(0.0, |(_, time)| ms(*time));
        let idle = part("heartbeat") + part("tick") + ms(cost.views.1);
        let mib = |bytes: Option<&u64>| bytes.map_or(0, |bytes| bytes >> 20);
        println!(
            "| {workers} | {groups} | {:.1} | {idle:.1} | {:.1} ({}) | {} | {} | {} | {}, {} |",
            ms(cost.total()),
            cost.longest.0.as_secs_f64() * 1e3,
            cost.longest.1,
            cost.messages / steps,
            inputs / steps,
            cost.events / steps,
            mib(cost.resident.first()),
            mib(cost.resident.last()),
        );
        for (kind, (number, time)) in &cost.inputs {
            eprintln!("  {kind:10} {:>8} a step {:>9.2} ms", number / steps, ms(*time));
        }
        eprintln!(
            "  {:10} {:>8} a step {:>9.2} ms",
            "status",
            cost.views.0 / steps,
            ms(cost.views.1)
        );
    }
}
