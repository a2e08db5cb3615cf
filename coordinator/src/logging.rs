//! The coordinator's own log: warnings to standard error, and more into the run directory once there is one.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    path::Path,
    sync::OnceLock,
};

use tracing_subscriber::{
    EnvFilter, Layer, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// The run's log; not there before a run is led.
static LOG: OnceLock<File> = OnceLock::new();

/// Starts logging.
pub(crate) fn start() {
    let filter =
        |usual: &str| EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let shown = fmt::layer()
        .with_writer(io::stderr)
        // No colour codes in log files.
        .with_ansi(io::stderr().is_terminal())
        // Else a line that cannot be written (a terminal that was closed) is complained of where it cannot be
        // written either, which panics.
        .log_internal_errors(false)
        .with_filter(filter("warn,tarpc=error"));
    let kept = fmt::layer()
        .with_writer(|| Kept)
        .with_ansi(false)
        .log_internal_errors(false)
        .with_filter(filter("info,tarpc=error"));
    tracing_subscriber::registry().with(shown).with(kept).init();
}

/// From now on what is logged goes into `file` too, after what is there. A run does not depend on it.
pub(crate) fn also_into(file: &Path) {
    match OpenOptions::new().create(true).append(true).open(file) {
        Ok(file) => drop(LOG.set(file)),
        Err(error) => tracing::warn!("{} cannot be written: {error}", file.display()),
    }
}

/// Writes into the run's log, and drops what comes before there is one.
struct Kept;

impl Write for Kept {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LOG.get().map_or(Ok(line.len()), |mut file| file.write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
