//! Whatever a peer sends, and in whatever pieces it comes: the same replies, the same content, and no panic.

use std::sync::Arc;

use proptest::prelude::*;
use restante::mail::*;
use restante::smtp::*;

/// Lines and fragments that peers send, sense and nonsense.
const PIECES: &[&[u8]] = &[
    b"EHLO m.example\r\n",
    b"HELO m.example\r\n",
    b"MAIL FROM:<t@foo.example>\r\n",
    b"MAIL FROM:<> SIZE=5 BODY=8BITMIME\r\n",
    b"RCPT TO:<l@demo.example>\r\n",
    b"RCPT TO:<l@relay.example>\r\n",
    b"RCPT TO:<Postmaster>\r\n",
    b"DATA\r\n",
    b"BDAT 7\r\n",
    b"BDAT 3 LAST\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT -1\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"VRFY x\r\n",
    b"QUIT\r\n",
    b"AUTH PLAIN AGRlbW8AcmlnaHQ=\r\n",
    b"AUTH PLAIN\r\n",
    b"AUTH CRAM-MD5\r\n",
    b"ETRN demo.example\r\n",
    b"AUTH SCRAM-SHA-256 biwsbj1kZW1vLHI9YWJj\r\n",
    b"AGRlbW8AcmlnaHQ=\r\n",
    b"*\r\n",
    b"GET / HTTP/1.0\r\n",
    b"text\r\n",
    b".",
    b"..",
    b".\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"\xff",
    b"x",
    b"Received: y\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b" ",
];

/// What a session did, in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trace {
    sent: Vec<u8>,
    /// Each message that was to be committed: its content and what was found in it.
    messages: Vec<(Vec<u8>, ContentFacts)>,
    questions: Vec<String>,
    is_over: bool,
}

fn office(question: &Question) -> Answer {
    match question {
        Question::Recipient(request)
            if request.forward_path.domain().as_str() == "relay.example" =>
        {
            Answer::Verdict(Err(Refusal::NotOurDomain))
        }
        Question::Mail(_) | Question::Recipient(_) | Question::Content(_) => {
            Answer::Verdict(Ok(()))
        }
        Question::Commit(_) => {
            Answer::Committed(Ok(Receipt { id: QueueId::from_bits(7), size: 7 }))
        }
        Question::Nonce => Answer::Nonce([1; 32]),
        Question::Credential(name) => {
            Answer::Credential(Ok(Box::new(sasl::dummy_credential(&[2; 32], name))))
        }
        Question::Login(request) => match &request.proof {
            Proof::Password(password) if *password == "right".into() => {
                let login = Login::parse("demo").expect("valid");
                let domains = vec![Domain::parse("demo.example").expect("valid")];
                Answer::Login(Ok(Box::new(Account { login, domains, require_tls: false })))
            }
            _ => Answer::Login(Err(Refusal::LoginFailed)),
        },
        Question::Turn(_) => Answer::Turn(Err(Refusal::NoMail)),
        Question::Etrn(_) => Answer::Etrn(Ok(0)),
    }
}

fn play(door: Door, wire: &[u8], cuts: &[usize]) -> Trace {
    let terms = Terms {
        hostname: Domain::parse("mx.provider.example").expect("valid"),
        message_bytes_max: 60,
        recipients_max: 2,
        received_max: 3,
        tls_available: false,
        auth_requires_tls: false,
        mechanisms: MECHANISMS.to_vec(),
        auth_failures_max: 3,
        errors_max: 20,
        etrn: true,
    };
    let tls = Some(TlsFacts::default());
    let mut out = Vec::new();
    let mut trace = Trace::default();
    let mut body = Vec::new();
    let mut step = Step::Stay(Session::open(door, Arc::new(terms), tls, &mut out));
    let mut rest = wire;
    let mut cuts = cuts.iter().cycle();
    loop {
        let mut answer = None;
        for action in out.drain(..) {
            match action {
                Action::Send(octets) => trace.sent.extend(octets),
                Action::Store(octets) => body.extend(octets),
                Action::Discard => body.clear(),
                Action::Note(_) => {}
                Action::Release(lease) => panic!("nobody gave {lease:?}"),
                Action::Ask(question) => {
                    trace.questions.push(format!("{question:?}"));
                    answer = Some(office(&question));
                    if let Question::Commit(request) = question {
                        trace.messages.push((std::mem::take(&mut body), request.facts));
                    }
                }
            }
        }
        step = match (step, answer) {
            (Step::Stay(session), Some(answer)) => session.advance(Input::Answer(answer), &mut out),
            (Step::Stay(session), None) if !rest.is_empty() => {
                let size = cuts.next().copied().unwrap_or(1).clamp(1, rest.len());
                let (piece, more) = rest.split_at(size);
                rest = more;
                session.advance(Input::Bytes(piece), &mut out)
            }
            (Step::Stay(_), None) => return trace,
            (Step::Close, _) => {
                trace.is_over = true;
                return trace;
            }
            (other, _) => panic!("nothing asked for {other:?}"),
        };
    }
}

fn peer() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(PIECES).prop_map(<[u8]>::to_vec);
    let head = prop::bool::ANY.prop_map(|has_head| {
        let text: &[u8] =
            b"EHLO m.example\r\nMAIL FROM:<t@foo.example>\r\nRCPT TO:<l@demo.example>\r\n";
        if has_head { text.to_vec() } else { Vec::new() }
    });
    (head, prop::collection::vec(piece, 0..40))
        .prop_map(|(head, rest)| [head, rest.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    // covers: N-01, A6, A16
    #[test]
    fn pieces_do_not_matter(wire in peer(), cuts in prop::collection::vec(1usize..9, 1..8)) {
        for door in [Door::Mx, Door::Odmr] {
            let whole = play(door, &wire, &[usize::MAX]);
            let pieces = play(door, &wire, &cuts);
            prop_assert_eq!(String::from_utf8_lossy(&whole.sent), String::from_utf8_lossy(&pieces.sent));
            prop_assert_eq!(&whole, &pieces);
            for (content, facts) in &whole.messages {
                prop_assert_eq!(content.len() as u64, facts.size);
                let bare = content.iter().enumerate().any(|(at, octet)| match octet {
                    b'\r' => content.get(at + 1) != Some(&b'\n'),
                    b'\n' => at == 0 || content[at - 1] != b'\r',
                    octet => *octet == 0,
                });
                prop_assert!(!bare, "a bare line end was stored: {content:?}");
            }
            let text = String::from_utf8(whole.sent).expect("replies are text");
            for line in text.split_terminator("\r\n") {
                let (code, mark) = line.split_at(3);
                prop_assert!(code.parse::<u16>().is_ok_and(|code| (200..600).contains(&code)));
                prop_assert!(mark.starts_with([' ', '-']) && !mark.contains(['\r', '\n']));
            }
        }
    }

    #[test]
    fn any_octets_are_borne(wire in prop::collection::vec(any::<u8>(), 0..400)) {
        for door in [Door::Mx, Door::Odmr] {
            prop_assert_eq!(play(door, &wire, &[usize::MAX]), play(door, &wire, &[1]));
        }
    }
}
