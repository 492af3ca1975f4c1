//! Content on its way in: the dot of DATA, and one look at every octet.
//!
//! Called by the session for DATA and BDAT alike, so that there is one reading of line ends for both. [`Dots`]
//! takes the transparency of DATA away and finds its end; [`Content`] counts, looks for what may not be stored,
//! and gathers [`ContentFacts`]. Neither keeps or changes a message.
//!
//! Keeps RFC 5321 §4.5.2 (transparency), §4.1.1.4 (only CRLF.CRLF ends the data), §2.3.8 (CRLF only), §6.3 (hops),
//! RFC 1870 §5 (what counts as size). The same rule for lines holds in DATA and in BDAT: RFC 5321 §4.5.3.1.6 gives
//! 998 octets as what everybody must take; we carry lines up to [`LINE_BYTES_MAX`], since mail with longer lines
//! exists and is not ours to change, and refuse the rest with 550 5.6.0.

use memchr::{memchr, memchr2_iter, memmem};

use super::refusal::Refusal;
use crate::mail::ContentFacts;

/// Longest line carried, in octets without CRLF.
pub const LINE_BYTES_MAX: u64 = 65_536;

/// Octets of a header line that are looked at for its name and value.
const HEADER_BYTES_SEEN: usize = 320;

/// All faults that content can have.
const GRAVEST_FIRST: [Refusal; 4] =
    [Refusal::TooBig, Refusal::BareLineEnd, Refusal::ContentLine, Refusal::Loop];

/// Longest Message-ID kept for the log.
const MESSAGE_ID_BYTES_MAX: usize = 250;

/// Where the last octet of DATA left us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// After CRLF, or at the very beginning.
    #[default]
    LineStart,
    /// Inside a line.
    InLine,
    /// After a CR inside a line.
    AfterCr,
    /// After a dot at the start of a line.
    Dot,
    /// After a dot and a CR at the start of a line.
    DotCr,
}

/// Takes dot-stuffing away and finds the end of DATA.
#[derive(Debug, Default)]
pub struct Dots {
    place: Place,
}

impl Dots {
    /// Reads octets and appends the content among them to `content`. Gives the number of octets used up, and
    /// whether the end of the data was the last of them; octets behind the end are not touched.
    pub fn read(&mut self, octets: &[u8], content: &mut Vec<u8>) -> (usize, bool) {
        let mut at = 0;
        while let Some(&octet) = octets.get(at) {
            match (self.place, octet) {
                (Place::LineStart, b'.') => {
                    self.place = Place::Dot;
                    at += 1;
                }
                (Place::Dot, b'\r') => {
                    self.place = Place::DotCr;
                    at += 1;
                }
                (Place::DotCr, b'\n') => return (at + 1, true),
                (Place::DotCr, _) => {
                    // Not the end; the CR stands alone, which Content will refuse.
                    content.push(b'\r');
                    self.place = Place::AfterCr;
                }
                (Place::AfterCr, b'\n') => {
                    content.push(b'\n');
                    self.place = Place::LineStart;
                    at += 1;
                }
                // The dot before this octet was stuffing.
                (Place::Dot | Place::AfterCr | Place::InLine | Place::LineStart, _) => {
                    at += self.read_lines(&octets[at..], content);
                }
            }
        }
        (at, false)
    }

    /// Copies up to the next start of a line with a dot, which is left alone.
    fn read_lines(&mut self, octets: &[u8], content: &mut Vec<u8>) -> usize {
        let (run, place) = match memmem::find(octets, b"\r\n.") {
            Some(found) => (&octets[..found + 2], Place::LineStart),
            None if octets.ends_with(b"\r\n") => (octets, Place::LineStart),
            None if octets.ends_with(b"\r") => (octets, Place::AfterCr),
            None => (octets, Place::InLine),
        };
        content.extend_from_slice(run);
        self.place = place;
        run.len()
    }
}

/// One look at the content of a message, in pieces of any size.
#[derive(Debug)]
pub struct Content {
    facts: ContentFacts,
    fault: Option<Refusal>,
    size_max: u64,
    received_max: u32,
    /// Octets of the current line so far.
    line_bytes: u64,
    /// The last octet was a CR.
    after_cr: bool,
    /// The header section, until it ends.
    header: Option<Header>,
}

/// The line of the header section that is being read.
#[derive(Debug, Default)]
struct Header {
    /// Its first octets.
    line: Vec<u8>,
    has_8bit: bool,
    /// It is the first line of all.
    is_first: bool,
    /// The field it may continue is a Message-ID that had no value yet.
    awaits_id: bool,
}

impl Content {
    /// `size_max` zero means no limit.
    #[must_use]
    pub fn new(size_max: u64, received_max: u32) -> Self {
        Self {
            facts: ContentFacts::default(),
            fault: None,
            size_max: if size_max == 0 { u64::MAX } else { size_max },
            received_max,
            line_bytes: 0,
            after_cr: false,
            header: Some(Header { is_first: true, ..Header::default() }),
        }
    }

    /// Looks at the next piece.
    pub fn look(&mut self, piece: &[u8]) {
        self.facts.size = self.facts.size.saturating_add(piece.len() as u64);
        if self.facts.size > self.size_max {
            self.blame(Refusal::TooBig);
        }
        if memchr(0, piece).is_some() {
            self.blame(Refusal::BareLineEnd);
        }
        let mut rest = piece;
        while self.header.is_some() && !rest.is_empty() {
            let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            self.look_at_header(&rest[..end]);
            self.look_at_lines(&rest[..end]);
            rest = &rest[end..];
        }
        self.look_at_lines(rest);
        if !rest.is_ascii() {
            self.facts.has_8bit_body = true;
        }
    }

