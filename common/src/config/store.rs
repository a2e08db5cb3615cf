//! Where a run's state is kept: the section of the run file, and its rules.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::Rules;

/// What keeps a run's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// One file in the run directory, for one coordinator on one machine.
    Embedded,
    /// An etcd cluster, where other coordinators can stand by.
    Etcd,
}

/// Where the run's state is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSection {
    /// In a file, or in etcd.
    pub kind: StoreKind,
    /// etcd: addresses of its members, such as `http://10.0.0.1:2379`; all `https` with TLS.
    pub endpoints: Vec<String>,
    /// etcd: what all keys start with; a run's lie under `<prefix>/<run.name>/`.
    pub prefix: String,
    /// etcd: user, where it asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// etcd: name of the environment variable that holds the user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// etcd: PEM file of the CA that signed the members' certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// etcd: PEM file of the certificate to show, where it asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// etcd: PEM file of that certificate's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// etcd: how long one call is tried again before it fails, seconds.
    pub patience_s: f64,
    /// A leading coordinator that the store has not heard of for this long is replaced, seconds.
    pub leader_ttl_s: f64,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            kind: StoreKind::Embedded,
            endpoints: Vec::new(),
            prefix: "/medevo".into(),
            user: None,
            password_env: None,
            ca: None,
            cert: None,
            key: None,
            patience_s: 10.0,
            leader_ttl_s: 10.0,
        }
    }
}

impl Rules {
    pub fn store(&mut self, store: &StoreSection) {
        self.seconds(store.patience_s, "store.patience_s");
        self.seconds(store.leader_ttl_s, "store.leader_ttl_s");
        match store.kind {
            StoreKind::Embedded => self.require(
                store.endpoints.is_empty(),
                "store.endpoints",
                "names etcd, but store.kind is \"embedded\"; set kind = \"etcd\", or leave endpoints out",
            ),
            StoreKind::Etcd => self.etcd(store),
        }
    }

    fn etcd(&mut self, store: &StoreSection) {
        self.require(
            !store.endpoints.is_empty(),
            "store.endpoints",
            "is empty; name the members of the cluster, such as [\"http://127.0.0.1:2379\"]",
        );
        let tls = |endpoint: &String| endpoint.starts_with("https://");
        let secured = store.endpoints.iter().any(tls);
        for (i, endpoint) in store.endpoints.iter().enumerate() {
            let path = format!("store.endpoints[{i}]");
            let rest =
                endpoint.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme));
            let address = rest.and_then(|(_, address)| address.rsplit_once(':'));
            let good =
                address.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            self.require(
                good,
                &path,
                format!("must be http://host:port or https://host:port, but it is {endpoint:?}"),
            );
            self.require(
                !good || tls(endpoint) == secured,
                &path,
                format!("is {endpoint:?}, but others are https; write all of them alike"),
            );
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        self.require(
            store.prefix.starts_with('/') && store.prefix.len() > 1 && store.prefix.chars().all(plain),
            "store.prefix",
            format!(
                "must start with `/` and hold letters, digits, `-`, `_`, `.` and `/`, but it is {:?}",
                store.prefix
            ),
        );
        self.require(
            store.user.is_some() == store.password_env.is_some(),
            "store.password_env",
            "and store.user belong together; set both or neither",
        );
        self.require(
            store.cert.is_some() == store.key.is_some(),
            "store.key",
            "and store.cert belong together; set both or neither",
        );
        self.require(
            !secured || store.ca.is_some(),
            "store.ca",
            "is missing, but store.endpoints are https; name the CA's PEM file",
        );
        self.require(
            secured || (store.ca.is_none() && store.cert.is_none()),
            "store.endpoints",
            "are not https, so store.ca and store.cert protect nothing; write https://, or leave them out",
        );
    }
}
