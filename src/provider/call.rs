//! A call: a connection that we open, to carry a drain over it.
//!
//! Made by the ETRN path and by the way out, carried out by the shell, which dials, brings TLS up and logs in. It is
//! only an order and its outcome; nothing here opens anything.

use futures::future::BoxFuture;

use super::board::LastDrain;
use super::drain::Way;
use crate::mail::{Domain, EtrnTls, Lease, Secret};

/// A host and a port, as an operator writes them: `host:port` or `[addr]:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port`; brackets around an IPv6 address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']')?;
                inner.parse::<std::net::IpAddr>().ok()?;
                inner.to_owned()
            }
            None if host.parse::<std::net::Ipv4Addr>().is_ok() => host.to_owned(),
            None => Domain::parse(host).ok()?.as_str().to_owned(),
        };
        Some(Self { host, port })
    }
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This host and port, and nothing that the public DNS says about it but its address.
    Host(HostPort),
    /// The mail exchangers of this domain (RFC 5321 §5.1).
    Exchangers(Domain),
}

/// Whom we believe to be the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Anybody.
    Any,
    /// Whoever has a certificate for the host's name, from an authority of the system.
    Name,
    /// Whoever has one of these keys: SHA-256 of the SubjectPublicKeyInfo, lower-case hex.
    Keys(Vec<Box<str>>),
}

/// An order to the shell.
#[derive(Debug)]
pub struct Call {
    /// Whose mail.
    pub lease: Lease,
    /// Which path.
    pub way: Way,
    /// Where to.
    pub place: Place,
    /// TLS or not.
    pub tls: EtrnTls,
    /// With whom.
    pub identity: Identity,
    /// Name and password, if the server wants a login of us; used under TLS only.
    pub login: Option<(String, Secret)>,
}

/// Why a call came to nothing. Its lease was handed back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// Try again later: what happened, in one line.
    Later(String),
    /// There is no way there, and there never will be: the domain takes no mail (RFC 7505), or does not exist.
    /// The words begin with an enhanced code.
    Never(String),
}

/// Who makes calls: the shell, or a test.
pub trait Caller: Send + Sync {
    /// Makes a call, to the end of its drain.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<LastDrain, CallError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let parse = |text| HostPort::parse(text).map(|place| (place.host, place.port));
        assert_eq!(parse("Mail.Example:25"), Some(("mail.example".into(), 25)));
        assert_eq!(parse("192.0.2.1:2525"), Some(("192.0.2.1".into(), 2525)));
        assert_eq!(parse("[2001:db8::1]:25"), Some(("2001:db8::1".into(), 25)));
        for bad in ["mail.example", "mail.example:0", ":25", "2001:db8::1:25x", "[x]:25", "a b:25"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
