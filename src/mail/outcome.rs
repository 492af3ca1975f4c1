//! What became of one recipient.

use std::sync::Arc;

/// A server's reply as one clean line, fit for logs and reports: printable, no line ends, at most
/// [`ReplyText::BYTES_MAX`] octets.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ReplyText(Arc<str>);

impl ReplyText {
    /// Longest text kept, in octets: four lines of the longest that RFC 5321 §4.5.3.1.5 knows.
    pub const BYTES_MAX: usize = 2048;

    /// Cleans whatever a peer said: control characters, bidirectional marks and line ends become `?`, the rest
    /// is cut at a character border.
    #[must_use]
    pub fn clean(text: &str) -> Self {
        if text.len() <= Self::BYTES_MAX && text.bytes().all(|octet| (32..127).contains(&octet)) {
            return Self(text.into());
        }
        let mut kept = String::with_capacity(text.len().min(Self::BYTES_MAX));
        for c in text.chars() {
            let hidden = c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
            let c = if hidden { '?' } else { c };
            if kept.len() + c.len_utf8() > Self::BYTES_MAX {
                break;
            }
            kept.push(c);
        }
        Self(kept.into())
    }

    /// The line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ReplyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fate of one recipient after one attempt (RFC 5321 §4.2.1: the first digit decides).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// 2yz: the customer's server took responsibility; we forget the recipient.
    Delivered(ReplyText),
    /// 4yz: keep it, offer it again at the next call.
    Later(ReplyText),
    /// 5yz: never offer it again; its sender must be told.
    Failed(ReplyText),
}

impl Outcome {
    /// What the other server said.
    #[must_use]
    pub fn reply(&self) -> &ReplyText {
        match self {
            Self::Delivered(reply) | Self::Later(reply) | Self::Failed(reply) => reply,
        }
    }
}

/// Where a recipient that has not been delivered stands. A delivered one is gone from the store.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub enum RecipientState {
    /// Waiting, never refused.
    #[default]
    Queued,
    /// Waiting after a 4yz; the last reply.
    Deferred(ReplyText),
    /// Refused for good or given up, and the report about it is owed: the reply, or our own words after an
    /// enhanced code.
    Failed(ReplyText),
    /// Delivered to a server that sends no reports itself, and the report of that is owed (RFC 3461 §5.2.2);
    /// the reply.
    Relayed(ReplyText),
}

impl RecipientState {
    /// Whether the customer's server put it off when it was last offered.
    #[must_use]
    pub const fn is_deferred(&self) -> bool {
        matches!(self, Self::Deferred(_))
    }

    /// Whether nothing is left to do but to report; such a recipient is never offered again.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Relayed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_become_one_printable_line() {
        assert_eq!(ReplyText::clean("550 a\r\nb\x1b[2J\u{202e}").as_str(), "550 a??b?[2J?");
        let long = "é".repeat(600);
        assert!(ReplyText::clean(&long).as_str().len() <= ReplyText::BYTES_MAX);
    }
}
