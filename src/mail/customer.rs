//! Customers: who collects, which domains are theirs, how they log in, and what they have set.

use std::fmt;
use std::sync::Arc;

use super::domain::Domain;
use super::moment::{Seconds, Timestamp};

/// A customer's name and login: 1 to 64 characters, `a-z 0-9 . _ -`, starting with a letter or digit; lower
/// case is the only form, so that two names never differ by case alone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct CustomerName(Arc<str>);

/// The customer's name is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CustomerNameError;

impl fmt::Display for CustomerNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a customer name has 1 to 64 characters of a-z 0-9 . _ - and starts with a letter or digit")
    }
}

impl std::error::Error for CustomerNameError {}

impl CustomerName {
    /// The name under which mail for the provider's own bare `<Postmaster>` waits (RFC 5321 §4.5.1). An
    /// operator may create a customer of this name to collect it.
    pub const POSTMASTER: &'static str = "postmaster";

    /// Reads a name.
    ///
    /// # Errors
    /// [`CustomerNameError`] if the text is not of the form above.
    pub fn parse(text: &str) -> Result<Self, CustomerNameError> {
        let sound = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
            && text.as_bytes()[0].is_ascii_alphanumeric();
        if sound { Ok(Self(text.into())) } else { Err(CustomerNameError) }
    }

    /// The reserved name [`CustomerName::POSTMASTER`].
    #[must_use]
    pub fn postmaster() -> Self {
        Self(Self::POSTMASTER.into())
    }

    /// The name under which reports to foreign addresses wait to be sent. A customer of this name would not see
    /// them, since they wait in queues of foreign domains.
    pub const RELAY: &'static str = "relay";

    /// The reserved name [`CustomerName::RELAY`].
    #[must_use]
    pub fn relay() -> Self {
        Self(Self::RELAY.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CustomerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CustomerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomerName({})", self.0)
    }
}

impl std::str::FromStr for CustomerName {
    type Err = CustomerNameError;
    fn from_str(text: &str) -> Result<Self, CustomerNameError> {
        Self::parse(text)
    }
}

impl<'de> serde::Deserialize<'de> for CustomerName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Everything about a customer but the mail. One record, changed as a whole against its revision.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Customer {
    /// The name, fixed for life.
    pub name: CustomerName,
    /// The domains; sorted, unique; each belongs to this customer only.
    pub domains: Vec<Domain>,
    /// Suspended: no login; mail is refused with 5.2.1.
    pub suspended: bool,
    /// The logins; labels are unique, the empty label is the customer's own name.
    pub credentials: Vec<Credential>,
    /// What differs from the defaults.
    pub settings: Settings,
    /// When it was created.
    pub created: Timestamp,
    /// Grows by one with each change; a change against an older revision is refused.
    pub revision: u64,
}

/// One login. It holds no password: what is stored proves knowledge of one (SCRAM), or can compute the one
/// answer that CRAM-MD5 wants.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Credential {
    /// `""` for the login `NAME`, else the label of `NAME/label`.
    pub label: Box<str>,
    /// For SCRAM-SHA-256 and PLAIN.
    pub scram: ScramVerifier,
    /// For CRAM-MD5.
    pub cram: CramContexts,
    /// When it was made.
    pub created: Timestamp,
}

/// What a server keeps for SCRAM-SHA-256 (RFC 5802 §3, RFC 7677).
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ScramVerifier {
    /// Random, 16 octets or more.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2-HMAC-SHA-256; 4096 or more.
    pub iterations: u32,
    /// SHA-256 of the client key.
    pub stored_key: [u8; 32],
    /// The server key.
    pub server_key: [u8; 32],
}

/// The two MD5 states after the padded key (RFC 2195 §2): `inner` after `key ^ ipad`, `outer` after
/// `key ^ opad`, 16 octets each. Not the password, but as good as one for CRAM-MD5 alone.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CramContexts {
    /// MD5 chaining value after `key ^ ipad`.
    pub inner: [u8; 16],
    /// MD5 chaining value after `key ^ opad`.
    pub outer: [u8; 16],
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramVerifier(…)")
    }
}

impl fmt::Debug for CramContexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CramContexts(…)")
    }
}

/// What a client called itself at AUTH: `NAME` or `NAME/label`.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Login {
    /// The customer.
    pub customer: CustomerName,
    /// The label; empty for the customer's own login.
    pub label: Box<str>,
}

impl Login {
    /// Reads a login name. The part after the first slash is the label.
    ///
    /// # Errors
    /// [`CustomerNameError`] if it could be nobody's.
    pub fn parse(text: &str) -> Result<Self, CustomerNameError> {
        let (name, label) = text.split_once('/').unwrap_or((text, ""));
        let sound = label.len() <= 64 && label.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if !sound || (label.is_empty() && text.contains('/')) {
            return Err(CustomerNameError);
        }
        Ok(Self { customer: CustomerName::parse(name)?, label: label.into() })
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.label.is_empty() {
            write!(f, "{}", self.customer)
        } else {
            write!(f, "{}/{}", self.customer, self.label)
        }
    }
}

