//! Messages in one file: the mboxrd form, each with its envelope in a header field of its own.
//!
//! Called by `queue export --mbox` and `queue import`. Lines end in LF in the file and in CRLF in the queue; a line
//! that begins with `From ` behind any number of `>` gets one `>` more. What comes back is octet for octet what
//! went in. It holds a line at a time.

use std::io::{self, BufRead, Write};

use super::admin::Exported;
use crate::mail::Timestamp;

/// The field that holds the envelope.
const FIELD: &str = "X-Restante-Envelope:";
/// Longest line that is read, in octets.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// Octets given at once, and a line.
const CHUNK_BYTES: usize = 48 * 1024;
/// Columns after which an envelope is folded.
const FOLD_COLUMNS: usize = 70;

/// Writes a mbox.
pub(super) struct Writer<W> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, line: Vec::new() }
    }

    pub(super) fn out(&mut self) -> &mut W {
        &mut self.out
    }

    pub(super) fn into_inner(self) -> W {
        self.out
    }

    /// The next message.
    pub(super) fn begin(&mut self, envelope: &Exported) -> io::Result<()> {
        self.line.clear();
        let from: String = envelope
            .reverse_path
            .chars()
            .map(|c| if c.is_whitespace() { '_' } else { c })
            .collect();
        let from = if from.is_empty() { "MAILER-DAEMON" } else { &from };
        let when = envelope.queued_at.as_deref().and_then(Timestamp::parse_rfc3339);
        writeln!(self.out, "From {from} {}", asctime(when.unwrap_or_default()))?;
        let text = serde_json::to_string(envelope).map_err(io::Error::other)?;
        writeln!(self.out, "{FIELD} {}", folded(&text))
    }

    /// Its next octets.
    pub(super) fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        let mut rest = octets;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.line.extend_from_slice(&rest[..end]);
            self.line_end()?;
            rest = &rest[end + 1..];
        }
        self.line.extend_from_slice(rest);
        Ok(())
    }

    fn line_end(&mut self) -> io::Result<()> {
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        if is_from(&self.line) {
            self.out.write_all(b">")?;
        }
        self.line.push(b'\n');
        self.out.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }

    /// Its end.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if !self.line.is_empty() {
            self.line_end()?;
        }
        self.out.write_all(b"\n")
    }
}

/// Whether a line is `From ` behind any number of `>`.
fn is_from(line: &[u8]) -> bool {
    let arrows = line.iter().take_while(|octet| **octet == b'>').count();
    line[arrows..].starts_with(b"From ")
}

/// The date of a `From ` line, in UTC.
fn asctime(when: Timestamp) -> String {
    let text = when.rfc5322();
    let mut words = text.split([' ', ',']).filter(|word| !word.is_empty());
    let mut word = || words.next().unwrap_or_default();
    let (weekday, day, month, year, clock) = (word(), word(), word(), word(), word());
    format!("{weekday} {month} {day:>2} {clock} {year}")
}

