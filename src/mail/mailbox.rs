//! Reverse-path and forward-path (RFC 5321 §4.1.2), kept byte for byte.
//!
//! The local part is nobody's business but the customer's: its case, its quoting and its sub-address stay as
//! they came (RFC 5321 §2.4). Only the domain is understood, and only for finding the queue.

use std::fmt;
use std::sync::Arc;

use super::domain::Domain;

/// Longest local part in octets (RFC 5321 §4.5.3.1.1).
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// Longest domain in octets, as written (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;
/// Longest path in octets, without the angle brackets. RFC 5321 §4.5.3.1.3 asks for 256 with them;
/// 64 + 1 + 255 must fit as well.
pub const PATH_BYTES_MAX: usize = 320;

/// Why a text is no mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// Not of the form of RFC 5321 §4.1.2.
    Syntax,
    /// Local part, domain or path over its limit.
    TooLong,
    /// UTF-8 although the transaction is not SMTPUTF8, or bytes that are not UTF-8 (RFC 6531 §3.3).
    NeedsUtf8,
    /// The domain is not one (see [`super::DomainError`]).
    Domain,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "not a valid address",
            Self::TooLong => "the address is too long",
            Self::NeedsUtf8 => "the address needs SMTPUTF8",
            Self::Domain => "the address has no valid domain",
        })
    }
}

impl std::error::Error for PathError {}

/// The sender of a message as the envelope has it: `<>` or a mailbox. Never rewritten (RFC 5321 §4.5.5).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ReversePath {
    /// `<>`: a report, which must never cause another report.
    #[default]
    Null,
    /// `local@domain` as received, without brackets and source route.
    Mailbox(Arc<str>),
}

impl ReversePath {
    /// Reads what stood between the angle brackets of MAIL FROM; empty means null. A source route is dropped
    /// (RFC 5321 §3.6.1). The domain may be any RFC 5321 domain or an address literal.
    ///
    /// # Errors
    /// [`PathError`] as for a forward-path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Ok(Self::Null);
        }
        let (local_end, mailbox) = split_mailbox(text)?;
        check_domain_or_literal(&mailbox[local_end + 1..])?;
        Ok(Self::Mailbox(mailbox.into()))
    }

    /// The mailbox, or the empty text for the null reverse-path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Mailbox(text) => text,
        }
    }

    /// Whether this is `<>`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The domain, where there is one that is not an address literal.
    #[must_use]
    pub fn domain(&self) -> Option<Domain> {
        let text = self.as_str();
        let at = text.rfind('@')?;
        Domain::parse(&text[at + 1..]).ok()
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One recipient's address: exactly as received (without brackets and source route), and the normal form of
/// its domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardPath {
    text: Arc<str>,
    local_end: usize,
    domain: Domain,
}

impl ForwardPath {
    /// Reads what stood between the angle brackets of RCPT TO. Address literals are refused: nobody's mail is
    /// held for an address. A source route is dropped (RFC 5321 §4.1.1.3). UTF-8 is accepted here; whether the
    /// transaction allows it is the session's question (see [`ForwardPath::is_ascii`]).
    ///
    /// # Errors
    /// [`PathError`] names the rule that is broken.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let (local_end, mailbox) = split_mailbox(text)?;
        let domain = Domain::parse(&mailbox[local_end + 1..]).map_err(|_| PathError::Domain)?;
        Ok(Self { text: mailbox.into(), local_end, domain })
    }

    /// The bare `<Postmaster>` of RFC 5321 §4.1.1.3, at home at `domain` (the provider's own name). It is
    /// passed on as `Postmaster@domain`.
    #[must_use]
    pub fn bare_postmaster(spelling: &str, domain: Domain) -> Self {
        let text = format!("{spelling}@{domain}");
        Self { local_end: spelling.len(), text: text.into(), domain }
    }

    /// `local@domain`, byte for byte as it came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part as it came, quotes included.
    #[must_use]
    pub fn local_part(&self) -> &str {
        &self.text[..self.local_end]
    }

    /// The domain in normal form: the key of the queue.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether every octet is ASCII, so that SMTPUTF8 is not needed for it (RFC 6531 §3.4).
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// Whether this is the postmaster of its domain, in any case (RFC 5321 §4.5.1).
    #[must_use]
    pub fn is_postmaster(&self) -> bool {
        self.local_part().eq_ignore_ascii_case("postmaster")
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Splits `[@route:]local@domain`; gives the index of the `@` that ends the local part within the mailbox, and
/// the mailbox without its route.
fn split_mailbox(text: &str) -> Result<(usize, &str), PathError> {
    let mailbox = strip_route(text)?;
    if mailbox.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    let local_end = local_part_end(mailbox)?;
    if mailbox.as_bytes().get(local_end) != Some(&b'@') {
        return Err(PathError::Syntax);
    }
    if local_end > LOCAL_PART_BYTES_MAX || mailbox.len() - local_end - 1 > DOMAIN_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    Ok((local_end, mailbox))
}

/// Drops `@a,@b:` after a look at its form.
fn strip_route(text: &str) -> Result<&str, PathError> {
    if !text.starts_with('@') {
        return Ok(text);
    }
    let (route, mailbox) = text.split_once(':').ok_or(PathError::Syntax)?;
    for hop in route.split(',') {
        let name = hop.strip_prefix('@').ok_or(PathError::Syntax)?;
        Domain::check(name).map_err(|_| PathError::Syntax)?;
    }
    Ok(mailbox)
}

/// The length of a Dot-string or Quoted-string at the start (RFC 5321 §4.1.2, with RFC 6531 §3.3's UTF-8).
/// Deviation: the control characters U+0080 to U+009F, among them a next-line, are refused; RFC 6531 lets them in.
fn local_part_end(text: &str) -> Result<usize, PathError> {
    let bytes = text.as_bytes();
    if text.chars().any(|c| ('\u{80}'..='\u{9f}').contains(&c)) {
        return Err(PathError::Syntax);
    }
    if bytes.first() == Some(&b'"') {
        return quoted_string_end(bytes);
    }
    let end = bytes.iter().position(|b| *b == b'@').ok_or(PathError::Syntax)?;
    let atoms_sound =
        text[..end].split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext));
    if atoms_sound { Ok(end) } else { Err(PathError::Syntax) }
}

