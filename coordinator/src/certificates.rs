//! Making a run's own CA and the certificates of its two sides.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, ensure};
use medevo_rpc::{CA_FILE, COORDINATOR_FILES, COORDINATOR_NAME, WORKER_FILES};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// The CA's key, within a directory of certificates. No part of medevo reads it.
pub const CA_KEY_FILE: &str = "ca.key";
/// Certificates hold from a little before they are made: clocks differ.
const HEAD_START: Duration = Duration::hours(1);

/// Makes a CA, a coordinator's and a workers' certificate in `directory`, good for `days` days. The
/// coordinator's also holds for `names` (host names or addresses), which other programs may ask for.
///
/// # Errors
/// The directory holds anything already, a name is none, or the disk refuses.
pub fn make(directory: &Path, names: &[String], days: u32) -> anyhow::Result<()> {
    prepare(directory)?;
    let span = Span::of(days);
    let ca_key = KeyPair::generate().context("making the CA's key")?;
    let ca = ca_params(&ca_key, span)?;
    let certificate = ca.self_signed(&ca_key).context("signing the CA's certificate")?;
    write(directory, CA_FILE, 0o644, &certificate.pem())?;
    write(directory, CA_KEY_FILE, 0o600, &ca_key.serialize_pem())?;
    let ca = Issuer::new(ca, ca_key);

    let mut holds_for = vec![COORDINATOR_NAME.to_owned()];
    holds_for.extend(names.iter().filter(|name| *name != COORDINATOR_NAME).cloned());
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    let coordinator = leaf("medevo coordinator", holds_for, server, span)?;
    issue(directory, COORDINATOR_FILES, &coordinator, &ca)?;
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let worker = leaf("medevo worker", Vec::new(), client, span)?;
    issue(directory, WORKER_FILES, &worker, &ca)
}

/// A directory that only its owner can enter, with nothing in it.
fn prepare(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    if let Ok(mut entries) = fs::read_dir(directory) {
        ensure!(
            entries.next().is_none(),
            "{shown} is not empty, and certificates are never overwritten; name a new directory"
        );
        fs::remove_dir(directory).with_context(|| format!("replacing the empty {shown}"))?;
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("making the directory {shown}"))
}

/// From when to when.
#[derive(Clone, Copy)]
struct Span {
    from: OffsetDateTime,
    until: OffsetDateTime,
}

impl Span {
    fn of(days: u32) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { from: now - HEAD_START, until: now + Duration::days(i64::from(days)) }
    }
}

fn ca_params(key: &KeyPair, span: Span) -> anyhow::Result<CertificateParams> {
    // Two CAs that are called the same are hard to tell apart in a message: the key names this one.
    let name =
        format!("medevo CA {}", &blake3::hash(key.public_key_pem().as_bytes()).to_hex()[..8]);
    let mut params = params(&name, Vec::new(), span)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(
    name: &str,
    holds_for: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    span: Span,
) -> anyhow::Result<CertificateParams> {
    let mut params = params(name, holds_for, span)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(name: &str, holds_for: Vec<String>, span: Span) -> anyhow::Result<CertificateParams> {
    let mut params =
        CertificateParams::new(holds_for).context("--name takes host names and IP addresses")?;
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (span.from, span.until);
    Ok(params)
}

fn issue(
    directory: &Path,
    [certificate, key]: [&str; 2],
    params: &CertificateParams,
    ca: &Issuer<'_, KeyPair>,
) -> anyhow::Result<()> {
    let pair = KeyPair::generate().with_context(|| format!("making the key {key}"))?;
    let signed = params.signed_by(&pair, ca).with_context(|| format!("signing {certificate}"))?;
    write(directory, certificate, 0o644, &signed.pem())?;
    write(directory, key, 0o600, &pair.serialize_pem())
}

fn write(directory: &Path, name: &str, mode: u32, text: &str) -> anyhow::Result<()> {
    let path = directory.join(name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .with_context(|| format!("writing {}", path.display()))
}
