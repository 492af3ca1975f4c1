//! What the other side shows: keys that are pinned, and certificates of a private authority.
//!
//! Called during and after a handshake. Every verifier here checks the handshake's signature, so that whoever shows
//! a key holds it; whose key it is, is for the provider to say. A certificate that fits nothing does not end the
//! connection: it only proves nothing, and EXTERNAL is refused (RFC 4422 appendix A).

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use x509_parser::extensions::GeneralName;

use super::client::roots_of;
use super::{key_digest, provider};
use crate::mail::VerifiedPeer;

/// The handshake signatures of both sides, checked by the provider's algorithms.
macro_rules! signatures {
    () => {
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
    };
}

/// For clients: accepts one server key, or any. Names and dates are not looked at.
#[derive(Debug)]
pub(super) struct ServerKey {
    pin: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerKey {
    pub(super) fn new(pin: Option<[u8; 32]>) -> Self {
        Self { pin, provider: provider() }
    }
}

impl ServerCertVerifier for ServerKey {
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

    signatures!();
}

/// For the server: asks for a certificate, does without, and takes any as a key.
#[derive(Debug)]
pub(super) struct ClientKey {
    provider: Arc<CryptoProvider>,
}

impl ClientKey {
    pub(super) fn new() -> Self {
        Self { provider: provider() }
    }
}

impl ClientCertVerifier for ClientKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hint: a client with a pinned key has no authority that we could name.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

/// The private authority of `[tls] client_ca`.
#[derive(Debug)]
pub(super) struct ClientAuthority(Arc<dyn ClientCertVerifier>);

impl ClientAuthority {
    /// Reads the authority's certificates.
    ///
    /// # Errors
    /// One line that names the file and what is wrong with it.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let roots = Arc::new(roots_of(path)?);
        WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map(Self)
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Who a client's chain says it is, if the chain leads to the authority, is within its dates, and is meant
    /// for clients.
    pub(super) fn identify(&self, chain: &[CertificateDer<'_>]) -> Option<VerifiedPeer> {
        let (leaf, rest) = chain.split_first()?;
        if let Err(error) = self.0.verify_client_cert(leaf, rest, UnixTime::now()) {
            log::info!(target: "restante", error = error.to_string(); "client-certificate-refused");
            return None;
        }
        names_of(leaf)
    }
}

/// The common name and the DNS names of a certificate.
pub(super) fn names_of(certificate: &CertificateDer<'_>) -> Option<VerifiedPeer> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    // Several common names would be several claims: none counts then.
    let mut names = parsed.subject().iter_common_name();
    let common_name = match (names.next(), names.next()) {
        (Some(only), None) => only.as_str().ok().map(Into::into),
        _ => None,
    };
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let dns_names = alternatives
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).into()),
            _ => None,
        })
        .collect();
    Some(VerifiedPeer { common_name, dns_names })
}
