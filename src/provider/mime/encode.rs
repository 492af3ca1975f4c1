//! Quoted-printable and base64, octet stream in, lines out (RFC 2045 §6.7, §6.8).
//!
//! Called by the converter and the reports. It keeps no more than a line. No output line begins with a hyphen, so
//! none can be taken for a boundary.

/// Longest line in octets, without CRLF.
const LINE_BYTES: usize = 76;

/// Quoted-printable of text: line ends stay line ends.
#[derive(Debug, Default)]
pub struct Quoted {
    width: usize,
}

impl Quoted {
    /// Encodes one line, given without its end; the end is not written.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        self.width = 0;
        for (place, byte) in line.iter().enumerate() {
            let is_last = place + 1 == line.len();
            self.octet(*byte, is_last, out);
        }
    }

    fn octet(&mut self, byte: u8, is_last: bool, out: &mut Vec<u8>) {
        let as_it_is = match byte {
            b'=' => false,
            b' ' | b'\t' => !is_last,
            // A line of output that begins so could be taken for a boundary.
            b'-' => self.width > 0 && self.width < LINE_BYTES - 1,
            33..=126 => true,
            _ => false,
        };
        let needed = if as_it_is { 1 } else { 3 };
        // One column is kept for the soft break, unless the line ends here.
        let limit = if is_last { LINE_BYTES } else { LINE_BYTES - 1 };
        if self.width + needed > limit {
            out.extend_from_slice(b"=\r\n");
            self.width = 0;
        }
        if as_it_is {
            out.push(byte);
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.extend([b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        self.width += needed;
    }
}

/// Quoted-printable of a whole text of ours; LF or CRLF in, CRLF out.
#[must_use]
pub fn quoted_text(text: &str) -> Vec<u8> {
    let (mut out, mut quoted) = (Vec::with_capacity(text.len() * 2), Quoted::default());
    for line in text.lines() {
        quoted.line(line.as_bytes(), &mut out);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Base64 of octets.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    begun: Vec<u8>,
}

/// Octets that fill one line.
const GROUP: usize = LINE_BYTES / 4 * 3;

impl Base64 {
    pub(super) fn feed(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        self.begun.extend_from_slice(octets);
        let whole = self.begun.len() / GROUP * GROUP;
        for group in self.begun[..whole].chunks_exact(GROUP) {
            encode_line(group, out);
        }
        self.begun.drain(..whole);
    }

    /// Writes what is left.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.begun.is_empty() {
            encode_line(&self.begun, out);
            self.begun.clear();
        }
    }
}

fn encode_line(octets: &[u8], out: &mut Vec<u8>) {
    use base64::Engine as _;
    out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(octets).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_lines_are_short_and_never_look_like_boundaries() {
        let text = format!("--b {} \nü=\n\n-\n{}\t", "-".repeat(300), "é".repeat(100));
        let out = String::from_utf8(quoted_text(&text)).expect("ASCII");
        for line in out.split("\r\n") {
            assert!(line.len() <= LINE_BYTES && !line.starts_with('-'), "{line}");
            assert!(!line.ends_with([' ', '\t']), "{line:?}");
        }
        assert!(out.contains("=C3=BC=3D\r\n\r\n=2D\r\n"));
    }

    #[test]
    fn base64_in_any_pieces() {
        let octets: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let whole = |sizes: usize| {
            let (mut base64, mut out) = (Base64::default(), Vec::new());
            octets.chunks(sizes).for_each(|piece| base64.feed(piece, &mut out));
            base64.finish(&mut out);
            out
        };
        assert_eq!(whole(1), whole(1000));
        assert!(String::from_utf8(whole(7)).expect("ASCII").lines().all(|l| l.len() <= 76));
    }
}
