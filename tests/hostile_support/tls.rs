//! Certificates made for a test, and TLS clients of every kind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use restante::net::tls::{MinimumVersion, ServerFiles, hex, key_digest};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// An authority that signs for servers and clients.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Pair {
    pub certificate: CertificateDer<'static>,
    pub pem: String,
    pub key: KeyPair,
}

impl Pair {
    /// SHA-256 of the SubjectPublicKeyInfo, as in the setting `certificate`.
    pub fn pin(&self) -> String {
        hex(&key_digest(&self.certificate).expect("a certificate"))
    }

    fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        (vec![self.certificate.clone()], key)
    }
}

/// What a certificate is like.
#[derive(Clone, Copy, Default)]
pub struct Shape<'a> {
    pub common_name: &'a str,
    pub dns_names: &'a [&'a str],
    pub is_expired: bool,
}

fn params(shape: Shape<'_>) -> CertificateParams {
    let names: Vec<String> = shape.dns_names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    if !shape.common_name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, shape.common_name);
    }
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(if shape.is_expired { 2021 } else { 2090 }, 1, 1);
    params
}

/// A certificate that nobody but its key signed.
pub fn self_signed(shape: Shape<'_>) -> Pair {
    let key = KeyPair::generate().expect("a key");
    let made = params(shape).self_signed(&key).expect("a certificate");
    Pair { certificate: made.der().clone(), pem: made.pem(), key }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = params(Shape { common_name: "Test authority", ..Shape::default() });
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clear();
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    pub fn sign(&self, shape: Shape<'_>) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let made = params(shape).signed_by(&key, &self.0).expect("a certificate");
        Pair { certificate: made.der().clone(), pem: made.pem(), key }
    }

    /// Writes the authority's own certificate.
    pub fn file(&self, folder: &Path) -> PathBuf {
        let path = folder.join("authority.pem");
        std::fs::write(&path, self.0.as_ref().pem()).expect("written");
        path
    }

    /// A fresh server certificate for these names, in files.
    pub fn server_files(&self, folder: &Path, names: &[&str]) -> ServerFiles {
        let pair = self.sign(Shape { dns_names: names, ..Shape::default() });
        let (certificate, key) = write(folder, "server", &pair);
        ServerFiles::new(certificate, key, MinimumVersion::Tls12)
    }

    /// A client that trusts this authority and shows a certificate, or none.
    pub fn client(&self, own: Option<&Pair>) -> Arc<ClientConfig> {
        self.client_of(own, rustls::DEFAULT_VERSIONS)
    }

    pub fn client_of(
        &self,
        own: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        Arc::new(self.client_by(rustls::crypto::ring::default_provider(), own, versions))
    }

    /// A client with suites of its own choice.
    pub fn client_by(
        &self,
        provider: rustls::crypto::CryptoProvider,
        own: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.as_ref().der().clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        match own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let (chain, key) = pair.der();
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        }
    }
}

/// Writes `NAME.pem` and `NAME.key`.
pub fn write(folder: &Path, name: &str, pair: &Pair) -> (PathBuf, PathBuf) {
    let place = |end: &str| folder.join(format!("{name}.{end}"));
    std::fs::write(place("pem"), &pair.pem).expect("written");
    std::fs::write(place("key"), pair.key.serialize_pem()).expect("written");
    (place("pem"), place("key"))
}
