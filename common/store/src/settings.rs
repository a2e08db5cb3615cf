//! Where an etcd store is, and how to get in.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// What it takes to open [`crate::Etcd`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Addresses of the cluster's members, such as `http://10.0.0.1:2379`; `https` with TLS.
    pub endpoints: Vec<String>,
    /// What all keys of all runs start with.
    pub prefix: String,
    /// Which run: its keys lie under `<prefix>/<run>/`.
    pub run: String,
    /// User, where the cluster asks for one.
    #[serde(default)]
    pub user: Option<String>,
    /// Its password. Never printed and never written.
    #[serde(default, skip_serializing)]
    pub password: Option<String>,
    /// PEM file of the CA that signed the members' certificates.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// PEM file of this process's certificate, where the cluster asks for one.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Longest wait for one member's answer, seconds; doubles with every round through the members.
    #[serde(default = "attempt")]
    pub attempt_s: f64,
    /// Longest that one call keeps trying, seconds.
    #[serde(default = "patience")]
    pub patience_s: f64,
}

fn attempt() -> f64 {
    1.0
}

fn patience() -> f64 {
    10.0
}

impl Settings {
    /// A cluster without user and TLS.
    #[must_use]
    pub fn plain(endpoints: Vec<String>, prefix: &str, run: &str) -> Self {
        Self {
            endpoints,
            prefix: prefix.to_owned(),
            run: run.to_owned(),
            user: None,
            password: None,
            ca: None,
            cert: None,
            key: None,
            attempt_s: attempt(),
            patience_s: patience(),
        }
    }

    /// What all keys of this run start with; ends with a slash.
    pub(crate) fn base(&self) -> String {
        format!("{}/{}/", self.prefix.trim_end_matches('/'), self.run)
    }

    pub(crate) fn attempt(&self) -> Duration {
        seconds(self.attempt_s)
    }

    pub(crate) fn patience(&self) -> Duration {
        seconds(self.patience_s)
    }
}

/// A time that no arithmetic trips over.
fn seconds(value: f64) -> Duration {
    let most = Duration::from_secs(604_800);
    Duration::try_from_secs_f64(value).unwrap_or(most).clamp(Duration::from_millis(1), most)
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("endpoints", &self.endpoints)
            .field("base", &self.base())
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "hidden"))
            .field("ca", &self.ca)
            .field("cert", &self.cert)
            .field("key", &self.key)
            .field("attempt_s", &self.attempt_s)
            .field("patience_s", &self.patience_s)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_neither_printed_nor_written() {
        let mut settings = Settings::plain(vec!["http://a:1".into()], "/medevo/", "r");
        settings.password = Some("open sesame".into());
        assert!(!format!("{settings:?}").contains("sesame"));
        assert_eq!(settings.base(), "/medevo/r/");
    }
}