fn quoted_string_end(bytes: &[u8]) -> Result<usize, PathError> {
    let mut at = 1;
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => match bytes.get(at + 1) {
                Some(32..=126) => at += 2,
                _ => return Err(PathError::Syntax),
            },
            Some(32..=126 | 128..=255) => at += 1,
            _ => return Err(PathError::Syntax),
        }
    }
}

/// Atext of RFC 5322 §3.2.3, and every octet of UTF-8 (RFC 6531 §3.3).
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte) || byte >= 128
}

fn check_domain_or_literal(text: &str) -> Result<(), PathError> {
    let Some(inner) = text.strip_prefix('[') else {
        return Domain::check(text).map_err(|_| PathError::Domain);
    };
    let literal = inner.strip_suffix(']').ok_or(PathError::Domain)?;
    let sound = match literal.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
            literal[5..].parse::<std::net::Ipv6Addr>().is_ok()
        }
        _ => literal.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    if sound { Ok(()) } else { Err(PathError::Domain) }
}

impl serde::Serialize for ReversePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for ReversePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for ForwardPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for ForwardPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_paths_keep_their_bytes() {
        for text in [
            "l@example.com",
            "U.Ser+tag@EXAMPLE.com",
            "\"a b\"@example.com",
            "\"a\\\"@b\"@example.com",
            "|cat@example.com",
            "${run{id}}@example.com",
            "u%relay@example.com",
            "jürgen@bücher.example",
        ] {
            assert_eq!(ForwardPath::parse(text).expect(text).as_str(), text);
        }
        let path = ForwardPath::parse("@hop.example,@two.example:u@D.example.").expect("valid");
        assert_eq!(path.as_str(), "u@D.example.");
        assert_eq!(path.domain().as_str(), "d.example");
    }

    #[test]
    fn forward_paths_that_are_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "u",
            "u@",
            "@example.com",
            "u@@example.com",
            "u@relay@example.com",
            "u@[127.0.0.1]",
            "u..v@example.com",
            ".u@example.com",
            "u v@example.com",
            "\"a\rb\"@example.com",
            "a\x1b[31m@example.com",
            "a\u{85}b@example.com",
            "\"a\u{9b}b\"@example.com",
            "\"a\nb\"@example.com",
            "\"a\0b\"@example.com",
            "\"open@example.com",
            "u@-x.example",
            &long_local,
        ] {
            assert!(ForwardPath::parse(text).is_err(), "{text:?}");
        }
        assert!(ForwardPath::parse(&format!("{}@example.com", "a".repeat(64))).is_ok());
    }

    #[test]
    fn reverse_paths() {
        assert!(ReversePath::parse("").expect("null").is_null());
        assert!(ReversePath::parse("t@[192.0.2.1]").is_ok());
        assert!(ReversePath::parse("t@[IPv6:2001:db8::1]").is_ok());
        assert!(ReversePath::parse("t@[300.0.0.1]").is_err());
        assert!(ReversePath::parse("t@localhost").is_ok());
        assert_eq!(
            ReversePath::parse("t@Foo.example")
                .expect("valid")
                .domain()
                .expect("a domain")
                .as_str(),
            "foo.example"
        );
    }

    #[test]
    fn postmaster_in_any_case() {
        assert!(ForwardPath::parse("PostMaster@x.example").expect("valid").is_postmaster());
        let home = Domain::parse("mx.provider.example").expect("valid");
        assert_eq!(
            ForwardPath::bare_postmaster("Postmaster", home).as_str(),
            "Postmaster@mx.provider.example"
        );
    }
}