    /// Line ends and lengths.
    fn look_at_lines(&mut self, piece: &[u8]) {
        let mut line_start = 0;
        for at in memchr2_iter(b'\r', b'\n', piece) {
            let follows_cr = if at == 0 { self.after_cr } else { piece[at - 1] == b'\r' };
            if piece[at] == b'\r' {
                continue;
            }
            if !follows_cr {
                self.blame(Refusal::BareLineEnd);
            }
            let length = self.line_bytes + (at - line_start) as u64;
            self.note_length(length.saturating_sub(u64::from(follows_cr)));
            self.line_bytes = 0;
            line_start = at + 1;
        }
        if self.has_bare_cr(piece) {
            self.blame(Refusal::BareLineEnd);
        }
        self.line_bytes += (piece.len() - line_start) as u64;
        if self.line_bytes > LINE_BYTES_MAX + 1 {
            self.blame(Refusal::ContentLine);
        }
        if let Some(last) = piece.last() {
            self.after_cr = *last == b'\r';
        }
    }

    /// Whether a CR in this piece, or the one that ended the piece before, is followed by something else than LF.
    fn has_bare_cr(&self, piece: &[u8]) -> bool {
        let broken = self.after_cr && piece.first().is_some_and(|octet| *octet != b'\n');
        broken
            || memchr::memchr_iter(b'\r', piece)
                .any(|at| piece.get(at + 1).is_some_and(|next| *next != b'\n'))
    }

    fn note_length(&mut self, length: u64) {
        self.facts.line_bytes_longest = self.facts.line_bytes_longest.max(length);
        if length > LINE_BYTES_MAX {
            self.blame(Refusal::ContentLine);
        }
    }

    /// A piece of at most one line, while the header section lasts.
    fn look_at_header(&mut self, piece: &[u8]) {
        let Some(header) = &mut self.header else { return };
        let room = HEADER_BYTES_SEEN.saturating_sub(header.line.len());
        header.line.extend_from_slice(&piece[..piece.len().min(room)]);
        header.has_8bit |= !piece.is_ascii();
        if piece.ends_with(b"\n") {
            self.end_header_line();
        }
    }

    /// A line of the header section is complete: which field is it, or does the section end?
    fn end_header_line(&mut self) {
        let Some(header) = self.header.take() else { return };
        let line = header.line.trim_ascii_end();
        let continues = !header.is_first && matches!(line.first(), Some(b' ' | b'\t'));
        let name = field_name(line);
        if line.is_empty() || (!continues && name.is_none()) {
            // An empty line ends the section; so does one that is no field, and that is body already.
            self.facts.has_8bit_body |= header.has_8bit;
            return;
        }
        self.facts.has_8bit_header |= header.has_8bit;
        let mut next = Header::default();
        match name {
            Some((name, _)) if name.eq_ignore_ascii_case(b"received") && !continues => {
                self.facts.received_count = self.facts.received_count.saturating_add(1);
                if self.facts.received_count > self.received_max {
                    self.blame(Refusal::Loop);
                }
            }
            Some((name, value)) if name.eq_ignore_ascii_case(b"message-id") && !continues => {
                next.awaits_id = !self.note_message_id(value);
            }
            _ if continues && header.awaits_id => next.awaits_id = !self.note_message_id(line),
            _ => {}
        }
        next.line = header.line;
        next.line.clear();
        self.header = Some(next);
    }

    /// Keeps the first Message-ID; false if `value` is empty.
    fn note_message_id(&mut self, value: &[u8]) -> bool {
        let value = value.trim_ascii();
        if !value.is_empty() && self.facts.message_id.is_none() {
            let clean: String = value
                .iter()
                .take(MESSAGE_ID_BYTES_MAX)
                .map(|octet| if octet.is_ascii_graphic() { char::from(*octet) } else { '?' })
                .collect();
            self.facts.message_id = Some(clean.into());
        }
        !value.is_empty()
    }

    /// Of several faults the gravest counts, wherever it stands, so that the verdict does not depend on how the
    /// octets came.
    fn blame(&mut self, refusal: Refusal) {
        let rank = |refusal| GRAVEST_FIRST.iter().position(|fault| *fault == refusal);
        if self.fault.is_none_or(|known| rank(refusal) < rank(known)) {
            self.fault = Some(refusal);
        }
    }

    /// Why this content cannot be taken, if that is known already.
    #[must_use]
    pub fn fault(&self) -> Option<Refusal> {
        self.fault
    }

    /// Octets seen so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.facts.size
    }

    /// The content is complete.
    ///
    /// # Errors
    /// Why it cannot be taken.
    pub fn finish(mut self) -> Result<ContentFacts, Refusal> {
        if self.after_cr {
            self.blame(Refusal::BareLineEnd);
        }
        self.note_length(self.line_bytes);
        if self.header.as_ref().is_some_and(|header| !header.line.is_empty()) {
            self.end_header_line();
        }
        match self.fault {
            Some(refusal) => Err(refusal),
            None => Ok(self.facts),
        }
    }
}

/// Name and value of a header line (RFC 5322 §2.2), if it is one.
fn field_name(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    let sound = !name.is_empty() && name.iter().all(|octet| (33..=126).contains(octet));
    sound.then_some((name, &line[colon + 1..]))
}

#[cfg(test)]
mod tests;
