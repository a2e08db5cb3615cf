//! Who gets in, and what those read who do not.

use std::{fs, path::PathBuf};

use medevo_store::{Etcd, Settings, Store, StoreError, Write};
use medevo_tests::etcd::{Etcd as Cluster, Tls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

fn settings(cluster: &Cluster, run: &str) -> Settings {
    let mut settings = Settings::plain(cluster.endpoints(), "/medevo", run);
    settings.patience_s = 20.0;
    settings
}

fn refused(settings: &Settings) -> String {
    let error = Etcd::open(settings).expect_err("it must not be let in");
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    error.to_string()
}

/// A cluster where user `coord` may read and write below `/medevo/r/`.
fn guarded() -> Cluster {
    let cluster = Cluster::start(1);
    cluster.ctl(&["user", "add", "root:top"]);
    cluster.ctl(&["user", "grant-role", "root", "root"]);
    cluster.ctl(&["role", "add", "run-r"]);
    cluster.ctl(&["role", "grant-permission", "run-r", "readwrite", "--prefix", "/medevo/r/"]);
    cluster.ctl(&["user", "add", "coord:open sesame"]);
    cluster.ctl(&["user", "grant-role", "coord", "run-r"]);
    cluster.ctl(&["auth", "enable"]);
    cluster
}

fn as_coord(cluster: &Cluster, run: &str) -> Settings {
    let mut settings = settings(cluster, run);
    settings.user = Some("coord".into());
    settings.password = Some("open sesame".into());
    settings
}

#[test]
fn a_user_with_a_role_on_its_prefix_gets_in_and_stays_in_when_etcd_forgets_its_token() {
    let mut cluster = guarded();
    let store = Etcd::open(&as_coord(&cluster, "r")).expect("a store");
    store.transact(&[], &[Write::put("a", "1")]).expect("a write");
    let lease = store.grant(std::time::Duration::from_secs(600)).expect("a lease");
    store.transact(&[], &[Write::leased("b", "1", lease)]).expect("a write");
    store.renew(lease).expect("a renewal");
    // Tokens live in the member's memory.
    cluster.kill(0);
    cluster.restart(0);
    assert_eq!(store.get("a").expect("a read"), Some(b"1".to_vec()));
    assert_eq!(store.list("").expect("a list").entries.len(), 2);
    store.watch("", 0).expect("a watch");
    store.revoke(lease).expect("an answer");
}

#[test]
fn users_read_why_they_are_refused_and_the_way_out() {
    let cluster = guarded();
    let endpoint = cluster.endpoint(0);
    let mut wrong = as_coord(&cluster, "r");
    wrong.password = Some("open barley".into());
    assert_eq!(
        refused(&wrong),
        format!(
            "the store at {endpoint} refuses this run: the password of user \"coord\" is wrong, or there is no \
             such user; check store.user and the variable that store.password_env names"
        )
    );
    assert_eq!(
        refused(&settings(&cluster, "r")),
        format!(
            "the store at {endpoint} refuses this run: it asks for a user; set store.user and \
             store.password_env"
        )
    );
    assert_eq!(
        refused(&as_coord(&cluster, "other")),
        format!(
            "the store at {endpoint} refuses this run: user \"coord\" may not read and write below \
             /medevo/other/; let an administrator run `etcdctl role grant-permission ROLE readwrite --prefix \
             /medevo/other/`"
        )
    );
    let open = Cluster::start(1);
    assert_eq!(
        refused(&as_coord(&open, "r")),
        format!(
            "the store at {} refuses this run: it knows no users; leave store.user and store.password_env out",
            open.endpoint(0)
        )
    );
}

/// A CA, and what it signs, as PEM files in a folder.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "a CA of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("a file");
        Self { dir, issuer: Issuer::new(params, key) }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for `names` and its key.
    fn sign(&self, who: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, who);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |end: &str| self.dir.path().join(format!("{who}.{end}"));
        fs::write(path("pem"), certificate.pem()).expect("a file");
        fs::write(path("key"), key.serialize_pem()).expect("a file");
        (path("pem"), path("key"))
    }

    fn cluster(&self, names: &[&str]) -> Cluster {
        let (cert, key) = self.sign("member", names);
        Cluster::start_secured(1, Tls { ca: self.ca(), cert, key })
    }
}

fn with_certificate(cluster: &Cluster, ca: &Authority, signer: &Authority) -> Settings {
    let (cert, key) = signer.sign("coord", &[]);
    let mut settings = settings(cluster, "r");
    (settings.ca, settings.cert, settings.key) = (Some(ca.ca()), Some(cert), Some(key));
    settings
}

#[test]
fn a_client_certificate_of_the_clusters_ca_gets_in() {
    let ours = Authority::new();
    let cluster = ours.cluster(&["127.0.0.1"]);
    let store = Etcd::open(&with_certificate(&cluster, &ours, &ours)).expect("a store");
    store.transact(&[], &[Write::put("a", "1")]).expect("a write");
    assert_eq!(store.get("a").expect("a read"), Some(b"1".to_vec()));
}

#[test]
fn strangers_read_why_their_certificates_are_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let cluster = ours.cluster(&["127.0.0.1"]);
    let endpoint = cluster.endpoint(0);
    let sentence = refused(&with_certificate(&cluster, &theirs, &ours));
    assert_eq!(
        sentence,
        format!(
            "the store at {endpoint} refuses this run: its certificate is not signed by the CA in {}; set \
             store.ca to the CA that signed it",
            theirs.ca().display()
        )
    );
    let foreign = with_certificate(&cluster, &ours, &theirs);
    let sentence = refused(&foreign);
    assert!(sentence.contains("it does not accept our certificate"), "{sentence}");
    assert!(sentence.contains("set store.cert and store.key to one that the cluster's CA signed"));
    let mut none = foreign;
    (none.cert, none.key) = (None, None);
    let sentence = refused(&none);
    assert!(sentence.contains("it does not accept our certificate"), "{sentence}");
    assert!(sentence.contains("(now none)"), "{sentence}");
}

#[test]
fn a_member_under_another_name_is_not_trusted() {
    let ours = Authority::new();
    let cluster = ours.cluster(&["10.9.8.7"]);
    let sentence = refused(&with_certificate(&cluster, &ours, &ours));
    assert!(sentence.contains("its certificate does not hold"), "{sentence}");
    assert!(sentence.contains("renew it, or use the name that it is for"), "{sentence}");
}

#[test]
fn files_that_are_not_there_are_named() {
    let ours = Authority::new();
    let mut settings = Settings::plain(vec!["https://127.0.0.1:1".into()], "/medevo", "r");
    let sentence = Etcd::open(&settings).expect_err("no CA").to_string();
    assert!(sentence.contains("set store.ca"), "{sentence}");
    settings.ca = Some(ours.dir.path().join("nowhere.pem"));
    let sentence = Etcd::open(&settings).expect_err("no such file").to_string();
    assert!(sentence.contains("nowhere.pem"), "{sentence}");
}
