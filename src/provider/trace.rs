//! The one Received line that a provider puts on top of a message (RFC 5321 §4.4).
//!
//! Called by the intake when a body is opened. Everything a peer said is reduced to safe tokens first, so that no
//! line can be injected; the FOR clause stands only where there is a single recipient, so that no customer learns
//! of another.

use std::net::IpAddr;

use crate::mail::{Domain, QueueId, Timestamp, TlsFacts};
use crate::smtp::ContentRequest;

/// What the line is made of, besides the request.
#[derive(Debug)]
pub(super) struct Trace<'a> {
    /// Our name.
    pub(super) hostname: &'a Domain,
    /// The peer.
    pub(super) peer: IpAddr,
    /// TLS of the connection, if any.
    pub(super) tls: Option<&'a TlsFacts>,
    /// The message's id.
    pub(super) id: QueueId,
    /// When it came.
    pub(super) now: Timestamp,
}

impl Trace<'_> {
    /// The folded header field with its CRLFs. No line is longer than 998 octets.
    #[must_use]
    pub(super) fn received(&self, request: &ContentRequest) -> String {
        let helo = safe_helo(&request.helo);
        let literal = match self.peer.to_canonical() {
            IpAddr::V4(four) => format!("[{four}]"),
            IpAddr::V6(six) => format!("[IPv6:{six}]"),
        };
        let tls = self.tls.map_or_else(String::new, |facts| {
            format!("\r\n\t({} {})", safe_token(&facts.version), safe_token(&facts.cipher))
        });
        let recipient = request
            .only_recipient
            .as_ref()
            .map_or_else(String::new, |path| format!("\r\n\tfor <{path}>"));
        format!(
            "Received: from {helo} ({literal})\r\n\tby {} (Restante) with {}{tls}\r\n\tid {}{recipient};\r\n\t{}\r\n",
            self.hostname,
            protocol(request, self.tls.is_some()),
            self.id,
            self.now.rfc5322(),
        )
    }
}

/// The `with` keyword (RFC 3848, RFC 6531 §4.3).
fn protocol(request: &ContentRequest, is_tls: bool) -> &'static str {
    match (request.is_esmtp, request.smtputf8, is_tls) {
        (_, true, false) => "UTF8SMTP",
        (_, true, true) => "UTF8SMTPS",
        (true, false, false) => "ESMTP",
        (true, false, true) => "ESMTPS",
        (false, false, _) => "SMTP",
    }
}

/// The EHLO name if it looks like a name or an address literal, else a word that says it did not.
fn safe_helo(helo: &str) -> &str {
    let sound = !helo.is_empty()
        && helo.len() <= 255
        && helo.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
    if sound { helo } else { "invalid.name" }
}

fn safe_token(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::ForwardPath;

    fn line(helo: &str, recipient: Option<&str>, tls: bool) -> String {
        let facts = TlsFacts {
            version: "TLSv1.3".into(),
            cipher: "TLS13_AES_256_GCM_SHA384".into(),
            ..TlsFacts::default()
        };
        let hostname = Domain::parse("mx.provider.example").expect("valid");
        let request = ContentRequest {
            helo: helo.into(),
            is_esmtp: true,
            smtputf8: false,
            only_recipient: recipient.map(|text| ForwardPath::parse(text).expect("valid")),
            declared_size: 0,
        };
        Trace {
            hostname: &hostname,
            peer: "2001:db8::1".parse().expect("valid"),
            tls: tls.then_some(&facts),
            id: QueueId::from_bits(1),
            now: Timestamp(0),
        }
        .received(&request)
    }

    #[test]
    fn the_line_names_all_that_is_known() {
        assert_eq!(
            line("client.example", Some("l@example.com"), true),
            "Received: from client.example ([IPv6:2001:db8::1])\r\n\
             \tby mx.provider.example (Restante) with ESMTPS\r\n\
             \t(TLSv1.3 TLS13_AES_256_GCM_SHA384)\r\n\
             \tid 00000000000000000000000001\r\n\
             \tfor <l@example.com>;\r\n\
             \tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
        assert!(!line("client.example", None, false).contains("for "));
    }

    #[test]
    fn nothing_can_be_injected() {
        for helo in ["a\x1b[2J", "x) Bcc: y", "a\r\nBcc: y", "\u{202e}a", "", &"a".repeat(480)] {
            let line = line(helo, None, false);
            assert!(line.starts_with("Received: from invalid.name ("), "{line}");
            assert_eq!(line.matches("\r\n").count(), 4);
        }
    }
}
