//! Where the coordinator listens, and at which address workers find each other.

use std::{net::IpAddr, time::Duration};

use medevo_common::config::ValidConfig;
use tokio::{
    net::{TcpListener, lookup_host},
    time::timeout,
};

use super::Finding;

/// How long a name may take to be looked up.
const LOOK_UP: Duration = Duration::from_secs(10);

/// The listen address, what is advertised, and the workers' own, with the run spread over so many other machines.
pub(super) async fn findings(config: &ValidConfig, others: usize) -> Vec<Finding> {
    let cluster = &config.cluster;
    let mut findings = vec![listen(&cluster.listen, others).await];
    if let Some(host) = &cluster.advertise {
        findings.push(match resolve(host).await {
            Ok(address) => Finding::ok("advertise", format!("{host} is {address}")),
            Err(error) => Finding::failed(
                "advertise",
                format!("{host}: {error}"),
                "set cluster.advertise to a name or address that workers reach",
            ),
        });
    }
    findings.push(own(&cluster.collective_address).await);
    findings
}

async fn listen(address: &str, others: usize) -> Finding {
    match TcpListener::bind(address).await {
        Err(error) => Finding::failed(
            "listen",
            format!("cannot listen on {address}: {error}"),
            "another coordinator may be up there; choose another port or address with cluster.listen",
        ),
        Ok(listener) => {
            let loopback = listener.local_addr().is_ok_and(|bound| bound.ip().is_loopback());
            if loopback && others > 0 {
                return Finding::failed(
                    "listen",
                    format!("{address} is reached from this machine alone"),
                    "set cluster.listen to an address of the cluster's network, with cluster.certificates or \
                     cluster.trusted_network",
                );
            }
            Finding::ok("listen", format!("{address} is free"))
        }
    }
}

/// The collectives' address must be one of this machine: workers listen on it.
async fn own(host: &str) -> Finding {
    let problem = match resolve(host).await {
        Err(error) => error,
        Ok(address) => match TcpListener::bind((address, 0)).await {
            Ok(_) => {
                return Finding::ok("collectives", format!("{host} is an address of this machine"));
            }
            Err(error) => format!("{address} is no address of this machine ({error})"),
        },
    };
    Finding::failed(
        "collectives",
        format!("{host}: {problem}"),
        "set cluster.collective_address to an address of the interface that workers exchange gradients on",
    )
}

pub(super) async fn resolve(host: &str) -> Result<IpAddr, String> {
    let host = host.trim_matches(['[', ']']);
    let mut found = timeout(LOOK_UP, lookup_host((host, 0)))
        .await
        .map_err(|_| format!("looking it up takes more than {} s", LOOK_UP.as_secs()))?
        .map_err(|error| error.to_string())?;
    found.next().map(|address| address.ip()).ok_or_else(|| "it has no address".to_owned())
}
