//! The server's side of TLS: its certificates, chosen by the name that the client asks for, and read again when
//! their files change.
//!
//! Made by the program, used by listeners and by STARTTLS. A bad pair never replaces a good one, and running
//! connections keep what they have. A client's certificate is asked for where EXTERNAL is allowed and never required.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use futures_rustls::TlsAcceptor;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::peer::{ClientAuthority, ClientKey, names_of};
use super::wiping::Wiping;
use super::{MinimumVersion, facts, provider, read_pair};
use crate::net::wire::Wire;

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// PEM: the certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM: the key.
    pub private_key: PathBuf,
}

/// Where the server's certificates are, and what is asked of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// PEM: the certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM: the key.
    pub private_key: PathBuf,
    /// Lowest version.
    pub minimum: MinimumVersion,
    /// More pairs; each is shown to clients that ask for one of its names (RFC 6066 §3). Everybody else gets
    /// the first.
    pub also: Vec<PairFiles>,
    /// Whether clients are asked for a certificate: where EXTERNAL is allowed.
    pub asks_clients: bool,
    /// PEM: the authority whose client certificates name their holder.
    pub client_ca: Option<PathBuf>,
}

impl ServerFiles {
    /// One pair, any client.
    #[must_use]
    pub fn new(certificate: PathBuf, private_key: PathBuf, minimum: MinimumVersion) -> Self {
        let also = Vec::new();
        Self { certificate, private_key, minimum, also, asks_clients: false, client_ca: None }
    }
}

/// The server's side: the current certificates, replaced when their files change.
pub struct ServerTls {
    files: ServerFiles,
    current: RwLock<Current>,
}

struct Current {
    ready: Ready,
    stamp: Stamp,
}

/// What a handshake needs.
#[derive(Clone)]
struct Ready {
    config: Arc<ServerConfig>,
    authority: Option<Arc<ClientAuthority>>,
}

/// When each file was last written, and its size.
type Stamp = Vec<Option<(SystemTime, u64)>>;

impl ServerTls {
    /// Reads certificates and keys. An expired certificate is taken, with a warning: at a start there is no better
    /// one, and mail servers mostly do not look.
    ///
    /// # Errors
    /// One line that names the file and what is wrong with it.
    pub fn load(files: ServerFiles) -> Result<Self, String> {
        let stamp = files.stamp();
        let (ready, stale) = files.ready()?;
        if let Some(what) = stale {
            log::warn!(target: "restante", what = what; "certificate-dates");
        }
        Ok(Self { files, current: RwLock::new(Current { ready, stamp }) })
    }

    /// Reads the files again if they changed (or always, when `forced`). On an error, and for a certificate
    /// outside its dates, the old pair stays.
    ///
    /// # Errors
    /// As [`ServerTls::load`]; the same change is reported once, not at every look.
    pub fn reload(&self, forced: bool) -> Result<bool, String> {
        let stamp = self.files.stamp();
        let known = self.current.read().unwrap_or_else(PoisonError::into_inner).stamp.clone();
        if !forced && stamp == known {
            return Ok(false);
        }
        let outcome = self.files.ready();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.stamp = stamp;
        match outcome? {
            (ready, None) => {
                current.ready = ready;
                Ok(true)
            }
            (_, Some(stale)) => Err(stale),
        }
    }

    /// The server's handshake over `wire`; whatever was known of it in clear text is for the caller to forget.
    ///
    /// # Errors
    /// The handshake's failure; the wire is gone.
    pub async fn accept(&self, wire: Wire) -> std::io::Result<Wire> {
        let ready = self.current.read().unwrap_or_else(PoisonError::into_inner).ready.clone();
        let stream = TlsAcceptor::from(ready.config).accept(Wiping(wire.stream)).await?;
        let connection = stream.get_ref().1;
        let mut facts = facts(connection);
        let chain = connection.peer_certificates().unwrap_or_default();
        facts.verified = ready.authority.and_then(|authority| authority.identify(chain));
        Ok(Wire { stream: Box::new(stream), peer: wire.peer, tls: Some(facts) })
    }
}

impl ServerFiles {
    fn pairs(&self) -> impl Iterator<Item = (&Path, &Path)> {
        let first = (self.certificate.as_path(), self.private_key.as_path());
        let more = self.also.iter().map(|p| (p.certificate.as_path(), p.private_key.as_path()));
        std::iter::once(first).chain(more)
    }

    fn stamp(&self) -> Stamp {
        let of = |path: &Path| {
            let facts = std::fs::metadata(path).ok()?;
            Some((facts.modified().ok()?, facts.len()))
        };
        let pairs = self.pairs().flat_map(|(certificate, key)| [of(certificate), of(key)]);
        pairs.chain(self.client_ca.iter().map(|path| of(path))).collect()
    }

    /// What a handshake needs, and which certificate is outside its dates, if one is.
    fn ready(&self) -> Result<(Ready, Option<String>), String> {
        let mut keys = Keys::default();
        let mut stale = None;
        for (certificate, key) in self.pairs() {
            let pair = certified(certificate, key)?;
            stale = stale.or_else(|| outside_dates(certificate, &pair));
            keys.add(pair);
        }
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.minimum.versions())
            .map_err(|error| error.to_string())?;
        let builder = if self.asks_clients || self.client_ca.is_some() {
            builder.with_client_cert_verifier(Arc::new(ClientKey::new()))
        } else {
            builder.with_no_client_auth()
        };
        let config = Arc::new(builder.with_cert_resolver(Arc::new(keys)));
        let authority = match &self.client_ca {
            Some(path) => Some(Arc::new(ClientAuthority::load(path)?)),
            None => None,
        };
        Ok((Ready { config, authority }, stale))
    }
}

/// A pair that fits together.
fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let (chain, key_der) = read_pair(certificate, key)?;
    CertifiedKey::from_der(chain, key_der, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("{}: the key in {} is not its key", certificate.display(), key.display())
        }
        other => format!("{}: {other}", certificate.display()),
    })
}

/// Says so if the certificate is not valid today.
fn outside_dates(path: &Path, pair: &CertifiedKey) -> Option<String> {
    let (_, leaf) = x509_parser::parse_x509_certificate(pair.cert.first()?).ok()?;
    let dates = leaf.validity();
    (!dates.is_valid()).then(|| {
        let (from, until) = (dates.not_before, dates.not_after);
        format!("{}: valid only from {from} until {until}", path.display())
    })
}

/// The pairs by the names in their certificates.
#[derive(Debug, Default)]
struct Keys {
    first: Option<Arc<CertifiedKey>>,
    by_name: HashMap<Box<str>, Arc<CertifiedKey>>,
}

impl Keys {
    fn add(&mut self, pair: CertifiedKey) {
        let pair = Arc::new(pair);
        let names = pair.cert.first().and_then(names_of).map(|names| names.dns_names);
        for name in names.unwrap_or_default() {
            let name = name.to_ascii_lowercase().into_boxed_str();
            self.by_name.entry(name).or_insert_with(|| pair.clone());
        }
        self.first.get_or_insert(pair);
    }

    /// The pair for this name: the same name, else a wildcard for its first label (RFC 9525 §6.3), else the
    /// first pair; a mail server that gets the wrong name mostly goes on, one that gets nothing falls back to
    /// clear text.
    fn choose(&self, asked: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = asked.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let wild = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
            let exact = self.by_name.get(name.as_str());
            exact.or_else(|| self.by_name.get(wild?.as_str())).cloned()
        });
        named.or_else(|| self.first.clone())
    }
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}
