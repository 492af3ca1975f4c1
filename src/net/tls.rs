//! TLS over any stream, for both sides (RFC 8446, RFC 5246 with the limits of RFC 9325).
//!
//! The listener and STARTTLS make server streams here, the dialler client streams. The certificate is read from
//! files and read again when they change; a bad pair never replaces a good one. It is the only file that knows
//! which TLS library is used.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use futures_rustls::{TlsAcceptor, TlsConnector};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConnectionCommon, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};
use sha2::{Digest, Sha256};

use super::wire::{Stream, Wire};
use crate::mail::TlsFacts;

/// Label of the tls-exporter channel binding (RFC 9266 §4.2).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

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

/// Where the server's certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// PEM: the certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM: the key.
    pub private_key: PathBuf,
    /// Lowest version.
    pub minimum: MinimumVersion,
}

/// The server's side: the current certificate, replaced when its files change.
pub struct ServerTls {
    files: ServerFiles,
    current: RwLock<(Arc<ServerConfig>, Stamp)>,
}

/// When the two files were last written.
type Stamp = (Option<SystemTime>, Option<SystemTime>);

impl ServerTls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// One line that names the file and what is wrong with it.
    pub fn load(files: ServerFiles) -> Result<Self, String> {
        let stamp = files.stamp();
        let config = Arc::new(files.config()?);
        Ok(Self { files, current: RwLock::new((config, stamp)) })
    }

    /// Reads the files again if they changed (or always, when `forced`). On an error the old pair stays.
    ///
    /// # Errors
    /// As [`ServerTls::load`]; the same change is reported once, not at every look.
    pub fn reload(&self, forced: bool) -> Result<bool, String> {
        let stamp = self.files.stamp();
        let known = self.current.read().unwrap_or_else(PoisonError::into_inner).1;
        if !forced && stamp == known {
            return Ok(false);
        }
        let outcome = self.files.config();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.1 = stamp;
        current.0 = Arc::new(outcome?);
        Ok(true)
    }

    /// The server's handshake over `wire`; whatever was known of it in clear text is for the caller to forget.
    ///
    /// # Errors
    /// The handshake's failure; the wire is gone.
    pub async fn accept(&self, wire: Wire) -> std::io::Result<Wire> {
        let config = self.current.read().unwrap_or_else(PoisonError::into_inner).0.clone();
        let stream = TlsAcceptor::from(config).accept(wire.stream).await?;
        let facts = facts(stream.get_ref().1);
        Ok(Wire { stream: Box::new(stream), peer: wire.peer, tls: Some(facts) })
    }
}

impl ServerFiles {
    fn stamp(&self) -> Stamp {
        let of = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        (of(&self.certificate), of(&self.private_key))
    }

    fn config(&self) -> Result<ServerConfig, String> {
        let (chain, key) = read_pair(&self.certificate, &self.private_key)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.minimum.versions())
            .map_err(|error| error.to_string())?;
        builder
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| format!("{}: {error}", self.certificate.display()))
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

/// How a client decides whether it talks to the right server.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Trust {
    /// The system's certificate authorities.
    #[default]
    System,
    /// The authorities in this PEM file.
    Authority(PathBuf),
    /// The server's key itself: SHA-256 of its SubjectPublicKeyInfo, 32 octets.
    Pin([u8; 32]),
    /// Anybody: encryption without identity, for opportunistic TLS (RFC 7435).
    Anybody,
}

/// A certificate and key to show, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub private_key: PathBuf,
}

/// The client's side.
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Prepares a client.
    ///
    /// # Errors
    /// One line that names the file or setting and what is wrong with it.
    pub fn new(trust: &Trust, identity: Option<&Identity>) -> Result<Self, String> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(MinimumVersion::Tls12.versions())
            .map_err(|error| error.to_string())?;
        let builder = match trust {
            Trust::System => builder.with_root_certificates(system_roots()?),
            Trust::Authority(path) => builder.with_root_certificates(roots_of(path)?),
            Trust::Pin(pin) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(KeyCheck::new(Some(*pin)))),
            Trust::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(KeyCheck::new(None)))
            }
        };
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (chain, key) = read_pair(&own.certificate, &own.private_key)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("{}: {error}", own.certificate.display()))?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// The client's handshake over `wire` with the server called `host`.
    ///
    /// # Errors
    /// The handshake's failure, a certificate that does not fit among them; the wire is gone.
    pub async fn connect(&self, host: &str, wire: Wire) -> std::io::Result<Wire> {
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        let stream = TlsConnector::from(self.0.clone()).connect(name, wire.stream).await?;
        let facts = facts(stream.get_ref().1);
        Ok(Wire { stream: Box::new(stream), peer: wire.peer, tls: Some(facts) })
    }
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string).unwrap_or_default();
        return Err(format!("the system has no certificate authorities {why}").trim_end().into());
    }
    Ok(roots)
}

fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

/// What is known of a finished handshake.
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
    let exporter = (version == "TLSv1.3")
        .then(|| connection.export_keying_material([0u8; 32], EXPORTER_LABEL, Some(&[])).ok())
        .flatten();
    TlsFacts { version: version.into(), cipher: cipher.into(), peer_key, exporter }
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

/// Accepts one key, or any; names and dates are not looked at, the handshake's signature always is.
#[derive(Debug)]
struct KeyCheck {
    pin: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl KeyCheck {
    fn new(pin: Option<[u8; 32]>) -> Self {
        Self { pin, provider: provider() }
    }
}

impl ServerCertVerifier for KeyCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pin.is_none() || key_digest(end_entity) == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("the server's key is not the pinned one".into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A stream that is already encrypted or in memory, as a wire; for tests and examples.
#[must_use]
pub fn plain(stream: impl Stream + 'static, peer: std::net::SocketAddr) -> Wire {
    Wire { stream: Box::new(stream), peer, tls: None }
}
