//! The command line of a run.

mod arguments;
mod certs;
mod cluster;
mod data;
mod doctor;
mod evaluate;
mod fetch;
mod generate;
mod logs;
mod operator;
mod plan;
mod show;
mod stop;
mod watch;

use anyhow::Context;
use clap::Parser;

use arguments::{CertsCommand, Command, DataCommand};

use crate::{
    launch::{self, Exit, Serve, remote::Target},
    logging,
    preflight::Refused,
    say::{complain, say},
};

pub use arguments::Cli;

/// Runs the command line of this process; prints what there is to say.
#[must_use]
pub fn main() -> Exit {
    logging::start();
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
        Command::Launch(run) => attended(launch::launch(run)),
        Command::Serve { target, set, run_dir, token_file, advertise, standby } => {
            let serve = Serve { target, set, run_dir, token_file, advertise, standby };
            attended(launch::serve(serve))
        }
        Command::Plan(arguments) => plan::plan(arguments),
        Command::Resume { run_dir, workers, token_file } => {
            attended(launch::resume(&run_dir, workers, token_file.as_deref()))
        }
        Command::Evaluate(arguments) => attended(evaluate::evaluate(arguments)),
        Command::Fetch { url, dir, endpoint } => attended(fetch::fetch(url, dir, endpoint)),
        Command::Status(asked) => match (Target::of(&asked.run_dir), asked.watch) {
            (Some(target), _) => cluster::status(target?, &asked),
            (None, Some(seconds)) => watch::watch(&asked.run_dir, asked.json, seconds),
            (None, None) => show::status(&asked.run_dir, asked.json),
        },
        Command::Drain(asked) => match Target::of(&asked.run_dir) {
            Some(target) => cluster::drain(target?, &asked),
            None => stop::drain(&asked),
        },
        Command::Stop(asked) => match Target::of(&asked.run_dir) {
            Some(target) => cluster::stop(target?, &asked),
            None => stop::stop(&asked),
        },
        Command::Logs(asked) => match Target::of(&asked.run_dir) {
            Some(target) => cluster::logs(target?, &asked),
            None => logs::logs(asked),
        },
        Command::Doctor(arguments) => doctor::doctor(arguments),
        Command::Report { run_dir } => show::report(&run_dir),
        Command::Compare { run_dirs } => show::compare(&run_dirs),
        Command::Data(DataCommand::Check { path }) => data::check(&path),
        Command::Data(DataCommand::MiniSlake(arguments)) => data::mini_slake(&arguments),
        Command::Certs(CertsCommand::Init { dir, name, days }) => certs::init(&dir, &name, days),
        Command::Certs(CertsCommand::Show { dir }) => certs::show(&dir),
        Command::Docs(operator::Docs::Config) => {
            say(medevo_common::config::reference_markdown().trim_end());
            Ok(Exit::Done)
        }
        Command::Docs(operator::Docs::Man { dir }) => generate::man(&dir),
        Command::Completions(operator::Completions { shell }) => generate::completions(shell),
    }
}

/// Runs a future on a runtime of its own, with the main thread as the one that starts children.
fn attended<T>(run: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let done = runtime.block_on(run);
    // Work that was given up on (a deadline passed) must not hold the process.
    runtime.shutdown_background();
    done
}
