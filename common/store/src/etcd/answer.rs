//! What an error of etcd means: ask again, give up, or tell the operator the way out.

use std::{error::Error as _, path::PathBuf};

use etcd_client::Error;
use tonic::Code;

use super::connect::Named;
use crate::{LeaseId, StoreError};

/// What to do next.
pub(super) enum Answer {
    /// Ask again, another member first.
    Again(String),
    /// This member will not answer us; perhaps another does.
    Refused(StoreError),
    /// No member will answer otherwise.
    Final(StoreError),
}

/// Reads an error of the client, which came while `action` was tried at `place`.
pub(super) fn read(
    error: &Error,
    action: &'static str,
    place: &str,
    lease: Option<LeaseId>,
    named: &Named,
) -> Answer {
    let lost = || {
        let lease = lease.unwrap_or(LeaseId(0));
        Answer::Final(StoreError::LeaseLost { lease })
    };
    match error {
        Error::GRpcStatus(status) => {
            let said = whole(status.message(), status.source());
            if let Some(refusal) = refusal(&said, named) {
                return Answer::Refused(StoreError::Refused {
                    endpoint: place.to_owned(),
                    error: refusal,
                });
            }
            if said.contains("requested lease not found") {
                return lost();
            }
            if said.contains("has been compacted") {
                return Answer::Final(StoreError::Compacted { revision: 0 });
            }
            match status.code() {
                Code::InvalidArgument if said.contains("auth store is old") => Answer::Again(said),
                Code::ResourceExhausted if said.contains("space exceeded") => {
                    let error = format!(
                        "{said} (compact and defragment etcd, then `etcdctl alarm disarm`)"
                    );
                    Answer::Final(StoreError::Backend { action, error })
                }
                Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::Unimplemented => Answer::Final(StoreError::Backend { action, error: said }),
                // No leader, a leader that changes, a connection that broke, a token that ran out.
                _ => Answer::Again(said),
            }
        }
        Error::LeaseKeepAliveError(said) if said.contains("not found") => lost(),
        Error::TransportError(transport) => {
            let said = whole(&transport.to_string(), transport.source());
            match refusal(&said, named) {
                Some(error) => {
                    Answer::Refused(StoreError::Refused { endpoint: place.to_owned(), error })
                }
                None => Answer::Again(said),
            }
        }
        Error::InvalidArgs(said) => {
            Answer::Final(StoreError::Backend { action: "open", error: format!("{place}: {said}") })
        }
        Error::InvalidUri(said) => Answer::Final(StoreError::Backend {
            action: "open",
            error: format!("{place} is no address: {said}"),
        }),
        other => Answer::Again(other.to_string()),
    }
}

/// Why etcd does not let us in, and the way out; `None` for every other problem.
fn refusal(said: &str, named: &Named) -> Option<String> {
    let user = named.user.as_deref().unwrap_or("of this certificate");
    let base = &named.base;
    let has = |text: &str| said.contains(text);
    let why = if has("invalid peer certificate") && (has("UnknownIssuer") || has("BadSignature")) {
        format!(
            "its certificate is not signed by the CA in {}; set store.ca to the CA that signed it",
            shown(named.ca.as_ref())
        )
    } else if has("invalid peer certificate") {
        format!(
            "its certificate does not hold ({}); renew it, or use the name that it is for",
            detail(said)
        )
    } else if has("received fatal alert") {
        format!(
            "it does not accept our certificate ({}); set store.cert and store.key to one that the \
             cluster's CA signed (now {})",
            detail(said),
            shown(named.cert.as_ref())
        )
    } else if has("authentication failed") {
        format!(
            "the password of user {user:?} is wrong, or there is no such user; check store.user and the \
             variable that store.password_env names"
        )
    } else if has("user name is empty") || has("user name not found") {
        "it asks for a user; set store.user and store.password_env".to_owned()
    } else if has("authentication is not enabled") {
        "it knows no users; leave store.user and store.password_env out".to_owned()
    } else if has("permission denied") {
        format!(
            "user {user:?} may not read and write below {base}; let an administrator run `etcdctl role \
             grant-permission ROLE readwrite --prefix {base}`"
        )
    } else {
        return None;
    };
    Some(why)
}

fn shown(path: Option<&PathBuf>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

/// The last part of a chain of causes.
fn detail(said: &str) -> &str {
    said.rsplit(": ").next().unwrap_or(said)
}

/// A message with all its causes.
fn whole(message: &str, mut cause: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut said = message.to_owned();
    while let Some(error) = cause {
        let next = error.to_string();
        if !said.ends_with(&next) {
            said.push_str(": ");
            said.push_str(&next);
        }
        cause = error.source();
    }
    said
}
