//! The client's side of TLS: whom we trust, and what we show.
//!
//! Called by the ETRN path and by `restante fetch`. It never goes on without the encryption that was asked for
//! (RFC 3207 §4.1; opportunistic trust is RFC 7435).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_rustls::TlsConnector;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::peer::ServerKey;
use super::{MinimumVersion, facts, provider, read_certificates, read_pair};
use crate::net::wire::Wire;

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
                .with_custom_certificate_verifier(Arc::new(ServerKey::new(Some(*pin)))),
            Trust::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(ServerKey::new(None)))
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

pub(super) fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string).unwrap_or_default();
        return Err(format!("the system has no certificate authorities {why}").trim_end().into());
    }
    Ok(roots)
}

pub(super) fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}
