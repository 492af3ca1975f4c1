//! The target's reply to EHLO as the provider is to see it.
//!
//! Used by the bridge. It takes away what cannot work through it and adds what LMTP needs; all else stays.

use super::Dialect;
use crate::smtp::sender::PeerReply;

/// The reply without STARTTLS, if that is to be hidden (RFC 3207 §4.2), and for LMTP with the limit of one
/// recipient a transaction (RFC 9422).
pub(super) fn shown(reply: &PeerReply, dialect: Dialect, hides_starttls: bool) -> PeerReply {
    let mut lines: Vec<&str> = Vec::new();
    let mut limits = String::from("LIMITS RCPTMAX=1");
    for (number, line) in reply.lines().enumerate() {
        let mut words = line.split_ascii_whitespace();
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        if number == 0 {
            lines.push(line);
        } else if keyword == "STARTTLS" && (hides_starttls || dialect == Dialect::Lmtp) {
            // Hidden.
        } else if keyword == "LIMITS" && dialect == Dialect::Lmtp {
            for word in words.filter(|word| !word.to_ascii_uppercase().starts_with("RCPTMAX=")) {
                limits.push(' ');
                limits.push_str(word);
            }
        } else {
            lines.push(line);
        }
    }
    if dialect == Dialect::Lmtp {
        lines.push(&limits);
    }
    PeerReply { code: reply.code, text: lines.join("\n") }
}

/// What a reply to HELO may hold: one line (RFC 5321 §4.1.1.1).
pub(super) fn first_line(reply: &PeerReply) -> PeerReply {
    PeerReply { code: reply.code, text: reply.lines().next().unwrap_or_default().to_owned() }
}