/// JSON in ASCII, folded between its members.
fn folded(json: &str) -> String {
    let (mut text, mut column, mut in_string, mut escaped) = (String::new(), 0, false, false);
    for c in json.chars() {
        match c {
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && c == '\\' && !escaped;
        if c.is_ascii() {
            text.push(c);
        } else {
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
        column += 1;
        if c == ',' && !in_string && column > FOLD_COLUMNS {
            text.push_str("\n\t");
            column = 0;
        }
    }
    text
}

/// Reads a mbox.
pub(super) struct Reader<R> {
    from: R,
    /// The line that comes next.
    ahead: Option<Vec<u8>>,
    is_begun: bool,
    /// Octets of the content given, and how many the envelope says there are.
    given: u64,
    size: Option<u64>,
    /// Line ends that are not given yet.
    ends: u64,
    /// The last of them is that of an empty line, which may be the end of the message.
    blank: bool,
    /// The message has been given whole.
    is_over: bool,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(from: R) -> Self {
        let (ends, blank, is_over) = (0, false, true);
        Self { from, ahead: None, is_begun: false, given: 0, size: None, ends, blank, is_over }
    }

    fn advance(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        let mut some = io::Read::take(&mut self.from, LINE_BYTES_MAX);
        some.read_until(b'\n', &mut line)?;
        if line.len() as u64 >= LINE_BYTES_MAX {
            return Err(io::Error::other("a line in it has no end"));
        }
        self.ahead = (!line.is_empty()).then_some(line);
        Ok(())
    }

    /// The envelope of the next message, or why it has none.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<Exported, String>>> {
        if self.is_begun {
            while self.chunk()?.is_some() {}
        } else {
            self.is_begun = true;
            self.advance()?;
        }
        let Some(line) = &self.ahead else { return Ok(None) };
        if !line.starts_with(b"From ") {
            return Err(io::Error::other("it is no mbox: it does not begin with `From `"));
        }
        self.advance()?;
        (self.given, self.size, self.ends, self.blank) = (0, None, 0, false);
        self.is_over = false;
        let mut text = match self.ahead.as_deref().and_then(|l| l.strip_prefix(FIELD.as_bytes())) {
            Some(first) => first.to_vec(),
            None => return Ok(Some(Err(format!("it has no {FIELD} field")))),
        };
        self.advance()?;
        loop {
            let whole = text.trim_ascii_end().ends_with(b"}");
            let read = whole.then(|| serde_json::from_slice::<Exported>(&text));
            if let Some(Ok(envelope)) = read {
                self.size = envelope.size;
                return Ok(Some(Ok(envelope)));
            }
            match &self.ahead {
                Some(line) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                    text.extend_from_slice(line);
                }
                _ => {
                    let why = serde_json::from_slice::<Exported>(&text).err();
                    let why = why.map_or_else(String::new, |why| why.to_string());
                    return Ok(Some(Err(format!("its {FIELD} field is wrong: {why}"))));
                }
            }
            self.advance()?;
        }
    }

    /// The next octets of its content; nothing at its end.
    pub(super) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES && !self.is_over {
            let may_end = self.blank || (self.given == 0 && chunk.is_empty() && self.ends == 0);
            let is_next = |line: &Vec<u8>| may_end && line.starts_with(b"From ");
            if self.ahead.as_ref().is_none_or(is_next) {
                return Ok(self.last(chunk));
            }
            let Some(line) = self.ahead.take() else { continue };
            self.advance()?;
            let mut said = line.strip_suffix(b"\n").unwrap_or(&line);
            let has_end = said.len() < line.len();
            said = said.strip_suffix(b"\r").unwrap_or(said);
            self.blank = said.is_empty() && has_end;
            if !self.blank {
                self.put_ends(&mut chunk);
            }
            let quoted = said.first() == Some(&b'>') && is_from(said);
            chunk.extend_from_slice(if quoted { &said[1..] } else { said });
            self.ends += u64::from(has_end);
            // Only the last two can be in question.
            while self.ends > 2 {
                chunk.extend_from_slice(b"\r\n");
                self.ends -= 1;
            }
        }
        self.given += chunk.len() as u64;
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn put_ends(&mut self, chunk: &mut Vec<u8>) {
        for _ in 0..std::mem::take(&mut self.ends) {
            chunk.extend_from_slice(b"\r\n");
        }
    }

    /// What is left at the end of a message: the empty line behind it is not its own, nor is a line end that it had
    /// not when it was written.
    fn last(&mut self, mut chunk: Vec<u8>) -> Option<Vec<u8>> {
        self.is_over = true;
        self.ends -= u64::from(std::mem::take(&mut self.blank));
        let all = self.given + chunk.len() as u64 + 2 * self.ends;
        if self.ends > 0 && self.size == Some(all - 2) {
            self.ends -= 1;
        }
        self.put_ends(&mut chunk);
        self.given += chunk.len() as u64;
        (!chunk.is_empty()).then_some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::admin::exchange::ExportedPath;
    use proptest::prelude::*;

    fn envelope(size: usize, to: &str) -> Exported {
        let path = ExportedPath { address: to.to_owned(), ..ExportedPath::default() };
        let size = Some(size as u64);
        let queued_at = Some("2026-11-22T03:19:00.000Z".to_owned());
        let reverse_path = "t@foo.example".to_owned();
        let forward_paths = vec![path; 3];
        Exported { reverse_path, forward_paths, size, queued_at, ..Exported::default() }
    }

    fn written(messages: &[(Exported, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (envelope, content) in messages {
            writer.begin(envelope).expect("memory");
            content.chunks(7).for_each(|chunk| writer.write(chunk).expect("memory"));
            writer.end().expect("memory");
        }
        writer.into_inner()
    }

    fn read(mbox: &[u8]) -> Vec<(Exported, Vec<u8>)> {
        let (mut reader, mut found) = (Reader::new(mbox), Vec::new());
        while let Some(envelope) = reader.next().expect("memory") {
            let mut content = Vec::new();
            while let Some(chunk) = reader.chunk().expect("memory") {
                content.extend(chunk);
            }
            found.push((envelope.expect("an envelope"), content));
        }
        found
    }

    #[test]
    fn the_form_is_mboxrd() {
        let content = b"Subject: x\r\n\r\nFrom me\r\n>From him\r\n From it\r\nend";
        let mbox = written(&[(envelope(content.len(), "l@ü.example"), content.to_vec())]);
        let text = String::from_utf8(mbox).expect("ASCII");
        assert!(
            text.starts_with("From t@foo.example Sun Nov 22 03:19:00 2026\nX-Restante-Envelope: {")
        );
        assert!(
            text.ends_with("\nSubject: x\n\n>From me\n>>From him\n From it\nend\n\n"),
            "{text}"
        );
        assert!(text.is_ascii() && text.lines().nth(2).is_some_and(|line| line.starts_with('\t')));
    }

    #[test]
    fn what_is_no_mbox_is_refused_and_what_has_no_envelope_is_passed_over() {
        assert!(Reader::new(&b"Subject: x\n"[..]).next().is_err());
        assert!(Reader::new(&b""[..]).next().expect("empty").is_none());
        let good = written(&[(envelope(3, "l@a.example"), b"x\r\n".to_vec())]);
        let mbox = [b"From a b\nSubject: x\n\nFrom y\n\n", &good[..]].concat();
        let mut reader = Reader::new(&mbox[..]);
        assert!(matches!(reader.next(), Ok(Some(Err(_)))));
        // An unquoted `From ` line behind an empty one begins a message, whoever wrote it.
        assert!(matches!(reader.next(), Ok(Some(Err(_)))));
        assert!(matches!(reader.next(), Ok(Some(Ok(_)))));
        assert_eq!(reader.chunk().expect("memory").as_deref(), Some(&b"x\r\n"[..]));
        assert!(reader.next().expect("memory").is_none());
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            messages in proptest::collection::vec(
                (proptest::collection::vec(
                    prop_oneof![
                        Just("\r\n"), Just("\r\n\r\n"), Just("From "), Just(">"), Just(" "), Just("x"),
                        Just("\r\nFrom me\r\n"), Just("}"), Just("\t{"), Just("é"),
                    ], 0..12), "[a-z\"\\\\ü,{}]{1,40}"), 0..4)
        ) {
            let messages: Vec<(Exported, Vec<u8>)> = messages
                .into_iter()
                .map(|(parts, to)| {
                    let content = parts.concat().into_bytes();
                    (envelope(content.len(), &to), content)
                })
                .collect();
            prop_assert_eq!(read(&written(&messages)), messages);
        }
    }
}
