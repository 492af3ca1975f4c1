//! The inbox: octets that have come and are not yet understood.
//!
//! Filled by the session with whatever the wire brings; gives out command lines, and octets of content. It keeps
//! no more than it must: a line over its limit is skipped up to its end and reported once. It interprets nothing.
//!
//! Keeps RFC 5321 §2.3.8: only CR LF ends a line; a CR or LF alone is part of it, and refused by whoever reads it.

use memchr::memmem;
use zeroize::Zeroize;

/// The consumed octets at the front after which they are given back.
const COMPACT_BYTES: usize = 64 * 1024;

/// Room that an empty inbox keeps: thousands of sessions are idle most of the time.
const IDLE_BYTES: usize = 2048;

/// What the inbox has for somebody who wants a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line without its CRLF.
    Whole(Vec<u8>),
    /// A line over the limit; it has been skipped.
    TooLong,
    /// Nothing whole yet.
    None,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Inbox {
    octets: Vec<u8>,
    /// Octets at the front that are used up.
    used: usize,
    /// Octets after `used` that certainly hold no end of line.
    searched: usize,
    /// Inside a line over its limit.
    is_skipping: bool,
}

impl Inbox {
    /// Takes octets from the wire.
    pub fn push(&mut self, octets: &[u8]) {
        if self.used == self.octets.len() {
            self.octets.clear();
            self.used = 0;
        }
        let needed = self.octets.len() + octets.len();
        if needed > self.octets.capacity() {
            self.grow(needed);
        }
        self.octets.extend_from_slice(octets);
    }

    /// Makes room by hand: a vector that grows by itself leaves a copy behind, perhaps of half a password.
    fn grow(&mut self, needed: usize) {
        let mut larger = Vec::with_capacity(needed.max(self.octets.capacity() * 2));
        larger.extend_from_slice(&self.octets);
        self.octets.zeroize();
        self.octets = larger;
    }

    /// What waits.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        &self.octets[self.used..]
    }

    /// Whether nothing waits; a line that is being skipped counts as waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting().is_empty() && !self.is_skipping
    }

    /// The next line, at most `limit` octets long without its CRLF. The place where it stood is wiped, since it
    /// may have been a password.
    pub fn line(&mut self, limit: usize) -> Line {
        let waiting = &self.octets[self.used..];
        let from = self.searched.min(waiting.len());
        let Some(end) = memmem::find(&waiting[from..], b"\r\n").map(|at| from + at) else {
            self.keep_searching(limit);
            return Line::None;
        };
        let is_whole = !self.is_skipping && end <= limit;
        let line = if is_whole { Line::Whole(waiting[..end].to_vec()) } else { Line::TooLong };
        self.is_skipping = false;
        self.octets[self.used..self.used + end].zeroize();
        self.consume(end + 2);
        line
    }

    /// No end of line yet: drop what can only be part of a line over the limit.
    fn keep_searching(&mut self, limit: usize) {
        let waiting = self.waiting().len();
        // The last octet may be the CR of the end.
        self.searched = waiting.saturating_sub(1);
        if self.is_skipping || waiting > limit + 1 {
            self.is_skipping = true;
            let skipped = waiting - usize::from(self.waiting().ends_with(b"\r"));
            self.octets[self.used..self.used + skipped].zeroize();
            self.consume(skipped);
        }
    }

    /// Uses up octets from the front.
    pub fn consume(&mut self, count: usize) {
        self.used = (self.used + count).min(self.octets.len());
        self.searched = 0;
        if self.used == self.octets.len() {
            self.octets.clear();
            self.used = 0;
            self.octets.shrink_to(IDLE_BYTES);
        } else if self.used >= COMPACT_BYTES {
            self.octets.drain(..self.used);
            self.used = 0;
        }
    }
}

impl Drop for Inbox {
    /// A session may end in the middle of a password.
    fn drop(&mut self) {
        self.octets[self.used..].zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_come_out_whatever_the_pieces() {
        for size in 1..12 {
            let mut inbox = Inbox::default();
            let mut lines = Vec::new();
            for piece in b"NOOP\r\nA\nB\rC\r\n\r\n\r\r\nrest".chunks(size) {
                inbox.push(piece);
                loop {
                    match inbox.line(100) {
                        Line::None => break,
                        line => lines.push(line),
                    }
                }
            }
            assert_eq!(lines, [whole("NOOP"), whole("A\nB\rC"), whole(""), whole("\r")], "{size}");
            assert_eq!(inbox.waiting(), b"rest");
        }
    }

    #[test]
    fn a_line_over_the_limit_is_reported_once_and_not_kept() {
        let mut inbox = Inbox::default();
        for _ in 0..10_000 {
            inbox.push(&[b'A'; 100]);
            assert_eq!(inbox.line(512), Line::None);
            assert!(inbox.octets.len() < 2000);
        }
        assert!(!inbox.is_empty());
        inbox.push(b"\r");
        assert_eq!(inbox.line(512), Line::None);
        inbox.push(b"\nNOOP\r\n");
        assert_eq!(inbox.line(512), Line::TooLong);
        assert_eq!(inbox.line(512), whole("NOOP"));
        assert!(inbox.is_empty());
    }

    #[test]
    fn the_limit_is_exact() {
        for (length, fits) in [(512, true), (513, false)] {
            let mut inbox = Inbox::default();
            inbox.push(&vec![b'A'; length]);
            assert_eq!(inbox.line(512), Line::None);
            inbox.push(b"\r\n");
            assert_eq!(matches!(inbox.line(512), Line::Whole(_)), fits, "{length}");
        }
    }

    #[test]
    fn many_lines_at_once_cost_linear_time() {
        let mut inbox = Inbox::default();
        inbox.push(&b"NOOP\r\n".repeat(100_000));
        let mut count = 0;
        while inbox.line(512) != Line::None {
            count += 1;
        }
        assert_eq!((count, inbox.is_empty()), (100_000, true));
    }
}
