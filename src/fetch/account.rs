//! One account at one provider: everything that a call needs to know.
//!
//! Made from the command line, the TOML file, or by a program that uses the library. It opens nothing.

use std::fmt;
use std::time::Duration;

use crate::mail::{Domain, Seconds, Secret};
use crate::net::tls::{Identity, Trust};
use crate::smtp::caller::{Encryption, Orders};
use crate::smtp::sasl::client::Keys;

use super::target::Target;

/// The port of RFC 2645 §4.
pub(super) const ODMR_PORT: u16 = 366;

/// An account, ready to be called.
#[derive(Clone, Debug)]
pub struct Account {
    /// A name for people: in lines and JSON.
    pub name: String,
    /// The provider's host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub encryption: Encryption,
    /// How the provider's certificate is judged.
    pub trust: Trust,
    /// Our certificate, for EXTERNAL.
    pub identity: Option<Identity>,
    /// The login name.
    pub login: String,
    /// The password; none with EXTERNAL.
    pub secret: Option<Secret>,
    /// Allowed mechanisms, from [`crate::smtp::MECHANISMS`].
    pub mechanisms: Vec<&'static str>,
    /// The domains of ATRN; none: all.
    pub domains: Vec<Domain>,
    /// Our name in EHLO.
    pub hello: String,
    /// Where the mail goes.
    pub target: Target,
    /// Patience for the reply to ATRN; at least ten minutes are given (RFC 2645 §5.2.1).
    pub turn_patience: Seconds,
    /// Negotiate up to ATRN, then leave.
    pub dry_run: bool,
    /// How long a message under way may take to finish once a stop was ordered.
    pub stop_patience: Duration,
    /// A connection to the target that has been idle for longer is opened anew before mail goes through it:
    /// servers drop idle clients after five minutes, and the reply to ATRN may take longer.
    pub reopen_after: Duration,
}

/// Why a text is no provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountError(pub(super) String);

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AccountError {}

impl Account {
    /// An account with the safe defaults: STARTTLS with a certificate that the system's authorities vouch for, every
    /// mechanism, all domains. `provider` is `host`, `host:port` or `[address]:port`.
    ///
    /// # Errors
    /// [`AccountError`] if `provider` is none of these forms.
    pub fn new(
        provider: &str,
        login: &str,
        secret: Option<Secret>,
        target: Target,
    ) -> Result<Self, AccountError> {
        let (host, port) = split_host(provider).ok_or_else(|| {
            AccountError(format!(
                "provider \"{provider}\": expected host, host:port or [addr]:port"
            ))
        })?;
        Ok(Self {
            name: format!("{login}@{host}"),
            host,
            port: port.unwrap_or(ODMR_PORT),
            encryption: Encryption::StartTls,
            trust: Trust::System,
            identity: None,
            login: login.to_owned(),
            secret,
            mechanisms: crate::smtp::MECHANISMS.to_vec(),
            domains: Vec::new(),
            hello: own_name(),
            target,
            turn_patience: Seconds(30 * 60),
            dry_run: false,
            stop_patience: Duration::from_secs(20),
            reopen_after: Duration::from_secs(60),
        })
    }

    pub(super) fn orders(&self, nonce: [u8; 24]) -> Orders {
        Orders {
            hello: self.hello.clone(),
            domains: self.domains.clone(),
            encryption: self.encryption,
            keys: Keys {
                login: self.login.clone(),
                secret: self.secret.clone(),
                has_certificate: self.identity.is_some(),
            },
            mechanisms: self.mechanisms.clone(),
            nonce,
            turn_patience: self.turn_patience,
        }
    }
}

/// `host`, `host:port`, `[address]`, `[address]:port`; an IPv6 address without brackets and port as well.
pub(super) fn split_host(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, behind) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, if behind.is_empty() { None } else { Some(behind.strip_prefix(':')?) })
        }
        None if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(is_name) {
        return None;
    }
    let port = match port {
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port != 0)?),
        None => None,
    };
    Some((host.to_owned(), port))
}

/// The machine's name, if it is one that EHLO may carry, else the address literal of the loopback (RFC 5321
/// §4.1.4 wants a literal where there is no name).
fn own_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    match Domain::parse(&name) {
        Ok(domain) => domain.as_str().to_owned(),
        Err(_) => "[127.0.0.1]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_in_every_spelling() {
        let split = |text| split_host(text);
        assert_eq!(split("mx.example"), Some(("mx.example".into(), None)));
        assert_eq!(split("mx.example:366"), Some(("mx.example".into(), Some(366))));
        assert_eq!(split("[::1]:366"), Some(("::1".into(), Some(366))));
        assert_eq!(split("[::1]"), Some(("::1".into(), None)));
        assert_eq!(split("::1"), Some(("::1".into(), None)));
        assert_eq!(split("127.0.0.1:1"), Some(("127.0.0.1".into(), Some(1))));
        for bad in
            ["", ":366", "a:", "a:0", "a:70000", "a b", "[::1", "[x]:1", "[::1]1", "a/b", "a\r"]
        {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
