//! The arguments of MAIL and RCPT: paths and parameters.
//!
//! Called by the session's `check`s; it refuses or gives typed values, and knows no state.
//!
//! Keeps RFC 5321 §4.1.1.2, §4.1.1.3, §4.1.1.11, §4.1.2; RFC 1870 §6, 6152 §2, 6531 §3.4, 3461 §4, 6533 §3, 4954 §5.
//!
//! Deviation: a space after the colon is read (the sample session of RFC 2645 §6 writes one, and so do old
//! clients), though RFC 5321 §3.3 forbids it.

use super::MailParameters;
use super::refusal::Refusal;
use crate::mail::{BodyKind, Domain, ForwardPath, Notify, PathError, Recipient, Ret, ReversePath};

/// Longest ENVID (RFC 3461 §4.4).
const ENVID_BYTES_MAX: usize = 100;
/// Longest ORCPT (RFC 3461 §4.2).
const ORCPT_BYTES_MAX: usize = 500;
/// Longest value of AUTH= that is read (RFC 4954 §4 adds 500 octets to MAIL).
const AUTH_BYTES_MAX: usize = 500;

/// MAIL as written, with what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Who.
    pub reverse_path: ReversePath,
    /// With what.
    pub parameters: MailParameters,
    /// A space stood after the colon.
    pub has_space: bool,
}

/// Reads what follows `MAIL`. `is_esmtp`: EHLO was said, so parameters may stand.
///
/// # Errors
/// Why it is no MAIL command.
pub fn mail(argument: &str, is_esmtp: bool) -> Result<Mail, Refusal> {
    let (path, rest, has_space) = split_path(argument, "FROM:")?;
    let mut seen = Seen::default();
    let mut parameters = MailParameters::default();
    for (name, value) in words(rest, is_esmtp)? {
        mail_parameter(&mut parameters, seen.first(name)?, value)?;
    }
    if !path.is_ascii() && !parameters.smtputf8 {
        return Err(Refusal::SenderNeedsSmtpUtf8);
    }
    let reverse_path = ReversePath::parse(path).map_err(|_| Refusal::BadReversePath)?;
    Ok(Mail { reverse_path, parameters, has_space })
}

fn mail_parameter(
    parameters: &mut MailParameters,
    name: &str,
    value: Option<&str>,
) -> Result<(), Refusal> {
    let bad = Refusal::BadParameter;
    match (name, value) {
        ("SIZE", Some(digits)) => parameters.size = size(digits)?,
        ("BODY", Some(kind)) if kind.eq_ignore_ascii_case("7BIT") => {
            parameters.body = BodyKind::SevenBit;
        }
        ("BODY", Some(kind)) if kind.eq_ignore_ascii_case("8BITMIME") => {
            parameters.body = BodyKind::EightBitMime;
        }
        ("SMTPUTF8", None) => parameters.smtputf8 = true,
        ("RET", Some(what)) if what.eq_ignore_ascii_case("FULL") => {
            parameters.dsn.ret = Some(Ret::Full);
        }
        ("RET", Some(what)) if what.eq_ignore_ascii_case("HDRS") => {
            parameters.dsn.ret = Some(Ret::Headers);
        }
        ("ENVID", Some(id)) if is_xtext(id, ENVID_BYTES_MAX) => {
            parameters.dsn.envid = Some(id.into());
        }
        // RFC 4954 §5: said by senders that trust us to believe it. We do not; it is read and forgotten.
        ("AUTH", Some(who)) if who == "<>" || is_xtext(who, AUTH_BYTES_MAX) => {}
        ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH", _) => return Err(bad),
        _ => return Err(Refusal::UnknownParameter),
    }
    Ok(())
}

/// SIZE=: 1 to 20 digits (RFC 1870 §6); what no u64 holds is too big for anybody.
fn size(digits: &str) -> Result<u64, Refusal> {
    if digits.is_empty() || digits.len() > 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::BadParameter);
    }
    digits.parse().map_err(|_| Refusal::TooBig)
}

/// Reads what follows `RCPT`. A bare `<Postmaster>` is at home at `home` (RFC 5321 §4.1.1.3).
///
/// # Errors
/// Why it is no RCPT command.
pub fn rcpt(
    argument: &str,
    is_esmtp: bool,
    smtputf8: bool,
    home: &Domain,
) -> Result<(Recipient, bool), Refusal> {
    let (path, rest, has_space) = split_path(argument, "TO:")?;
    let mut seen = Seen::default();
    let (mut notify, mut orcpt) = (None, None);
    for (name, value) in words(rest, is_esmtp)? {
        match (seen.first(name)?, value) {
            ("NOTIFY", Some(value)) => {
                notify = Some(self::notify(value).ok_or(Refusal::BadParameter)?);
            }
            ("ORCPT", Some(value)) if is_orcpt(value, smtputf8) => orcpt = Some(value.into()),
            ("NOTIFY" | "ORCPT", _) => return Err(Refusal::BadParameter),
            _ => return Err(Refusal::UnknownParameter),
        }
    }
    if !path.is_ascii() && !smtputf8 {
        return Err(Refusal::NeedsSmtpUtf8);
    }
    let forward_path = if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::bare_postmaster(path, home.clone())
    } else {
        ForwardPath::parse(path).map_err(|error| match error {
            PathError::NeedsUtf8 => Refusal::NeedsSmtpUtf8,
            _ => Refusal::BadAddress,
        })?
    };
    Ok((Recipient { forward_path, notify, orcpt }, has_space))
}

