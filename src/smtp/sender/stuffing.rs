//! Dot transparency on the way out (RFC 5321 §4.5.2), streaming.
//!
//! Called by the sender for each chunk of a DATA content. It adds a dot where a line begins with one and ends the
//! content with a line of a single dot; it changes nothing else. A bare CR or LF is never passed on
//! (RFC 5321 §2.3.8): what a lax reader would take for a line end could hide the end of the data.

use bytes::Bytes;
use memchr::memmem;

/// The content has a CR or LF that is not half of a CRLF, and so cannot be sent by DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BareLineEnd;

/// Where the content stands between two chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    Inside,
    AfterCr,
}

/// Makes the octets between 354 and the final reply.
#[derive(Debug)]
pub struct Stuffer {
    at: At,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self { at: At::LineStart }
    }
}

impl Stuffer {
    /// The octets to send for this chunk. Without a dot at a line's start that is the chunk itself, uncopied.
    ///
    /// # Errors
    /// [`BareLineEnd`]; nothing of this chunk may be sent.
    pub fn stuff(&mut self, chunk: Bytes) -> Result<Bytes, BareLineEnd> {
        let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { return Ok(chunk) };
        let begins_with_feed = *first == b'\n';
        if begins_with_feed != (self.at == At::AfterCr) {
            return Err(BareLineEnd);
        }
        // Neighbours, all alike and without a branch, so that many are looked at in one step.
        let halves = chunk.iter().zip(&chunk[1..]);
        let odd = halves.fold(0, |odd, (a, b)| odd | u8::from((*a == b'\r') != (*b == b'\n')));
        if odd != 0 {
            return Err(BareLineEnd);
        }
        let mut places = Vec::new();
        if self.at == At::LineStart && *first == b'.' {
            places.push(0);
        }
        // Each line feed ends a line now.
        places.extend(memmem::find_iter(&chunk, b"\n.").map(|feed| feed + 1));
        self.at = match last {
            b'\n' => At::LineStart,
            b'\r' => At::AfterCr,
            _ => At::Inside,
        };
        Ok(if places.is_empty() { chunk } else { insert_dots(&chunk, &places).into() })
    }

    /// The end of the data: `.` on a line of its own. A content whose last line lacks its CRLF gets one, since
    /// DATA cannot carry it otherwise (RFC 5321 §4.1.1.4).
    ///
    /// # Errors
    /// [`BareLineEnd`] if the content ends in a CR.
    pub fn end(self) -> Result<&'static [u8], BareLineEnd> {
        match self.at {
            At::LineStart => Ok(b".\r\n"),
            At::Inside => Ok(b"\r\n.\r\n"),
            At::AfterCr => Err(BareLineEnd),
        }
    }
}

fn insert_dots(chunk: &[u8], places: &[usize]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(chunk.len() + places.len());
    let mut from = 0;
    for place in places {
        stuffed.extend_from_slice(&chunk[from..*place]);
        stuffed.push(b'.');
        from = *place;
    }
    stuffed.extend_from_slice(&chunk[from..]);
    stuffed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn send(content: &[u8], cuts: &[usize]) -> Result<Vec<u8>, BareLineEnd> {
        let mut stuffer = Stuffer::default();
        let mut wire = Vec::new();
        let mut from = 0;
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (content.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(content.len());
        for cut in cuts {
            wire.extend(stuffer.stuff(Bytes::copy_from_slice(&content[from..cut]))?);
            from = cut;
        }
        wire.extend_from_slice(stuffer.end()?);
        Ok(wire)
    }

    /// What a receiver makes of it, octet by octet, written from RFC 5321 §4.5.2 alone: `None` if the end of
    /// the data is not exactly at the end.
    fn receive(wire: &[u8]) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        let mut rest = wire;
        loop {
            let end = rest.windows(2).position(|two| two == b"\r\n")?;
            let line = &rest[..end];
            rest = &rest[end + 2..];
            if line == b"." {
                return rest.is_empty().then_some(content);
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            content.extend_from_slice(b"\r\n");
        }
    }

    /// Written another way: bare if removing all CRLFs leaves a CR or LF.
    fn is_bare(content: &[u8]) -> bool {
        let mut rest = content.to_vec();
        while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
            rest.splice(at..at + 2, [b'x']);
        }
        rest.iter().any(|b| matches!(b, b'\r' | b'\n'))
    }

    #[test]
    fn lines_of_dots_at_every_chunk_border() {
        let content = b".\r\n..\r\n.a\r\n\r\n.\r\nb.\r\n";
        for first in 0..content.len() {
            for second in first..content.len() {
                let wire = send(content, &[first, second]).expect("sound");
                assert_eq!(wire, b"..\r\n...\r\n..a\r\n\r\n..\r\nb.\r\n.\r\n");
            }
        }
        assert_eq!(send(b"", &[]).expect("sound"), b".\r\n");
        assert_eq!(send(b"x", &[]).expect("sound"), b"x\r\n.\r\n");
    }

    /// One chunk octet by octet, written from the rules alone: the octets to send and where the content stands.
    fn by_octets(mut at: At, chunk: &[u8]) -> Option<(Vec<u8>, At)> {
        let mut wire = Vec::new();
        for octet in chunk {
            at = match (at, octet) {
                (At::AfterCr, b'\n') => At::LineStart,
                (At::AfterCr, _) | (_, b'\n') => return None,
                (_, b'\r') => At::AfterCr,
                (At::LineStart, b'.') => {
                    wire.push(b'.');
                    At::Inside
                }
                _ => At::Inside,
            };
            wire.push(*octet);
        }
        Some((wire, at))
    }

    #[test]
    fn every_short_chunk_is_what_it_is_octet_by_octet() {
        for at in [At::LineStart, At::Inside, At::AfterCr] {
            for length in 0..8u32 {
                for number in 0..4usize.pow(length) {
                    let octet = |place: u32| b"\r\n.x"[number >> (2 * place) & 3];
                    let chunk: Vec<u8> = (0..length).map(octet).collect();
                    let mut stuffer = Stuffer { at };
                    let sent = stuffer.stuff(chunk.clone().into()).ok();
                    let seen = sent.map(|sent| (sent.to_vec(), stuffer.at));
                    assert_eq!(seen, by_octets(at, &chunk), "{chunk:?} at {at:?}");
                }
            }
        }
    }

    #[test]
    fn untouched_chunks_are_not_copied() {
        let chunk = Bytes::from_static(b"a line\r\nanother\r\n");
        let before = chunk.as_ptr();
        let after = Stuffer::default().stuff(chunk).expect("sound");
        assert_eq!(after.as_ptr(), before);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn any_content_in_any_chunks_arrives_as_it_was(
            content in proptest::collection::vec(
                prop_oneof![
                    3 => Just(b".".to_vec()), 3 => Just(b"\r\n".to_vec()), 1 => Just(b"\r".to_vec()),
                    1 => Just(b"\n".to_vec()), 2 => Just(b"x".to_vec()), 1 => any::<u8>().prop_map(|b| vec![b]),
                ], 0..24).prop_map(|parts| parts.concat()),
            cuts in proptest::collection::vec(any::<usize>(), 0..6),
        ) {
            match send(&content, &cuts) {
                Err(BareLineEnd) => prop_assert!(is_bare(&content)),
                Ok(wire) => {
                    prop_assert!(!is_bare(&content));
                    let mut expected = content.clone();
                    if !expected.is_empty() && !expected.ends_with(b"\r\n") {
                        expected.extend_from_slice(b"\r\n");
                    }
                    prop_assert_eq!(receive(&wire), Some(expected));
                }
            }
        }
    }
}
