//! Domain names in one normal form: lower-case A-labels without a trailing dot.
//!
//! Two spellings of one domain are equal here and nowhere else: U-label and A-label, upper and lower case,
//! with and without the final dot (RFC 5321 §2.3.5, RFC 5890 §2.3). Everything that compares, indexes or
//! stores a domain uses [`Domain`].

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A domain name in normal form: ASCII, lower case, letters, digits and hyphens, no trailing dot,
/// at most 253 octets, every label 1 to 63 octets. One label is allowed; ask [`Domain::has_two_labels`]
/// where RFC 2645 §5.2.1 wants more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Arc<str>);

/// Why a text is no domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainError {
    /// Nothing, or nothing but a dot.
    Empty,
    /// Longer than 255 octets, or a label longer than 63 (RFC 5321 §4.5.3.1.2, RFC 1035 §2.3.4).
    TooLong,
    /// A label that is empty, starts or ends with a hyphen, or holds something else than letters,
    /// digits and hyphens (RFC 5321 §4.1.2).
    Label,
    /// An internationalised label that no registry could hold: invalid Punycode, a Punycode form of plain
    /// ASCII, or a code point that IDNA does not permit (RFC 5891 §4.2, UTS #46).
    Idna,
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the domain is empty",
            Self::TooLong => "the domain or one of its labels is too long",
            Self::Label => "a label must be letters, digits and inner hyphens",
            Self::Idna => "the domain is not a valid internationalised name",
        })
    }
}

impl std::error::Error for DomainError {}

impl Domain {
    /// Reads a domain in any spelling: A-labels or U-labels, any case, one trailing dot.
    ///
    /// # Errors
    /// [`DomainError`] says what is wrong; nothing is ever cut or repaired.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        let ascii = checked(text)?;
        let is_normal = !ascii.bytes().any(|octet| octet.is_ascii_uppercase());
        Ok(Self(if is_normal { ascii.into() } else { ascii.to_ascii_lowercase().into() }))
    }

    /// Looks whether [`Domain::parse`] would take it.
    ///
    /// # Errors
    /// [`DomainError`] as there.
    pub fn check(text: &str) -> Result<(), DomainError> {
        checked(text).map(|_| ())
    }

    /// The normal form: lower-case A-labels, no trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name has at least two labels, as a domain in ATRN must (RFC 2645 §5.2.1).
    #[must_use]
    pub fn has_two_labels(&self) -> bool {
        self.0.contains('.')
    }

    /// Whether `self` is `above` or lies below it: `a.b.example` is within `b.example` (RFC 1985 §5.3).
    #[must_use]
    pub fn is_within(&self, above: &Domain) -> bool {
        match self.0.strip_suffix(above.as_str()) {
            Some("") => true,
            Some(rest) => rest.ends_with('.'),
            None => false,
        }
    }
}

/// The A-labels in any case, without the dot at the end.
fn checked(text: &str) -> Result<Cow<'_, str>, DomainError> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err(DomainError::Empty);
    }
    if text.len() > 1024 {
        return Err(DomainError::TooLong);
    }
    let plain = text.is_ascii() && !has_a_label(text);
    let ascii = if plain { Cow::Borrowed(text) } else { Cow::Owned(to_a_labels(text)?) };
    check_labels(&ascii)?;
    Ok(ascii)
}

/// Whether any label starts with `xn--`, in any case.
fn has_a_label(text: &str) -> bool {
    text.split('.')
        .any(|label| label.len() >= 4 && label.as_bytes()[..4].eq_ignore_ascii_case(b"xn--"))
}

/// UTS #46 with the checks that close the look-alike holes: an A-label that decodes to plain ASCII, or that
/// would not encode to itself again, is refused (the class of CVE-2024-12224).
fn to_a_labels(text: &str) -> Result<String, DomainError> {
    let ascii = idna::domain_to_ascii_strict(text).map_err(|_| DomainError::Idna)?;
    let (unicode, valid) = idna::domain_to_unicode(&ascii);
    if valid.is_err() {
        return Err(DomainError::Idna);
    }
    let again = idna::domain_to_ascii_strict(&unicode).map_err(|_| DomainError::Idna)?;
    let honest =
        ascii.split('.').zip(unicode.split('.')).all(|(a, u)| !has_a_label(a) || !u.is_ascii());
    if again == ascii && honest && !text.split('.').any(str::is_empty) {
        Ok(ascii)
    } else {
        Err(DomainError::Idna)
    }
}

fn check_labels(ascii: &str) -> Result<(), DomainError> {
    if ascii.len() > 253 {
        return Err(DomainError::TooLong);
    }
    for label in ascii.split('.') {
        let bytes = label.as_bytes();
        if bytes.len() > 63 {
            return Err(DomainError::TooLong);
        }
        let inner = bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        let edges = bytes.first().zip(bytes.last()).is_some_and(|(f, l)| *f != b'-' && *l != b'-');
        if !inner || !edges {
            return Err(DomainError::Label);
        }
    }
    Ok(())
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.0)
    }
}

impl std::str::FromStr for Domain {
    type Err = DomainError;
    fn from_str(text: &str) -> Result<Self, DomainError> {
        Self::parse(text)
    }
}

impl serde::Serialize for Domain {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Domain {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> Result<String, DomainError> {
        Domain::parse(text).map(|d| d.as_str().to_owned())
    }

    #[test]
    fn spellings_of_one_domain_are_equal() {
        for text in ["example.org", "EXAMPLE.Org", "example.org."] {
            assert_eq!(normal(text).as_deref(), Ok("example.org"));
        }
        for text in
            ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "XN--bcher-kva.example"]
        {
            assert_eq!(normal(text).as_deref(), Ok("xn--bcher-kva.example"), "{text}");
        }
    }

    #[test]
    fn look_alikes_are_refused() {
        for text in ["xn--example-.org", "example.org.xn--", "xn--a.example", "xn--.example"] {
            assert!(Domain::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn grammar_edges_are_refused() {
        let long = format!("{}.example", "a".repeat(64));
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.b..",
            "-a.example",
            "a-.example",
            "a_b.example",
            "[127.0.0.1]",
            "a b.example",
            "a\0b.example",
            "*",
            "@example.org",
            "#q",
            "x:25",
            &long,
        ] {
            assert!(Domain::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn within_stops_at_label_borders() {
        let above = Domain::parse("b.example").expect("valid");
        for (name, yes) in
            [("b.example", true), ("a.b.example", true), ("ab.example", false), ("example", false)]
        {
            assert_eq!(Domain::parse(name).expect("valid").is_within(&above), yes, "{name}");
        }
    }
}
