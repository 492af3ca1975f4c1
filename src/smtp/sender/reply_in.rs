//! The replies of a customer's server, read from the wire (RFC 5321 §4.2).
//!
//! Called by the sender with every octet that comes in. It believes nothing: codes, line ends and limits are
//! checked, and what does not fit is [`Malformed`], which ends the drain with all mail kept. Memory stays below
//! [`REPLY_BYTES_MAX`] whatever the peer sends. Keeps RFC 5321 §4.2 and §4.2.1 (codes, multi-line replies) and
//! §2.3.8 (CRLF is the only line end).

use std::fmt::Write;

use memchr::memchr;

use crate::mail::ReplyText;

/// Most octets in one reply, all its lines together.
pub const REPLY_BYTES_MAX: usize = 64 << 10;
/// Most lines in one reply.
pub const REPLY_LINES_MAX: usize = 100;

/// One whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReply {
    /// The three digits, 200 to 559.
    pub code: u16,
    /// The lines without their codes, separated by line feeds.
    pub text: String,
}

impl PeerReply {
    /// The first digit, which alone decides (RFC 5321 §4.2.1).
    #[must_use]
    pub const fn class(&self) -> u16 {
        self.code / 100
    }

    /// The text of each line; at least one, which may be empty.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }

    /// The enhanced code at the head of the text, if there is one: `4.7.0` (RFC 2034 §4).
    #[must_use]
    pub fn enhanced(&self) -> Option<&str> {
        let word = self.text.split([' ', '\n']).next()?;
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let fits = word.split('.').count() == 3 && word.split('.').all(is_number);
        fits.then_some(word)
    }

    /// The octets that carry this reply.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut wire = String::new();
        let mut lines = self.lines().peekable();
        while let Some(line) = lines.next() {
            let mark = if lines.peek().is_some() { '-' } else { ' ' };
            wire.push_str(&format!("{}{mark}{line}\r\n", self.code));
        }
        wire.into_bytes()
    }

    /// Code and text as one clean line.
    #[must_use]
    pub fn said(&self) -> ReplyText {
        if self.text.is_empty() {
            return ReplyText::clean(&self.code.to_string());
        }
        // More than what is kept need not be cleaned; a reply may have 64 KiB.
        let mut line = String::with_capacity(4 + self.text.len().min(ReplyText::BYTES_MAX));
        // Writing to a text does not fail.
        let _ = write!(line, "{} ", self.code);
        let kept = self.text.chars().take(ReplyText::BYTES_MAX);
        line.extend(kept.map(|c| if c == '\n' { ' ' } else { c }));
        ReplyText::clean(&line)
    }
}

/// Octets that are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not three digits of RFC 5321 §4.2 with a space, a hyphen or nothing behind.
    Syntax,
    /// A CR or LF that is not half of a CRLF.
    LineEnd,
    /// The lines of one reply have different codes.
    MixedCodes,
    /// More than [`REPLY_LINES_MAX`] lines or [`REPLY_BYTES_MAX`] octets.
    Endless,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Syntax => "a line that is no SMTP reply",
            Self::LineEnd => "a reply with a bare CR or LF",
            Self::MixedCodes => "a multi-line reply with different codes",
            Self::Endless => "a reply without end",
        })
    }
}

/// Puts replies together from octets as they come.
#[derive(Debug, Default)]
pub struct ReplyReader {
    /// The begun line.
    line: Vec<u8>,
    code: Option<u16>,
    text: Vec<u8>,
    lines: usize,
    octets: usize,
}

