//! Replies: what is on the wire between a code and its CRLF (RFC 5321 §4.2, RFC 2034 §4).
//!
//! Written by the session; read from a customer's server by the sender. No verb is known here.

use std::fmt::Write as _;

/// An enhanced status code, `class.subject.detail` (RFC 3463 §2). Its class equals the reply's first digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

/// A reply that we send. The texts are printable ASCII without line ends, at most 480 octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// Absent in greetings, in replies to EHLO and HELO, and in 3yz (RFC 2034 §4).
    pub enhanced: Option<EnhancedCode>,
    /// One text for each line; at least one.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply of one line with an enhanced code.
    #[must_use]
    pub fn line(code: u16, enhanced: EnhancedCode, text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced), lines: vec![text.into()] }
    }

    /// A reply without an enhanced code: greeting, EHLO, 334, 354.
    #[must_use]
    pub fn bare(code: u16, lines: Vec<String>) -> Self {
        Self { code, enhanced: None, lines }
    }

    /// The octets on the wire, CRLFs included (RFC 5321 §4.2.1).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut wire = String::new();
        let last = self.lines.len().saturating_sub(1);
        for (number, text) in self.lines.iter().enumerate() {
            let mark = if number == last { ' ' } else { '-' };
            let _ = write!(wire, "{}{mark}", self.code);
            if let Some(EnhancedCode(class, subject, detail)) = self.enhanced {
                let _ = write!(wire, "{class}.{subject}.{detail} ");
            }
            wire.extend(
                text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }),
            );
            wire.push_str("\r\n");
        }
        wire.into_bytes()
    }

    /// The last line as text without CRLF, for the log.
    #[must_use]
    pub fn summary(&self) -> String {
        let bytes = self.to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        text.trim_end().rsplit("\r\n").next().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_repeat_code_and_enhanced_code() {
        let reply = Reply {
            code: 250,
            enhanced: Some(EnhancedCode(2, 0, 0)),
            lines: vec!["one".into(), "t\r\nwo".into()],
        };
        assert_eq!(reply.to_bytes(), b"250-2.0.0 one\r\n250 2.0.0 t??wo\r\n");
        assert_eq!(reply.summary(), "250 2.0.0 t??wo");
        assert_eq!(Reply::bare(354, vec!["go".into()]).to_bytes(), b"354 go\r\n");
    }
}
