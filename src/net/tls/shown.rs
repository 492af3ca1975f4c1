//! What a certificate shows to whoever connects: names, dates, key, and who vouches for it.
//!
//! Called by the doctor. It reads files and decides nothing.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName, UnixTime};

use super::client::system_roots;
use super::peer::names_of;
use super::{key_digest, provider, read_certificates};
use crate::mail::{Domain, Timestamp};

/// See the module's head.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its DNS names.
    pub names: Vec<String>,
    /// From when on it is valid.
    pub begins: Timestamp,
    /// Until when.
    pub ends: Timestamp,
    /// SHA-256 of its SubjectPublicKeyInfo: what `--pin` and TLSA `3 1 1` want.
    pub key: [u8; 32],
    /// The certificate and its key, each in DER, for comparison with TLSA records.
    pub der: Vec<u8>,
    /// The SubjectPublicKeyInfo in DER.
    pub key_der: Vec<u8>,
    /// Why the system's authorities do not vouch for it and the name asked about; `None` if they do.
    pub distrust: Option<String>,
}

impl Shown {
    /// Reads the first certificate of a PEM file and judges its chain for `host`.
    ///
    /// # Errors
    /// One line that names the file and what is wrong with it.
    pub fn read(file: &Path, host: &Domain) -> Result<Self, String> {
        let chain = read_certificates(file)?;
        let (leaf, rest) =
            chain.split_first().ok_or_else(|| format!("{}: no certificate", file.display()))?;
        let broken = || format!("{}: the first certificate cannot be read", file.display());
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| broken())?;
        let moment =
            |seconds: i64| Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
        let names = names_of(leaf).map(|names| names.dns_names).unwrap_or_default();
        let judged = || {
            let roots = Arc::new(system_roots()?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|error| error.to_string())?;
            let name = ServerName::try_from(host.as_str().to_owned())
                .map_err(|error| error.to_string())?;
            verifier
                .verify_server_cert(leaf, rest, &name, &[], UnixTime::now())
                .map_err(|error| error.to_string())
        };
        Ok(Self {
            names: names.iter().map(|name| name.to_ascii_lowercase()).collect(),
            begins: moment(parsed.validity().not_before.timestamp()),
            ends: moment(parsed.validity().not_after.timestamp()),
            key: key_digest(leaf).ok_or_else(broken)?,
            der: leaf.to_vec(),
            key_der: parsed.public_key().raw.to_vec(),
            distrust: judged().err(),
        })
    }

    /// Whether one of its names is this host, a wildcard for the first label included (RFC 9525 §6.3).
    #[must_use]
    pub fn names_host(&self, host: &Domain) -> bool {
        let host = host.as_str();
        let wild = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.names.iter().any(|name| name == host || Some(name) == wild.as_ref())
    }
}
