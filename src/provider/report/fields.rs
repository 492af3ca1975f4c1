//! Values of report fields: decoded, cleaned, folded, so that nothing a peer said can break out of its field.
//!
//! Called by the notice. Pure. A line that begins with something a peer chose does not exist here: every value
//! stands behind its field name or behind the space of a folded line.
//!
//! Keeps RFC 3461 §4 (xtext), RFC 6533 §3 (UTF-8 addresses), RFC 5322 §2.1.1 and §2.2.3 (length, folding).

use crate::mail::Recipient;

/// Lines are folded before they grow longer than this, where there is a space to fold at.
const LINE_BYTES: usize = 76;
/// Longest piece of a word on a line.
const WORD_BYTES_MAX: usize = 900;

/// `+3D` back to `=` (RFC 3461 §4). `None` if it is no xtext, or hides something unprintable.
#[must_use]
pub(super) fn xtext_decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (String::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let byte = if *byte == b'+' {
            let digits = text.get(at + 1..at + 3)?;
            at += 2;
            u8::from_str_radix(digits, 16).ok()?
        } else {
            *byte
        };
        if !(32..=126).contains(&byte) {
            return None;
        }
        plain.push(char::from(byte));
        at += 1;
    }
    Some(plain)
}

/// A UTF-8 address in ASCII: `\x{FC}` for `ü` (RFC 6533 §3, utf-8-addr-xtext).
#[must_use]
pub(super) fn in_ascii(address: &str) -> String {
    let mut text = String::with_capacity(address.len());
    for c in address.chars() {
        if c.is_ascii_graphic() && !matches!(c, '+' | '=' | '\\') {
            text.push(c);
        } else {
            text.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
        }
    }
    text
}

/// Final-Recipient: `rfc822;…`, or `utf-8;…` in the form that the report allows.
#[must_use]
pub(super) fn final_recipient(recipient: &Recipient, is_global: bool) -> String {
    let address = recipient.forward_path.as_str();
    match (address.is_ascii(), is_global) {
        (true, _) => format!("rfc822; {address}"),
        (false, true) => format!("utf-8; {address}"),
        (false, false) => format!("utf-8; {}", in_ascii(address)),
    }
}

/// Original-Recipient, if ORCPT was given (RFC 3461 §6.3 b): type and decoded address.
#[must_use]
pub(super) fn original_recipient(recipient: &Recipient, is_global: bool) -> Option<String> {
    let orcpt = recipient.orcpt.as_deref()?;
    let (kind, address) = orcpt.split_once(';')?;
    if kind.eq_ignore_ascii_case("utf-8") {
        // Already in the form of RFC 6533, where `+` means itself; raw UTF-8 only where it can be carried.
        let address = if is_global || address.is_ascii() {
            address.to_owned()
        } else {
            address
                .chars()
                .map(|c| if c.is_ascii() { c.into() } else { in_ascii(c.encode_utf8(&mut [0; 4])) })
                .collect()
        };
        return Some(format!("utf-8; {}", clean(&address, is_global)));
    }
    let address = xtext_decoded(address).unwrap_or_else(|| address.to_owned());
    Some(clean(&format!("{kind}; {address}"), false))
}

/// One line of printable characters.
#[must_use]
pub(super) fn clean(text: &str, is_global: bool) -> String {
    let sound = |c: char| {
        c.is_ascii_graphic() || c == ' ' || (is_global && !c.is_ascii() && !c.is_control())
    };
    text.chars().map(|c| if sound(c) { c } else { '?' }).collect()
}

/// A name fit for `Remote-MTA: dns; …`: what the server called itself, if that looks like a name at all.
#[must_use]
pub(super) fn dns_name(text: &str) -> Option<&str> {
    let name = text.split_ascii_whitespace().next()?;
    let sound = name.len() <= 255
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
        && name.bytes().any(|b| b.is_ascii_alphanumeric());
    sound.then_some(name)
}

/// Status and, for what a server said, the diagnostic text. A reply begins with its code; our own words begin
/// with an enhanced code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Diagnosis {
    /// `5.1.1` (RFC 3463 §2).
    pub(super) status: String,
    /// The server's whole reply; `None` if it was we who gave up.
    pub(super) reply: Option<String>,
    /// For people: the reply, or our own words without the code.
    pub(super) words: String,
}

impl Diagnosis {
    /// Reads what the store kept; `class` is the digit that the status must have (RFC 3461 §6.3 g: derived when
    /// the server gave none).
    #[must_use]
    pub(super) fn read(text: &str, class: char) -> Self {
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        if first.len() == 3 && first.bytes().all(|b| b.is_ascii_digit()) {
            let given = rest.split(' ').next().filter(|code| is_enhanced(code, class));
            let status = given.map_or_else(|| format!("{class}.0.0"), str::to_owned);
            return Self { status, reply: Some(text.to_owned()), words: text.to_owned() };
        }
        if is_enhanced(first, class) {
            return Self { status: first.to_owned(), reply: None, words: rest.to_owned() };
        }
        Self { status: format!("{class}.0.0"), reply: None, words: text.to_owned() }
    }
}

