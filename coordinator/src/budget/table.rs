//! A verdict as a table for people.

use std::fmt;

use medevo_memory::Need;

use super::{Verdict, gibibytes};

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let billions = self.parameters as f64 / 1e9;
        writeln!(
            f,
            "memory of each of {} workers, model of {billions:.2} billion numbers",
            self.workers
        )?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, bytes: u64| {
            writeln!(f, "  {name:<32}{:>10}", gibibytes(bytes))
        };
        let each = |f: &mut fmt::Formatter<'_>, needs: &[Need]| {
            needs.iter().try_for_each(|need| line(f, &format!("  {}", need.name), need.bytes))
        };
        let held = self.estimate.held.iter().map(|need| need.bytes).sum();
        line(f, "held all the time", held)?;
        each(f, &self.estimate.held)?;
        for phase in &self.estimate.phases {
            line(f, &format!("and during {}", phase.name), phase.bytes())?;
            each(f, &phase.needs)?;
        }
        line(f, "at most at a time", self.peak)?;
        if !self.steps.is_empty() {
            writeln!(
                f,
                "tokens of a step, all workers (estimated from image sizes and text lengths)"
            )?;
        }
        for step in &self.steps {
            write!(
                f,
                "  {}: prompts of {:.0} (at most {}), ",
                step.stage, step.prompt, step.longest_prompt
            )?;
            if step.rollout > 0 {
                write!(f, "rollout {} + up to {}, ", step.prefill, step.rollout)?;
            }
            writeln!(f, "update up to {}", step.update)?;
        }
        write!(f, "{}", self.sentences())
    }
}
