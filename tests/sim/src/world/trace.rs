//! What happened, one line each, if anybody wants to read it.

use medevo_core::Millis;

/// The lines of one simulation.
#[derive(Debug)]
pub(super) struct Trace {
    on: bool,
    lines: Vec<String>,
}

impl Trace {
    pub fn new(on: bool) -> Self {
        Self { on, lines: Vec::new() }
    }

    /// Writes a line, which is only made when it is wanted.
    pub fn note(&mut self, now: Millis, line: impl FnOnce() -> String) {
        if self.on {
            let line = format!("{now:>7} {}", line());
            // Printed at once: a panic comes right behind the line that explains it.
            if std::env::var_os("MEDEVO_SIM_SEED").is_some() {
                println!("{line}");
            }
            self.lines.push(line);
        }
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
