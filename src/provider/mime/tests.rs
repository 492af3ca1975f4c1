use mail_parser::{MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

use super::{Converter, Obstacle, Planner};

fn converted(message: &[u8], piece: usize) -> Result<Vec<u8>, Obstacle> {
    let mut planner = Planner::default();
    for octets in message.chunks(piece) {
        planner.feed(octets)?;
    }
    let mut converter = Converter::new(planner.finish()?);
    let mut out = Vec::new();
    for octets in message.chunks(piece) {
        converter.feed(octets, &mut out)?;
    }
    converter.finish(&mut out)?;
    Ok(out)
}

/// What an independent reader sees: type and decoded octets of each leaf.
fn leaves(message: &[u8]) -> Vec<(String, Vec<u8>)> {
    let parsed = MessageParser::default().parse(message).expect("a message");
    let mut found = Vec::new();
    collect(&parsed, &mut found);
    found
}

fn collect(message: &mail_parser::Message<'_>, found: &mut Vec<(String, Vec<u8>)>) {
    for part in &message.parts {
        let kind = part.content_type().map_or_else(
            || "none".into(),
            |t| format!("{}/{}", t.c_type, t.c_subtype.as_deref().unwrap_or("")),
        );
        match &part.body {
            PartType::Message(inner) => collect(inner, found),
            PartType::Multipart(_) => {}
            _ => found.push((kind, part.contents().to_vec())),
        }
    }
}

const MIXED: &str = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b 1\"\r\n\
    Content-Transfer-Encoding: 8bit\r\n\r\npreamble\r\n--b 1\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Transfer-Encoding: 8bit\r\n\r\ngrüße \r\n--b 1x\r\n\r\n--b 1\r\nContent-Type: image/x\r\n\r\n\u{e9}\r\nb\r\n\
    --b 1 \r\nContent-Type: text/html\r\n\r\nplain\r\n--b 1\r\nContent-Type: message/rfc822\r\n\
    Content-Transfer-Encoding: 8bit\r\n\r\nSubject: inner\r\n\r\nü\r\n--b 1--\r\nepilogue\r\n";

#[test]
fn parts_that_need_it_are_encoded_and_the_others_left_alone() {
    let out = converted(MIXED.as_bytes(), 7).expect("converted");
    let expected = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b 1\"\r\n\r\n\
        preamble\r\n--b 1\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\ngr=C3=BC=C3=9Fe=20\r\n=2D-b 1x\r\n\r\n--b 1\r\n\
        Content-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\nw6kNCmI=\r\n--b 1 \r\n\
        Content-Type: text/html\r\n\r\nplain\r\n--b 1\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC\r\n--b 1--\r\nepilogue\r\n";
    assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
}

#[test]
fn a_message_without_mime_becomes_one() {
    let out = converted("Subject: x\r\n\r\nü\r\n".as_bytes(), 100).expect("converted");
    assert_eq!(
        String::from_utf8(out).expect("ASCII"),
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC\r\n"
    );
    let binary = "Content-Type: application/x\r\n\r\nü\r\n";
    let out = converted(binary.as_bytes(), 1).expect("converted");
    assert_eq!(
        String::from_utf8(out).expect("ASCII"),
        "Content-Type: application/x\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n\r\nw7wNCg==\r\n"
    );
}

// covers: X8-2
#[test]
fn what_must_not_be_touched() {
    let sealed = "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\nü\r\n--s--\r\n";
    let nested =
        format!("Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n{sealed}--m--\r\n");
    for (message, obstacle) in [
        ("Subject: ü\r\n\r\nx\r\n", Obstacle::Header),
        (sealed, Obstacle::Sealed),
        (&nested, Obstacle::Sealed),
        ("Content-Transfer-Encoding: base64\r\n\r\nü\r\n", Obstacle::Encoded),
        ("Content-Type: message/partial; id=x\r\n\r\nü\r\n", Obstacle::Encoded),
        (
            "Content-Type: multipart/mixed; boundary=m\r\n\r\nü\r\n--m\r\n\r\n--m--\r\n",
            Obstacle::BetweenParts,
        ),
        ("Content-Type: multipart/mixed\r\n\r\nü\r\n", Obstacle::Structure),
        ("Content-Type: message/rfc822\r\n\r\nSubject: ü\r\n\r\nx\r\n", Obstacle::Header),
    ] {
        assert_eq!(converted(message.as_bytes(), 5), Err(obstacle), "{message}");
    }
    let label = "Content-Type: multipart/signed; boundary=s\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--s\r\n\
                 Content-Transfer-Encoding: 8bit\r\n\r\nx\r\n--s--\r\n";
    let unlabelled = label.replacen("Content-Transfer-Encoding: 8bit\r\n", "", 1);
    assert_eq!(converted(label.as_bytes(), 9).expect("nothing is 8-bit"), unlabelled.as_bytes());
}

#[test]
fn depth_number_and_length_have_ends() {
    let deep: String = (0..40)
        .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"))
        .collect();
    assert_eq!(converted(deep.as_bytes(), 4096), Err(Obstacle::TooComplex));
    let messages = "Content-Type: message/rfc822\r\n\r\n".repeat(40);
    assert_eq!(converted(messages.as_bytes(), 4096), Err(Obstacle::TooComplex));
    let many = format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--\r\n",
        "--b\r\n\r\nx\r\n".repeat(5000)
    );
    assert_eq!(converted(many.as_bytes(), 4096), Err(Obstacle::TooComplex));
    let long = format!("\r\n{}\r\n", "a".repeat(100_000));
    assert_eq!(converted(long.as_bytes(), 4096), Err(Obstacle::TooComplex));
}

