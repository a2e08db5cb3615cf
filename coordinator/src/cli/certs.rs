//! `certs init` and `certs show`.

use std::path::Path;

use medevo_rpc::{CA_FILE, COORDINATOR_FILES, Certificate, FEW_DAYS, WORKER_FILES};

use crate::{
    certificates::{self, CA_KEY_FILE},
    launch::Exit,
    preflight::Refused,
    say::say,
};

/// Makes the certificates, and says what they are for.
pub(super) fn init(directory: &Path, names: &[String], days: u32) -> anyhow::Result<Exit> {
    certificates::make(directory, names, days).map_err(Refused::because)?;
    let place = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let ([coordinator, coordinator_key], [worker, worker_key]) = (COORDINATOR_FILES, WORKER_FILES);
    say(format!(
        "Made in {shown}, good for {days} days:\n  \
         {CA_FILE}            who vouches for both sides: for the coordinator and every worker\n  \
         {coordinator}, .key   for the coordinator's host only ({coordinator_key} is secret)\n  \
         {worker}, .key        for every worker's host ({worker_key} is secret)\n  \
         {CA_KEY_FILE}            secret, and only needed to make further certificates: nothing of medevo reads \
         it, so keep it off the cluster, or delete it\n\n\
         The coordinator:      [cluster] certificates = \"{shown}\"\n\
         Workers elsewhere:    medevo-worker join --certificates DIR, with {CA_FILE}, {worker} and {worker_key} \
         in DIR\n\
         The join token is needed as before. Gradients and weights do not go this way: the collectives are \
         not encrypted and belong on a network of the cluster's own.",
        shown = place.display(),
    ));
    Ok(Exit::Done)
}

/// Prints names and days left; what has expired is bad input.
pub(super) fn show(directory: &Path) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    let mut found = 0;
    for file in [CA_FILE, COORDINATOR_FILES[0], WORKER_FILES[0]] {
        let path = directory.join(file);
        // A worker's host has no certificate of the coordinator, and the other way round.
        if !path.exists() {
            continue;
        }
        found += 1;
        let certificate = Certificate::read(&path).map_err(Refused::because)?;
        let days = certificate.days_left();
        let left = match days {
            ..0 => {
                exit = Exit::BadInput;
                format!("EXPIRED {} days ago", -days)
            }
            _ if days < FEW_DAYS => format!("{days} days left: make new ones"),
            _ => format!("{days} days left"),
        };
        let names = match certificate.holds_for.as_slice() {
            [] => String::new(),
            names => format!("  for {}", names.join(", ")),
        };
        let (name, issuer) = (&certificate.name, &certificate.issuer);
        say(format!("{file:<16} {left:<20} {name}, signed by {issuer}{names}"));
    }
    if found == 0 {
        return Err(Refused::new(format!(
            "there are no certificates in {}; `medevo-coord certs init` makes some",
            directory.display()
        ))
        .into());
    }
    Ok(exit)
}
