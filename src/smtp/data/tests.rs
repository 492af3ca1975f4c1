//! Content in every cut.

use proptest::prelude::*;

use super::*;

/// Reads `wire` in pieces of `size`; the content, whether the end came, and the octets behind it.
fn unstuff(wire: &[u8], size: usize) -> (Vec<u8>, bool, usize) {
    let mut dots = Dots::default();
    let mut content = Vec::new();
    let mut used = 0;
    for piece in wire.chunks(size) {
        let (count, is_end) = dots.read(piece, &mut content);
        used += count;
        if is_end {
            return (content, true, wire.len() - used);
        }
        assert_eq!(count, piece.len());
    }
    (content, false, 0)
}

fn facts(content: &[u8]) -> Result<ContentFacts, Refusal> {
    let mut whole = Content::new(0, 100);
    whole.look(content);
    let whole = whole.finish();
    for size in [1, 2, 3, 7] {
        let mut pieces = Content::new(0, 100);
        content.chunks(size).for_each(|piece| pieces.look(piece));
        assert_eq!(pieces.finish(), whole, "pieces of {size}");
    }
    whole
}

// covers: S-05
#[test]
fn dots_are_taken_away_at_line_starts_only() {
    for (wire, content) in [
        (&b".\r\n"[..], &b""[..]),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..a\r\n.\r\n", b".a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"...\r\n.\r\n", b"..\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a.\r\n.b.\r\n.\r\n", b"a.\r\nb.\r\n"),
        (b"\r\n\r\n..\r\n.\r\n", b"\r\n\r\n.\r\n"),
    ] {
        for size in 1..10 {
            assert_eq!(unstuff(wire, size), (content.to_vec(), true, 0), "{wire:?} by {size}");
        }
    }
    assert_eq!(unstuff(b"a\r\n.\r\nNOOP\r\n", 100), (b"a\r\n".to_vec(), true, 6));
}

// covers: S-04
#[test]
fn only_crlf_dot_crlf_is_the_end() {
    for trick in [
        &b"\n.\n"[..],
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r.\n",
        b"\r\n.\r",
        b"\n.\r",
        b"\n\n.\r\n",
        b"\r\n.\r\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\n. \r\n",
        b"\r\n .\r\n",
        b"\x0b.\x0b",
        b"\x85.\x85",
        b"\xc4\x8d\xc4\x8a.\xc4\x8d\xc4\x8a",
        b"\r\n.\r\0\n",
        b"\r\n..\r\n",
    ] {
        let mut wire = b"body".to_vec();
        wire.extend_from_slice(trick);
        wire.extend_from_slice(b"MAIL FROM:<s@evil.example>\r\n");
        for size in 1..12 {
            assert!(!unstuff(&wire, size).1, "{trick:?} by {size}");
        }
    }
}

// covers: S-03, S-04, K-03
#[test]
fn bare_line_ends_and_nul_are_found_in_every_cut() {
    for bad in [
        &b"a\nb\r\n"[..],
        b"a\rb\r\n",
        b"\n",
        b"\r",
        b"a\r\r\n",
        b"a\r\n\n",
        b"a\n\r\n",
        b"a\0b\r\n",
        b"a: b\r\n\r\nbody\n",
        b"a: b\r\n\r\nbody\rbody\r\n",
        b"a: b\r\n\r\nbody\r",
    ] {
        assert_eq!(facts(bad), Err(Refusal::BareLineEnd), "{bad:?}");
    }
}

#[test]
fn facts_of_a_message() {
    let text = "Received: one\r\n folded\r\nReceived : two\r\nX-Received: no\r\nMessage-ID:\r\n \
                <a@b.example>\r\nSubject: gr\u{fc}n\r\n\r\nReceived: body\r\n\u{e4}\r\n";
    let found = facts(text.as_bytes()).expect("sound");
    assert_eq!(found.size, text.len() as u64);
    assert_eq!(found.received_count, 2);
    assert_eq!(found.message_id.as_deref(), Some("<a@b.example>"));
    assert!(found.has_8bit_header && found.has_8bit_body);
    assert_eq!(found.line_bytes_longest, 14);
}

#[test]
fn the_header_section_ends_where_no_field_is() {
    let found = facts("\u{e4} body at once\r\nSubject: x\r\n".as_bytes()).expect("sound");
    assert!(!found.has_8bit_header && found.has_8bit_body);
    let found = facts(b"Subject: x\r\nno field\r\nReceived: y").expect("sound");
    assert_eq!((found.received_count, found.has_8bit_body), (0, false));
    let found = facts(b"").expect("an empty message is one");
    assert_eq!(found, ContentFacts::default());
}

// covers: S-24
#[test]
fn hops_are_limited() {
    let header = "Received: x\r\n";
    assert_eq!(facts(header.repeat(100).as_bytes()).expect("sound").received_count, 100);
    assert_eq!(facts(header.repeat(101).as_bytes()), Err(Refusal::Loop));
}

// covers: S-06
#[test]
fn lines_and_size_have_exact_limits() {
    let line = |length: u64| -> Vec<u8> {
        let mut line = vec![b'x'; usize::try_from(length).expect("small")];
        line.extend_from_slice(b"\r\n");
        line
    };
    let found = facts(&line(LINE_BYTES_MAX)).expect("fits");
    assert_eq!(found.line_bytes_longest, LINE_BYTES_MAX);
    assert_eq!(facts(&line(LINE_BYTES_MAX + 1)), Err(Refusal::ContentLine));
    let mut exact = Content::new(12, 100);
    exact.look(&line(10));
    assert!(exact.fault().is_none());
    exact.look(b"x");
    assert_eq!(exact.fault(), Some(Refusal::TooBig));
}

/// Dot-stuffing as RFC 5321 §4.5.2 describes it, line by line.
fn stuff(lines: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in lines {
        if line.first() == Some(&b'.') {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

proptest! {
    // covers: S-05
    #[test]
    fn content_survives_stuffing(
        lines in prop::collection::vec("[a.]{0,4}", 0..20),
        size in 1usize..40,
    ) {
        let lines: Vec<Vec<u8>> = lines.into_iter().map(String::into_bytes).collect();
        let content: Vec<u8> = lines.iter().flat_map(|l| [l.as_slice(), b"\r\n"].concat()).collect();
        prop_assert_eq!(unstuff(&stuff(&lines), size), (content, true, 0));
    }

    #[test]
    fn any_octets_in_any_cut_give_the_same(
        wire in prop::collection::vec(prop::sample::select(b"\r\n.a\0".to_vec()), 0..60),
        size in 1usize..20,
    ) {
        let (content, is_end, rest) = unstuff(&wire, 1000);
        prop_assert_eq!(unstuff(&wire, size), (content.clone(), is_end, rest));
        let _ = facts(&content);
        // The plain definition: the end is at the start, or behind a CRLF, nowhere else.
        let found = memmem::find(&[b"\r\n", wire.as_slice()].concat(), b"\r\n.\r\n");
        prop_assert_eq!(found.is_some(), is_end);
        if let Some(at) = found {
            prop_assert_eq!(wire.len() - rest, at + 3);
        }
    }
}