/// Lines of a body, with everything that is awkward in them.
fn lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just(String::new()),
        Just("--".to_owned()),
        Just("--b0x".to_owned()),
        Just(".".to_owned()),
        Just("a=3D \t".to_owned()),
        "[a-zé=ü .\\-]{0,120}",
        Just("ü".repeat(200)),
    ];
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.join("\r\n"))
}

/// No message stands directly in a message: the independent reader panics on that.
fn entity(depth: u32, in_message: bool) -> BoxedStrategy<String> {
    let leaf = (
        prop_oneof!["text/plain; charset=utf-8", "text/html; charset=utf-8", "image/png"],
        prop::bool::ANY,
        lines(),
    )
        .prop_map(|(kind, label, body)| {
            let label = if label { "Content-Transfer-Encoding: 8bit\r\n" } else { "" };
            format!("Content-Type: {kind}\r\n{label}\r\n{body}\r\n")
        });
    if depth == 0 {
        return leaf.boxed();
    }
    let parts = prop::collection::vec(entity(depth - 1, false), 1..4);
    let multipart = parts.prop_map(move |parts| {
        let boundary = format!("b{depth}");
        let inner: String = parts.iter().map(|part| format!("--{boundary}\r\n{part}")).collect();
        format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{inner}--{boundary}--\r\n")
    });
    let message = entity(depth - 1, true).prop_map(|inner| {
        format!("Content-Type: message/rfc822\r\n\r\nMIME-Version: 1.0\r\n{inner}")
    });
    if in_message {
        return prop_oneof![leaf, multipart].boxed();
    }
    prop_oneof![leaf, multipart, message].boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // covers: X8-1
    /// An independent reader sees the same leaves before and after, and the result is 7-bit.
    #[test]
    fn nothing_is_lost(entity in entity(3, false), piece in 1usize..200) {
        let message = format!("Subject: x\r\nMIME-Version: 1.0\r\n{entity}");
        let out = converted(message.as_bytes(), piece).expect("a sound message");
        prop_assert!(out.is_ascii());
        prop_assert_eq!(leaves(&out), leaves(message.as_bytes()));
        prop_assert_eq!(&out, &converted(message.as_bytes(), message.len()).expect("again"));
        // Where nothing is 8-bit any more, nothing is left to do.
        prop_assert_eq!(converted(&out, 64).expect("again"), out);
    }

    /// Whatever comes in, it is converted to 7-bit or left alone; no panic, no growth without bound.
    #[test]
    fn any_octets(pieces in prop::collection::vec(prop_oneof![
        Just("\r\n".as_bytes().to_vec()), Just(b"--b".to_vec()), Just(b"--b--".to_vec()),
        Just(b"Content-Type: multipart/mixed; boundary=b".to_vec()), Just(b"\r\n\r\n".to_vec()),
        Just(b"Content-Type: message/rfc822\r\n\r\n".to_vec()),
        prop::collection::vec(any::<u8>().prop_filter("line ends come whole", |b| !matches!(b, 10 | 13)), 0..20),
    ], 0..40)) {
        let message = pieces.concat();
        if let Ok(out) = converted(&message, 16) {
            prop_assert!(out.is_ascii());
        }
    }
}
