//! The command line of a run.

mod arguments;
mod certs;
mod data;
mod evaluate;
mod fetch;
mod plan;
mod show;

use std::io::IsTerminal;

use anyhow::Context;
use clap::Parser;

use arguments::{CertsCommand, Command, DataCommand, DocsCommand};

use crate::{
    launch::{self, Exit, Run, Serve},
    preflight::Refused,
    say::{complain, say},
};

pub use arguments::Cli;

/// Runs the command line of this process; prints what there is to say.
#[must_use]
pub fn main() -> Exit {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,tarpc=error")),
        )
        .with_writer(std::io::stderr)
        // No colour codes in log files.
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let cli = Cli::parse();
    match carry_out(cli.command) {
        Ok(exit) => exit,
        Err(error) => {
            complain(format!("error: {error:#}"));
            if error.downcast_ref::<Refused>().is_some() { Exit::BadInput } else { Exit::Failed }
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Launch {
            file,
            on,
            set,
            workers,
            run_dir,
            token_file,
            dry_run,
            ignore_memory,
            wait,
            seeds,
        } => {
            let run = Run {
                file,
                on,
                set,
                workers,
                run_dir,
                token_file,
                dry_run,
                ignore_memory,
                wait,
                seeds,
            };
            attended(launch::launch(run))
        }
        Command::Serve { target, set, run_dir, token_file, standby, advertise } => {
            let serve = Serve { target, set, run_dir, token_file, standby, advertise };
            attended(launch::serve(serve))
        }
        Command::Plan(arguments) => plan::plan(arguments),
        Command::Resume { run_dir, workers, token_file } => {
            attended(launch::resume(&run_dir, workers, token_file.as_deref()))
        }
        Command::Evaluate(arguments) => attended(evaluate::evaluate(arguments)),
        Command::Fetch { url, dir, endpoint } => attended(fetch::fetch(url, dir, endpoint)),
        Command::Status { run_dir, json } => show::status(&run_dir, json),
        Command::Report { run_dir } => show::report(&run_dir),
        Command::Compare { run_dirs } => show::compare(&run_dirs),
        Command::Data(DataCommand::Check { path }) => data::check(&path),
        Command::Data(DataCommand::MiniSlake(arguments)) => data::mini_slake(&arguments),
        Command::Certs(CertsCommand::Init { dir, name, days }) => certs::init(&dir, &name, days),
        Command::Certs(CertsCommand::Show { dir }) => certs::show(&dir),
        Command::Docs(DocsCommand::Config) => {
            say(medevo_common::config::reference_markdown().trim_end());
            Ok(Exit::Done)
        }
    }
}

/// Runs a future on a runtime of its own, with the main thread as the one that starts children.
fn attended(run: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let exit = runtime.block_on(run);
    // Work that was given up on (a deadline passed) must not hold the process.
    runtime.shutdown_background();
    exit
}
