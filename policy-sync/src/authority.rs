//! Certificates: an authority of our own, made at the first start, and what it signs for serve and for agents.
//!
//! Knows keys and files. Never knows who deserves a certificate.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Days a certificate of serve or of an agent is good for.
pub(crate) const LEAF_DAYS: i64 = 30;
/// Days the authority itself is good for.
const AUTHORITY_DAYS: i64 = 3650;

/// What went wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// What is in a file, or in a request, is no certificate, key or request.
    #[error("{0}")]
    Made(#[from] rcgen::Error),
    /// It cannot be used.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// It is no PEM.
    #[error("{0}: not a PEM file: {1}")]
    Pem(PathBuf, String),
}

/// The authority that serve and its agents believe.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub(crate) pem: String,
    /// Whether it was made just now.
    pub(crate) is_new: bool,
}

impl Authority {
    /// The authority whose files are in `folder`; made there if there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let (pem_path, key_path) = (folder.join("ca.pem"), folder.join("ca.key"));
        let is_new = !pem_path.exists();
        if is_new {
            make(&pem_path, &key_path)?;
        }
        let pem = read(&pem_path)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, KeyPair::from_pem(&read(&key_path)?)?)?;
        Ok(Self { issuer, pem, is_new })
    }

    /// A fresh certificate for serve under these names, and its key; both PEM.
    pub(crate) fn for_serve(&self, names: &[String]) -> Result<(String, String), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        limit(&mut params, "policy-sync serve", ExtendedKeyUsagePurpose::ServerAuth, LEAF_DAYS);
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    /// Signs an agent's request, PEM, for `host` and for nothing else it may ask.
    pub(crate) fn for_agent(&self, request: &str, host: &str) -> Result<String, AuthorityError> {
        self.for_agent_until(request, host, LEAF_DAYS)
    }

    /// As [`Self::for_agent`], good until so many days from now.
    pub(crate) fn for_agent_until(
        &self,
        request: &str,
        host: &str,
        days: i64,
    ) -> Result<String, AuthorityError> {
        let mut asked = CertificateSigningRequestParams::from_pem(request)?;
        let mut params = CertificateParams::default();
        limit(&mut params, host, ExtendedKeyUsagePurpose::ClientAuth, days);
        asked.params = params;
        Ok(asked.signed_by(&self.issuer)?.pem())
    }
}

fn make(pem_path: &Path, key_path: &Path) -> Result<(), AuthorityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Portcullis authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    good_for(&mut params, -1, AUTHORITY_DAYS);
    let certificate = params.self_signed(&key)?;
    // The key first: a certificate whose key was lost would be believed and useless.
    write_secret(key_path, &key.serialize_pem())?;
    fs::write(pem_path, certificate.pem()).map_err(|error| AuthorityError::File(pem_path.to_owned(), error))
}

fn limit(params: &mut CertificateParams, name: &str, usage: ExtendedKeyUsagePurpose, days: i64) {
    params.distinguished_name = named(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![usage];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    good_for(params, days.min(0) - 1, days);
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn good_for(params: &mut CertificateParams, from: i64, until: i64) {
    let ((year, month, of_month), (last_year, last_month, last_of_month)) = (day(from), day(until));
    params.not_before = date_time_ymd(year, month, of_month);
    params.not_after = date_time_ymd(last_year, last_month, last_of_month);
}

/// The day so many days from today: year, month, day of the month.
fn day(days: i64) -> (i32, u8, u8) {
    let then = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let then = then.checked_add(jiff::Span::new().days(days)).unwrap_or(then);
    let part = |number: i8| u8::try_from(number).unwrap_or(1);
    (then.year().into(), part(then.month()), part(then.day()))
}

/// A new key, and the request to certify it; both PEM.
pub(crate) fn request() -> Result<(String, String), AuthorityError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?.pem()?;
    Ok((key.serialize_pem(), request))
}

/// A code over a certificate as it stands on the wire; hexadecimal.
pub(crate) fn code_of(certificate: &[u8]) -> String {
    blake3::hash(certificate).to_hex().to_string()
}

/// A code over the first certificate of a PEM chain.
pub(crate) fn code_of_pem(chain: &str) -> Result<String, AuthorityError> {
    let wrong = |error: rustls::pki_types::pem::Error| AuthorityError::Pem("chain".into(), error.to_string());
    Ok(code_of(&CertificateDer::from_pem_slice(chain.as_bytes()).map_err(wrong)?))
}

/// What a server with this certificate does, for HTTPS.
pub(crate) fn https(chain: &str, key: &str) -> Result<ServerConfig, AuthorityError> {
    let wrong =
        |error: rustls::pki_types::pem::Error| AuthorityError::Pem("certificate".into(), error.to_string());
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(wrong)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_no_client_auth().with_single_cert(certificates.map_err(wrong)?, key)?)
}

/// What a client that believes `authority` (PEM) does.
pub(crate) fn client(authority: &str) -> Result<ClientConfig, AuthorityError> {
    let wrong =
        |error: rustls::pki_types::pem::Error| AuthorityError::Pem("authority".into(), error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.map_err(wrong)?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|error| AuthorityError::File(path.to_owned(), error))
}

/// Writes a file that only its owner reads, whole or not at all.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), AuthorityError> {
    write_whole(path, text.as_bytes()).map_err(|error| AuthorityError::File(path.to_owned(), error))
}

/// Puts `bytes` in the place of `path`, on the disk when this returns; only its owner reads it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let making = path.with_extension("making");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&making)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&making, path)?;
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
