//! The worker's binary: parse, set up logging, do one command.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use medevo_worker::{
    cli::{Cli, Command},
    device, documents, generate, init, join, logprobs, merge, probe, slurm,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,tarpc=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // No colour codes in log files.
        .with_ansi(std::io::stderr().is_terminal())
        // A line that cannot be written must not end a worker.
        .log_internal_errors(false)
        .init();
    let placed = match &mut cli.command {
        Command::Join(args) if args.slurm => slurm::take_place(args),
        _ => Ok(()),
    };
    // Before anything asks libtorch for a GPU.
    let ready = placed.and_then(|()| device::prepare(cli.command.device()));
    let outcome = ready.and_then(|()| match cli.command {
        Command::Join(args) => join::join(args),
        Command::Generate(args) => generate::generate(&args),
        Command::Logprobs(args) => logprobs::logprobs(&args),
        Command::Init(args) => init::init(&args),
        Command::Merge(args) => merge::merge(&args),
        Command::Probe(args) => probe::probe(&args),
        Command::Completions(args) => Ok(documents::completions(&args)),
        Command::Man(args) => documents::man(&args),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("medevo-worker: {error:#}");
        ExitCode::FAILURE
    })
}
