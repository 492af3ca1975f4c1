//! Replies as they come from the wire: bytes in, whole replies out, with bounds (RFC 5321 §4.2).
//!
//! Used by the caller and the bridge. It gives a meaning to nothing but the three digits and the line ends.

/// Octets of one line, its end included. RFC 5321 §4.5.3.1.5 says 512; more is tolerated, without end nothing is.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Octets of one reply with all its lines.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// A reply as heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The three digits, 200 to 599.
    pub code: u16,
    /// The text of each line, without code, mark and line end; at least one.
    pub lines: Vec<String>,
}

impl Heard {
    /// The first digit.
    #[must_use]
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// The enhanced code at the head of the text, if there is one: `4.7.0` (RFC 2034 §4).
    #[must_use]
    pub fn enhanced(&self) -> Option<&str> {
        let word = self.lines.first()?.split(' ').next()?;
        let mut parts = word.split('.');
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let fits = parts.by_ref().take(3).filter(|part| digits(part)).count() == 3;
        (fits && parts.next().is_none()).then_some(word)
    }

    /// The reply as one line for people: control characters shown as `?`, lines joined by ` / `.
    #[must_use]
    pub fn summary(&self) -> String {
        let text = self.lines.join(" / ");
        let clean = text.chars().map(|c| if c.is_control() { '?' } else { c });
        let text: String = clean.take(480).collect();
        format!("{} {text}", self.code).trim_end().to_owned()
    }

    /// The octets that carry this reply.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        let last = self.lines.len().saturating_sub(1);
        for (number, text) in self.lines.iter().enumerate() {
            let mark = if number == last { ' ' } else { '-' };
            wire.extend_from_slice(format!("{}{mark}{text}\r\n", self.code).as_bytes());
        }
        wire
    }
}

/// Why bytes are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyFault {
    /// A line does not start with three digits and a space, hyphen or its end; or the codes of one reply differ.
    Form,
    /// A line or reply without end.
    TooLong,
}

impl std::fmt::Display for ReplyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Form => "that is no SMTP reply",
            Self::TooLong => "the reply has no end",
        })
    }
}

/// Collects bytes until a reply is whole. Holds at most what one reply may have plus one push.
#[derive(Debug, Default)]
pub struct ReplyReader {
    pending: Vec<u8>,
    code: u16,
    lines: Vec<String>,
    octets: usize,
}

impl ReplyReader {
    /// Takes bytes from the wire.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole reply; `None` until one is.
    ///
    /// # Errors
    /// [`ReplyFault`]; nothing after it can be trusted to be in step.
    pub fn next_reply(&mut self) -> Result<Option<Heard>, ReplyFault> {
        while let Some(end) = memchr::memchr(b'\n', &self.pending) {
            self.octets += end + 1;
            if end >= LINE_BYTES_MAX || self.octets > REPLY_BYTES_MAX {
                return Err(ReplyFault::TooLong);
            }
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            if self.take_line(line.trim_ascii_end())? {
                self.octets = 0;
                return Ok(Some(Heard { code: self.code, lines: std::mem::take(&mut self.lines) }));
            }
        }
        if self.pending.len() > LINE_BYTES_MAX {
            return Err(ReplyFault::TooLong);
        }
        Ok(None)
    }

    /// Bytes behind the last whole reply, which are then gone from here.
    #[must_use]
    pub fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    /// Whether nothing is held, not even a part of a reply.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.lines.is_empty()
    }

    /// Reads one line; true if it was the last of its reply.
    fn take_line(&mut self, line: &[u8]) -> Result<bool, ReplyFault> {
        let digits = line.get(..3).filter(|d| d.iter().all(u8::is_ascii_digit));
        let code = digits
            .map(|d| d.iter().fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0')))
            .filter(|code| (200..600).contains(code))
            .ok_or(ReplyFault::Form)?;
        let is_last = match line.get(3) {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(ReplyFault::Form),
        };
        if !self.lines.is_empty() && code != self.code {
            return Err(ReplyFault::Form);
        }
        self.code = code;
        self.lines.push(String::from_utf8_lossy(line.get(4..).unwrap_or_default()).into_owned());
        Ok(is_last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, step: usize) -> Result<Vec<Heard>, ReplyFault> {
        let mut reader = ReplyReader::default();
        let mut heard = Vec::new();
        for part in text.as_bytes().chunks(step) {
            reader.push(part);
            while let Some(reply) = reader.next_reply()? {
                heard.push(reply);
            }
        }
        Ok(heard)
    }

    #[test]
    fn replies_come_whole_however_the_bytes_are_cut() {
        let text = "220-one\r\n220 two \r\n250\r\n250-\r\n250 x\r\n354 go\n";
        for step in 1..text.len() {
            let heard = read(text, step).expect("replies");
            let codes: Vec<_> = heard.iter().map(|h| (h.code, h.lines.len())).collect();
            assert_eq!(codes, [(220, 2), (250, 1), (250, 2), (354, 1)], "step {step}");
            assert_eq!(heard[0].summary(), "220 one / two");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for text in
            ["hello\r\n", "22 x\r\n", "2200 x\r\n", "220_x\r\n", "199 x\r\n", "600 x\r\n", "\r\n"]
        {
            assert_eq!(read(text, 3), Err(ReplyFault::Form), "{text:?}");
        }
        assert_eq!(read("250-a\r\n251 b\r\n", 99), Err(ReplyFault::Form));
        assert_eq!(read(&"2".repeat(LINE_BYTES_MAX + 1), 512), Err(ReplyFault::TooLong));
        assert_eq!(read(&"250-x\r\n".repeat(10_000), 512), Err(ReplyFault::TooLong));
    }

    #[test]
    fn enhanced_codes_are_found_only_where_they_are() {
        let enhanced = |text: &str| {
            let heard = Heard { code: 450, lines: vec![text.into()] };
            heard.enhanced().map(str::to_owned)
        };
        assert_eq!(enhanced("4.7.1 no").as_deref(), Some("4.7.1"));
        assert_eq!(enhanced("4.7 no"), None);
        assert_eq!(enhanced("4.7.1.2 no"), None);
        assert_eq!(enhanced("a.b.c"), None);
    }
}