impl ReplyReader {
    /// Takes octets from the front of `input` up to the end of one reply; `None` when they do not suffice, and
    /// then all of them are taken.
    ///
    /// # Errors
    /// [`Malformed`]; nothing sensible can be read from this peer afterwards.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<PeerReply>, Malformed> {
        while let Some(end) = memchr(b'\n', input) {
            let (head, rest) = input.split_at(end + 1);
            *input = rest;
            self.count(head.len())?;
            let whole = if self.line.is_empty() {
                self.take_line(head)?
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(head);
                self.take_line(&line)?
            };
            if let Some(code) = whole {
                return Ok(Some(self.finish(code)));
            }
        }
        self.count(input.len())?;
        self.line.extend_from_slice(input);
        *input = &[];
        Ok(None)
    }

    /// Whether a reply has begun and not ended.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.octets > 0
    }

    fn count(&mut self, octets: usize) -> Result<(), Malformed> {
        self.octets += octets;
        if self.octets > REPLY_BYTES_MAX { Err(Malformed::Endless) } else { Ok(()) }
    }

    /// One line with its line feed; gives the code if it was the last of its reply.
    fn take_line(&mut self, line: &[u8]) -> Result<Option<u16>, Malformed> {
        let line = line.strip_suffix(b"\r\n").ok_or(Malformed::LineEnd)?;
        if memchr(b'\r', line).is_some() {
            return Err(Malformed::LineEnd);
        }
        let (digits, rest) = line.split_at_checked(3).ok_or(Malformed::Syntax)?;
        let sound = matches!(digits, [b'2'..=b'5', b'0'..=b'5', b'0'..=b'9']);
        if !sound {
            return Err(Malformed::Syntax);
        }
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        if self.code.is_some_and(|first| first != code) {
            return Err(Malformed::MixedCodes);
        }
        self.code = Some(code);
        self.lines += 1;
        if self.lines > REPLY_LINES_MAX {
            return Err(Malformed::Endless);
        }
        if self.lines > 1 {
            self.text.push(b'\n');
        }
        match rest.split_first() {
            None => Ok(Some(code)),
            Some((b' ', text)) => {
                self.text.extend_from_slice(text);
                Ok(Some(code))
            }
            Some((b'-', text)) => {
                self.text.extend_from_slice(text);
                Ok(None)
            }
            Some(_) => Err(Malformed::Syntax),
        }
    }

    fn finish(&mut self, code: u16) -> PeerReply {
        let text = match String::from_utf8(std::mem::take(&mut self.text)) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        self.code = None;
        self.lines = 0;
        self.octets = 0;
        PeerReply { code, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], step: usize) -> Result<Vec<(u16, String)>, Malformed> {
        let mut reader = ReplyReader::default();
        let mut found = Vec::new();
        for mut piece in input.chunks(step) {
            while let Some(reply) = reader.read(&mut piece)? {
                found.push((reply.code, reply.text));
            }
        }
        Ok(found)
    }

    #[test]
    fn replies_in_any_framing() {
        let input =
            b"220 mx ready\r\n250\r\n250 \r\n250-a\r\n250-\r\n250 c\r\n550 5.1.1 \xff no\r\n";
        let expected =
            [(220, "mx ready"), (250, ""), (250, ""), (250, "a\n\nc"), (550, "5.1.1 \u{fffd} no")]
                .map(|(code, text)| (code, text.to_owned()));
        for step in [1, 2, 3, 7, input.len()] {
            assert_eq!(all(input, step).expect("sound"), expected, "step {step}");
        }
    }

    #[test]
    fn what_is_no_reply() {
        for (input, why) in [
            (&b"\r\n"[..], Malformed::Syntax),
            (b"25\r\n", Malformed::Syntax),
            (b"999 x\r\n", Malformed::Syntax),
            (b"150 x\r\n", Malformed::Syntax),
            (b"260 x\r\n", Malformed::Syntax),
            (b"250x\r\n", Malformed::Syntax),
            (b"ATRN\r\n", Malformed::Syntax),
            (b"\0\x01\x02\x03\r\n", Malformed::Syntax),
            (b"250 x\n", Malformed::LineEnd),
            (b"250 x\ry\r\n", Malformed::LineEnd),
            (b"250-a\r\n451 b\r\n", Malformed::MixedCodes),
        ] {
            for step in [1, input.len()] {
                assert_eq!(all(input, step), Err(why), "{input:?}");
            }
        }
    }

    #[test]
    fn endless_replies_are_given_up() {
        let lines = b"250-x\r\n".repeat(REPLY_LINES_MAX + 1);
        assert_eq!(all(&lines, 5), Err(Malformed::Endless));
        let mut just_right = b"250-x\r\n".repeat(REPLY_LINES_MAX - 1);
        just_right.extend_from_slice(b"250 x\r\n");
        assert_eq!(all(&just_right, 5).expect("sound").len(), 1);
        let line = [b"220 ".to_vec(), vec![b'A'; REPLY_BYTES_MAX]].concat();
        assert_eq!(all(&line, 1000), Err(Malformed::Endless));
    }

    #[test]
    fn enhanced_codes_are_found_only_where_they_are() {
        let reply = |text: &str| PeerReply { code: 450, text: text.into() };
        assert_eq!(reply("4.7.1 no").enhanced(), Some("4.7.1"));
        assert_eq!(reply("4.7.1\nno").enhanced(), Some("4.7.1"));
        for text in ["4.7 no", "4.7.1.2 no", "a.b.c", "", "4..1"] {
            assert_eq!(reply(text).enhanced(), None, "{text}");
        }
    }

    #[test]
    fn a_reply_goes_on_as_it_came() {
        for wire in ["250 \r\n", "250-a\r\n250-\r\n250 c\r\n"] {
            let mut reader = ReplyReader::default();
            let reply = reader.read(&mut wire.as_bytes()).expect("sound").expect("whole");
            assert_eq!(reply.to_bytes(), wire.as_bytes());
        }
    }

    #[test]
    fn said_is_one_clean_line() {
        let reply = PeerReply { code: 550, text: "5.1.1 no\n5.1.1 such\x1b user".into() };
        assert_eq!(reply.said().as_str(), "550 5.1.1 no 5.1.1 such? user");
        let long = PeerReply { code: 250, text: "x".repeat(60_000) };
        assert!(long.said().as_str().len() <= ReplyText::BYTES_MAX);
        assert_eq!(PeerReply { code: 250, text: String::new() }.said().as_str(), "250");
    }
}
