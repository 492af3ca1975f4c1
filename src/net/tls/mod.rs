//! TLS over any stream, for both sides (RFC 8446, RFC 5246 with the limits of RFC 9325).
//!
//! The listener and STARTTLS make server streams here, the dialler client streams. This folder is the only place
//! that knows which TLS library is used: `server` holds the certificates, `client` the trust, `peer` looks at what
//! the other side shows, `wiping` keeps the library's memory clean.

mod client;
mod peer;
mod server;
mod shown;
mod wiping;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ConnectionCommon, SupportedProtocolVersion};
use sha2::{Digest, Sha256};

pub use client::{ClientTls, Identity, Trust};
pub use server::{PairFiles, ServerFiles, ServerTls};
pub use shown::Shown;

use super::wire::{Stream, Wire};
use crate::mail::TlsFacts;

/// Label of the tls-exporter channel binding (RFC 9266 §4.2).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// The suites of *ring*'s provider: AEAD with forward secrecy only, for TLS 1.2 as for 1.3 (RFC 9325 §4.2).
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Lowest version offered: `[tls] minimum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MinimumVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

impl MinimumVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] =
            [&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            Self::Tls12 => &BOTH,
            Self::Tls13 => &BOTH[..1],
        }
    }
}

/// Reads a chain and its key from PEM files.
///
/// # Errors
/// One line that names the file and what is wrong with it.
pub fn read_pair(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = read_certificates(certificate)?;
    let key_der = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("{}: no private key in PEM: {error}", key.display()))?;
    Ok((chain, key_der))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let complain =
        |error: rustls::pki_types::pem::Error| format!("{}: not PEM: {error}", path.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(complain)?
        .collect::<Result<_, _>>()
        .map_err(complain)?;
    if chain.is_empty() {
        return Err(format!("{}: holds no certificate", path.display()));
    }
    Ok(chain)
}

/// What is known of a finished handshake. Whether the peer's chain is sound is for the caller to add.
fn facts<Data>(connection: &ConnectionCommon<Data>) -> TlsFacts {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    let cipher = connection
        .negotiated_cipher_suite()
        .map(|suite| format!("{:?}", suite.suite()))
        .unwrap_or_default();
    let peer_key = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|leaf| key_digest(leaf))
        .map(|digest| hex(&digest).into());
    // In TLS 1.2 the exporter binds only where the extended master secret was agreed (RFC 9266 §4.1), and that
    // is not to be learnt from this library: so 1.3 only.
    let exporter = (version == "TLSv1.3")
        .then(|| connection.export_keying_material([0u8; 32], EXPORTER_LABEL, Some(&[])).ok())
        .flatten();
    TlsFacts { version: version.into(), cipher: cipher.into(), peer_key, exporter, verified: None }
}

/// SHA-256 of the SubjectPublicKeyInfo of a certificate; `None` if it cannot be parsed.
#[must_use]
pub fn key_digest(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(Sha256::digest(parsed.public_key().raw).into())
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A stream that is already encrypted or in memory, as a wire; for tests and examples.
#[must_use]
pub fn plain(stream: impl Stream + 'static, peer: std::net::SocketAddr) -> Wire {
    Wire { stream: Box::new(stream), peer, tls: None }
}
