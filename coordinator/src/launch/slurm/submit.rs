//! From a login node: the batch script into the run directory, and to Slurm.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::Context;

use super::{
    follow::follow,
    prepare::{as_it_is, prepare, read},
    queue::remember,
    script::Script,
    seeds,
    tools::{PATIENCE, Silent, ask},
};
use crate::{
    launch::{Exit, Run},
    preflight::Refused,
    run_dir::{RunDir, write_atomic},
    say::say,
};

/// The batch script's name in the run directory.
const SCRIPT: &str = "slurm.sh";

/// Submits a run, or one for each seed, or a run that was begun before.
pub(super) async fn submit(run: Run) -> anyhow::Result<Exit> {
    let program = std::env::current_exe().context("asking where this program lies")?;
    if run.file.is_dir() {
        return again(&run, &program).await;
    }
    let list = run.seeds.as_deref().map(seeds::parse).transpose().map_err(Refused::new)?;
    let mut prepared = Vec::new();
    for seed in list.map_or_else(|| vec![None], |list| list.into_iter().map(Some).collect()) {
        let (config, place) = read(&run, seed)?;
        prepared.push(prepare(&run, config, place, false).await?);
    }
    let first = prepared.first().context("there is at least one run")?;
    // What the runs of an array have in common.
    let (config, place) = match &run.seeds {
        None => (first.config.clone().into_inner(), first.place.clone()),
        Some(_) => read(&run, None)?,
    };
    let script = Script {
        config: &first.config,
        name: &config.run.name,
        program: &program,
        place: &place,
        seeds: run.seeds.as_deref(),
    };
    let text = script.text();
    if run.dry_run {
        say(&first.plan);
        say(format!("\n{}", text.trim_end()));
        return Ok(Exit::Done);
    }
    let mut run_dirs = Vec::new();
    for one in &prepared {
        match one.make() {
            Ok(run_dir) => run_dirs.push(run_dir),
            Err(error) => {
                withdraw(&run_dirs);
                return Err(error);
            }
        }
    }
    match hand_in(&text, &run_dirs).await {
        Ok(job) => watch(&run, &job, &run_dirs).await,
        // Slurm may have the job all the same, and start it.
        Err(error) if error.is::<Silent>() => Err(error),
        Err(error) => {
            // They were made a moment ago, and nothing has run in them.
            withdraw(&run_dirs);
            Err(error)
        }
    }
}

/// Goes on with a run that was begun before, in a new job.
async fn again(run: &Run, program: &Path) -> anyhow::Result<Exit> {
    as_it_is(run)?;
    let run_dir = RunDir::open(&run.file).map_err(Refused::because)?;
    let config = run_dir.config().map_err(Refused::because)?;
    let config = config.validate().map_err(Refused::because)?;
    let (name, place) = (&config.run.name, run_dir.path());
    let text = Script { config: &config, name, program, place, seeds: None }.text();
    if run.dry_run {
        say(text.trim_end());
        return Ok(Exit::Done);
    }
    run_dir.make_folders()?;
    let run_dirs = [run_dir];
    let job = hand_in(&text, &run_dirs).await?;
    watch(run, &job, &run_dirs).await
}

/// Writes the script into the run directories and submits it. Returns the job's id.
async fn hand_in(text: &str, run_dirs: &[RunDir]) -> anyhow::Result<String> {
    for run_dir in run_dirs {
        let file = run_dir.path().join(SCRIPT);
        write_atomic(&file, text.as_bytes())?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("{} cannot be made executable", file.display()))?;
    }
    let first = run_dirs.first().context("there is at least one run")?;
    let file = first.path().join(SCRIPT);
    let said = ask("sbatch", &["--parsable", &file.to_string_lossy()], PATIENCE).await;
    let said = said.map_err(|error| {
        if error.is::<Silent>() {
            return error.context(format!(
                "whether Slurm has the job is not clear; see `squeue --me`, and if it is not there, go on with \
                 `medevo-coord launch {} --on slurm`",
                first.path().display()
            ));
        }
        Refused::new(format!(
            "Slurm did not take the job: {error:#}; see cluster.slurm in the run file"
        ))
        .into()
    })?;
    // "17", or "17;cluster" where there are several.
    let job = said.trim().split(';').next().unwrap_or_default().to_owned();
    anyhow::ensure!(!job.is_empty(), "sbatch told no job id, but {said:?}");
    Ok(job)
}

fn withdraw(run_dirs: &[RunDir]) {
    for run_dir in run_dirs {
        if let Err(error) = fs::remove_dir_all(run_dir.path()) {
            tracing::warn!("{} could not be removed: {error}", run_dir.path().display());
        }
    }
}

/// Says what there is to see, and stays if that was asked for.
async fn watch(run: &Run, job: &str, run_dirs: &[RunDir]) -> anyhow::Result<Exit> {
    say(format!("submitted job {job}"));
    let seeds = run.seeds.as_deref().map(seeds::parse).transpose().map_err(Refused::new)?;
    for (place, run_dir) in run_dirs.iter().enumerate() {
        let seed = seeds.as_ref().and_then(|seeds| seeds.get(place));
        remember(run_dir, &seed.map_or_else(|| job.to_owned(), |seed| format!("{job}_{seed}")));
        let place = run_dir.path().display();
        say(format!("  medevo-coord status {place}"));
        if run_dirs.len() == 1 {
            say(format!("  tail -F {place}/logs/slurm-{job}.out"));
        }
    }
    say(format!(
        "  squeue -j {job} --start\n  \
         scancel --batch --signal=INT {job}    # stop after the current step, with a checkpoint\n  \
         scancel {job}                         # stop at once; what is behind the last checkpoint is lost"
    ));
    if run.wait { follow(job, run_dirs).await } else { Ok(Exit::Done) }
}
