//! Where content ends: CRLF, dot, CRLF, and nothing else (RFC 5321 §4.1.1.4).
//!
//! Used by the bridge, which changes no octet of what passes. Bare line ends never end anything here.

/// Finds the end over any number of pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContentEnd {
    /// How many octets of CRLF-dot-CRLF were seen last.
    matched: usize,
}

/// The line end before the dot may be that of the DATA command.
impl Default for ContentEnd {
    fn default() -> Self {
        Self { matched: 2 }
    }
}

const END: &[u8; 5] = b"\r\n.\r\n";

impl ContentEnd {
    /// How many octets of `bytes` belong to the content, its end included, and whether the end was among them.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut place = 0;
        while place < bytes.len() {
            if self.matched == 0 {
                // The fast way: only a CR can begin the end.
                match memchr::memchr(b'\r', &bytes[place..]) {
                    None => return (bytes.len(), false),
                    Some(found) => place += found,
                }
            }
            let octet = bytes[place];
            place += 1;
            self.matched = match octet {
                _ if octet == END[self.matched] => self.matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.matched == END.len() {
                self.matched = 0;
                return (place, true);
            }
        }
        (place, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain meaning, octet by octet, to compare with.
    fn reference(content: &[u8]) -> Option<usize> {
        let mut with_line_end = b"\r\n".to_vec();
        with_line_end.extend_from_slice(content);
        with_line_end.windows(5).position(|w| w == END).map(|at| at + 3)
    }

    #[test]
    fn the_end_is_found_in_every_cut() {
        let cases: [&[u8]; 8] = [
            b".\r\nQUIT\r\n",
            b"a\r\n.\r\nQUIT",
            b"a\n.\nb\r.\rc\r\n.\nd\n.\r\ne\r\n..\r\n\r\n\r\n.\r\n",
            b"\r\r\n.\r\n",
            b"\r\n\r\n.\r\r\n.\r\n",
            b"..\r\n.\r\n",
            b"no end",
            b"\r\n.\r",
        ];
        for case in cases {
            for step in 1..=case.len() {
                let mut end = ContentEnd::default();
                let mut total = 0;
                let mut found = None;
                for part in case.chunks(step) {
                    let (length, is_over) = end.scan(part);
                    total += length;
                    if is_over {
                        found = Some(total);
                        break;
                    }
                }
                assert_eq!(found, reference(case), "{:?} step {step}", case.escape_ascii());
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn the_end_is_where_the_reference_finds_it(
            picks in proptest::collection::vec(0usize..4, 0..60),
            step in 1usize..9,
        ) {
            let content: Vec<u8> = picks.iter().map(|pick| b"\r\n.x"[*pick]).collect();
            let mut end = ContentEnd::default();
            let mut total = 0;
            let mut found = None;
            for part in content.chunks(step) {
                let (length, is_over) = end.scan(part);
                total += length;
                if is_over { found = Some(total); break; }
            }
            proptest::prop_assert_eq!(found, reference(&content));
        }
    }
}