/// Proof of a successful login; what the authenticated phases of a session hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// Who logged in, and with which credential.
    pub login: Login,
    /// The customer's domains at that time; the turn looks them up again.
    pub domains: Vec<Domain>,
    /// Whether ATRN needs TLS for this customer (setting `require-tls`).
    pub require_tls: bool,
}

/// The settings of section 4 of the interface; `None` means the default of the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// `host:port` where the ETRN path delivers, and nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etrn_host: Option<Box<str>>,
    /// Networks that ETRN may come from; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub etrn_from: Vec<Network>,
    /// TLS towards `etrn_host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etrn_tls: Option<EtrnTls>,
    /// ATRN only on an encrypted connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_tls: Option<bool>,
    /// `wait-for-mail` and `hold-open`.
    #[serde(flatten)]
    pub drain: Durations,
    /// How the customer's side of the reversed connection behaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_profile: Option<ClientProfile>,
    /// When undelivered mail is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_after: Option<Seconds>,
    /// Most octets held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// Most messages held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_messages: Option<u64>,
    /// Largest message taken for this customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_bytes_max: Option<u64>,
    /// Known forward-paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients: Option<RecipientPolicy>,
    /// What a 5yz from the customer's server means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reject_policy: Option<RejectPolicy>,
    /// SHA-256 of SubjectPublicKeyInfo, lower-case hex: keys that may log in by EXTERNAL.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificate: Vec<Box<str>>,
}

/// `[drain]` of the configuration, overridden by each customer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Durations {
    /// How long ATRN on empty queues may hold its reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_for_mail: Option<Seconds>,
    /// How long the reversed connection stays after the last message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_open: Option<Seconds>,
}

/// TLS on the ETRN path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EtrnTls {
    /// Never.
    None,
    /// If offered.
    #[default]
    Opportunistic,
    /// Or no mail.
    Required,
    /// With a certificate that names the host, or no mail.
    Verify,
}

/// How the customer's client carries the reversed connection (facts F-2 and F-3: fetchmail over TLS hangs when a
/// record holds more than one line).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientProfile {
    /// Learnt from how drains end.
    #[default]
    Auto,
    /// An ordinary SMTP server behind an ordinary stream.
    Standard,
    /// One SMTP line per TLS record, no pipelining, no BDAT.
    FetchmailTls,
}

/// Which forward-paths of the customer's domains exist.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipientPolicy {
    /// All of them.
    #[default]
    Any,
    /// Those listed: lower-case domain, local part as written; `@domain` means all of it.
    Listed(std::collections::BTreeSet<Box<str>>),
}

/// What a 5yz from the customer's server means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RejectPolicy {
    /// A failure, reported to the sender.
    #[default]
    Report,
    /// Keep the mail and try again until it expires.
    Retry,
}

/// A network in CIDR form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Network {
    address: std::net::IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Whether `address` lies in it; an IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr;
        let shift = |width: u32| width - u32::from(self.prefix_bits);
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(host)) => {
                let differing = u64::from(net.to_bits() ^ host.to_bits());
                differing >> shift(32) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(host)) => {
                self.prefix_bits == 0 || (net.to_bits() ^ host.to_bits()) >> shift(128) == 0
            }
            _ => false,
        }
    }
}

impl std::str::FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: std::net::IpAddr = address
            .parse()
            .map_err(|_| format!("`{text}` is not a network such as 192.0.2.0/24"))?;
        if address.is_ipv6() && address.to_canonical().is_ipv4() {
            return Err(format!("`{text}`: write an IPv4 network as IPv4"));
        }
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => width,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|bits| *bits <= width)
                .ok_or_else(|| format!("`{text}`: the prefix must be 0 to {width}"))?,
        };
        Ok(Self { address, prefix_bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl serde::Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_logins() {
        for good in ["demo", "acme-2", "a.b_c", "0"] {
            assert_eq!(CustomerName::parse(good).expect(good).as_str(), good);
        }
        for bad in ["", "Demo", "-a", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(CustomerName::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Login::parse("demo/office").expect("valid").to_string(), "demo/office");
        assert!(Login::parse("demo/").is_err() && Login::parse("demo/a/b").is_err());
    }

    #[test]
    fn networks() {
        let net: Network = "192.0.2.0/24".parse().expect("valid");
        assert!(net.contains("192.0.2.7".parse().expect("valid")));
        assert!(net.contains("::ffff:192.0.2.7".parse().expect("valid")));
        assert!(!net.contains("192.0.3.7".parse().expect("valid")));
        assert!(
            "::/0"
                .parse::<Network>()
                .expect("valid")
                .contains("2001:db8::1".parse().expect("valid"))
        );
        assert!(
            "0.0.0.0/0"
                .parse::<Network>()
                .expect("valid")
                .contains("203.0.113.1".parse().expect("valid"))
        );
        assert!("192.0.2.0/33".parse::<Network>().is_err() && "x".parse::<Network>().is_err());
    }
}