/// `KEYWORD:<path> rest`: the path without its brackets, the rest, and whether a space stood after the colon.
fn split_path<'a>(argument: &'a str, keyword: &str) -> Result<(&'a str, &'a str, bool), Refusal> {
    let head = argument.get(..keyword.len()).ok_or(Refusal::Syntax)?;
    if !head.eq_ignore_ascii_case(keyword) {
        return Err(Refusal::Syntax);
    }
    let after = &argument[keyword.len()..];
    let open = after.trim_start_matches(' ');
    let inner = open.strip_prefix('<').ok_or(Refusal::Syntax)?;
    let end = closing_bracket(inner).ok_or(Refusal::Syntax)?;
    let rest = &inner[end + 1..];
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(Refusal::Syntax);
    }
    Ok((&inner[..end], rest, open.len() < after.len()))
}

/// The `>` that ends a path; one inside a quoted local part does not.
fn closing_bracket(inner: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, octet) in inner.bytes().enumerate() {
        match octet {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'>' if !is_quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// The parameters, name and value. After HELO there are none (RFC 5321 §4.1.1.11).
fn words(rest: &str, is_esmtp: bool) -> Result<Vec<(&str, Option<&str>)>, Refusal> {
    let words: Vec<_> = rest
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(|word| match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        })
        .collect();
    if !words.is_empty() && !is_esmtp { Err(Refusal::UnknownParameter) } else { Ok(words) }
}

/// The names of parameters so far, in upper case; each may come once.
#[derive(Default)]
struct Seen(Vec<&'static str>);

/// All parameters that we know.
const NAMES: [&str; 8] = ["SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH", "NOTIFY", "ORCPT"];

impl Seen {
    fn first(&mut self, name: &str) -> Result<&'static str, Refusal> {
        let known = NAMES.iter().find(|known| known.eq_ignore_ascii_case(name));
        let name = known.copied().ok_or(Refusal::UnknownParameter)?;
        if self.0.contains(&name) {
            return Err(Refusal::BadParameter);
        }
        self.0.push(name);
        Ok(name)
    }
}

/// NOTIFY= (RFC 3461 §4.1): NEVER alone, or a list of the others.
fn notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::default());
    }
    let mut notify = Notify::default();
    for word in value.split(',') {
        let flag = match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => &mut notify.success,
            "FAILURE" => &mut notify.failure,
            "DELAY" => &mut notify.delay,
            _ => return None,
        };
        if std::mem::replace(flag, true) {
            return None;
        }
    }
    Some(notify)
}

/// ORCPT= (RFC 3461 §4.2, RFC 6533 §3): `type;address`. UTF-8 as it is only with the type `utf-8` and SMTPUTF8.
fn is_orcpt(value: &str, smtputf8: bool) -> bool {
    let Some((kind, address)) = value.split_once(';') else { return false };
    let is_atom = !kind.is_empty()
        && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*-/?^_`{|}~.".contains(&b));
    if !is_atom || value.len() > ORCPT_BYTES_MAX {
        return false;
    }
    if kind.eq_ignore_ascii_case("utf-8") {
        // utf-8-addr-xtext and utf-8-addr-unitext: printable, `\x{…}` is printable as well. C1 controls are refused as
        // they are in addresses.
        let sound = address.chars().all(|c| c > ' ' && !c.is_control() && c != '+' && c != '=');
        return !address.is_empty() && sound && (smtputf8 || address.is_ascii());
    }
    is_xtext(address, ORCPT_BYTES_MAX)
}

/// Xtext (RFC 3461 §4) that decodes to printable text, so that no line end is ever hidden in it.
fn is_xtext(value: &str, bytes_max: usize) -> bool {
    let bytes = value.as_bytes();
    let mut at = 0;
    while let Some(&octet) = bytes.get(at) {
        match octet {
            b'+' => {
                let decoded = bytes.get(at + 1..at + 3).and_then(hex_pair);
                if !decoded.is_some_and(|octet| (32..=126).contains(&octet)) {
                    return false;
                }
                at += 3;
            }
            b'=' => return false,
            33..=126 => at += 1,
            _ => return false,
        }
    }
    (1..=bytes_max).contains(&bytes.len())
}

/// Two upper-case hexadecimal digits.
fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |octet: u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    };
    Some(digit(pair[0])? << 4 | digit(pair[1])?)
}

#[cfg(test)]
mod tests;