/// `class.subject.detail` with one to three digits each (RFC 3463 §2).
fn is_enhanced(text: &str, class: char) -> bool {
    let mut parts = text.split('.');
    let number = |part: Option<&str>| {
        part.is_some_and(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
    };
    parts.next() == Some(class.encode_utf8(&mut [0; 4]))
        && number(parts.next())
        && number(parts.next())
        && parts.next().is_none()
}

/// A word that no line could hold (RFC 5322 §2.1.1: 998 octets), in pieces that one can.
pub(super) fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let mut end = rest.len().min(WORD_BYTES_MAX);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, more) = rest.split_at(end);
        rest = more;
        (!piece.is_empty()).then_some(piece)
    })
}

/// `Name: value` with CRLF, folded at spaces. `value` must be one clean line.
#[must_use]
pub(super) fn field(name: &str, value: &str) -> String {
    let mut text = format!("{name}:");
    let mut width = text.len();
    let words = value.split(' ').filter(|word| !word.is_empty());
    for word in words.flat_map(pieces) {
        if width + 1 + word.len() > LINE_BYTES && width > name.len() + 1 {
            text.push_str("\r\n");
            width = 0;
        }
        text.push(' ');
        text.push_str(word);
        width += 1 + word.len();
    }
    text.push_str("\r\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::ForwardPath;

    fn recipient(address: &str, orcpt: Option<&str>) -> Recipient {
        Recipient {
            forward_path: ForwardPath::parse(address).expect("valid"),
            notify: None,
            orcpt: orcpt.map(Into::into),
        }
    }

    #[test]
    fn xtext() {
        assert_eq!(xtext_decoded("QQ314159").as_deref(), Some("QQ314159"));
        assert_eq!(xtext_decoded("a+2Bb+3Dc").as_deref(), Some("a+b=c"));
        for bad in ["+", "+4", "+ZZ", "a+0D+0AX", "+E9"] {
            assert_eq!(xtext_decoded(bad), None, "{bad}");
        }
    }

    #[test]
    fn recipients_in_both_forms() {
        let plain = recipient("U.Ser@example.com", Some("rfc822;a+2Bb@example.org"));
        assert_eq!(final_recipient(&plain, false), "rfc822; U.Ser@example.com");
        assert_eq!(original_recipient(&plain, false).as_deref(), Some("rfc822; a+b@example.org"));
        assert_eq!(original_recipient(&recipient("a@example.com", None), false), None);
        let utf8 = recipient("jürgen@example.com", Some("utf-8;j\\x{FC}rgen@example.com"));
        assert_eq!(final_recipient(&utf8, false), "utf-8; j\\x{FC}rgen@example.com");
        assert_eq!(final_recipient(&utf8, true), "utf-8; jürgen@example.com");
        assert_eq!(
            original_recipient(&utf8, false).as_deref(),
            Some("utf-8; j\\x{FC}rgen@example.com")
        );
        let raw = recipient("a@example.com", Some("utf-8;jürgen@example.com"));
        assert_eq!(
            original_recipient(&raw, false).as_deref(),
            Some("utf-8; j\\x{FC}rgen@example.com")
        );
        assert_eq!(original_recipient(&raw, true).as_deref(), Some("utf-8; jürgen@example.com"));
        let hostile = recipient("a@example.com", Some("rfc822;x+0D+0ABcc:+20y"));
        assert_eq!(
            original_recipient(&hostile, false).as_deref(),
            Some("rfc822; x+0D+0ABcc:+20y"),
            "what does not decode to printable text stays encoded"
        );
    }

    #[test]
    fn diagnoses() {
        for (text, status, reply) in [
            ("550 5.1.1 no such user", "5.1.1", true),
            ("550 no such user", "5.0.0", true),
            ("550 4.1.1 class of another colour", "5.0.0", true),
            ("554", "5.0.0", true),
            ("550 5.1.1.1 too long", "5.0.0", true),
            ("5.4.7 not collected", "5.4.7", false),
            ("odd", "5.0.0", false),
        ] {
            let read = Diagnosis::read(text, '5');
            assert_eq!((read.status.as_str(), read.reply.is_some()), (status, reply), "{text}");
        }
        assert_eq!(Diagnosis::read("5.4.7 not collected", '5').words, "not collected");
        assert_eq!(Diagnosis::read("250 ok", '2').status, "2.0.0");
    }

    #[test]
    fn folding_never_starts_a_line_with_a_value() {
        let long = format!("smtp; 550 {}", "--boundary ".repeat(60));
        let text = field("Diagnostic-Code", &long);
        let mut lines = text.strip_suffix("\r\n").expect("ends").split("\r\n");
        assert!(lines.next().expect("one").starts_with("Diagnostic-Code: smtp; 550 --boundary"));
        assert!(lines.all(|line| line.starts_with(' ') && line.len() <= LINE_BYTES));
        let unbroken = field("X", &"a".repeat(600));
        assert_eq!(unbroken.matches("\r\n").count(), 1);
        let endless = field("X", &"a".repeat(2000));
        assert!(endless.split("\r\n").all(|line| line.len() <= 998), "{endless}");
        assert_eq!(endless.matches('a').count(), 2000);
    }

    #[test]
    fn names_of_servers() {
        assert_eq!(dns_name("mx.example.org ESMTP ready"), Some("mx.example.org"));
        for odd in ["", "***", "a(b", "ü.example", "\x1b[2J"] {
            assert_eq!(dns_name(odd), None, "{odd:?}");
        }
    }
}
