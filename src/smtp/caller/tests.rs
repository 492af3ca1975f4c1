//! Dialogues as transcripts: `P` is the provider, `C` what the caller must say. Each runs whole and byte by byte.

use super::*;
use crate::mail::Secret;

fn orders(encryption: Encryption) -> Orders {
    Orders {
        hello: "home.example".into(),
        domains: vec![],
        encryption,
        keys: Keys {
            login: "tim".into(),
            secret: Some(Secret::from("tanstaaftanstaaf")),
            has_certificate: false,
        },
        mechanisms: crate::smtp::MECHANISMS.to_vec(),
        nonce: [1; 24],
        turn_patience: Seconds(0),
    }
}

/// How a transcript came out: the ending, or the turn with its early bytes.
type Outcome = Result<Vec<u8>, Ending>;

/// Plays a transcript. `-- tls --` stands for a handshake, `-- ready --` for the opened target.
fn play(orders: Orders, script: &str, step: usize) -> Outcome {
    let tls = (orders.encryption == Encryption::Implicit).then(TlsFacts::default);
    let mut said = Vec::new();
    let mut state = Step::Stay(Caller::new(orders, tls));
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        state = match (line.split_once(' ').expect("a party and its words"), state) {
            (("C:", words), state) => {
                let expected = format!("{words}\r\n");
                let heard = String::from_utf8_lossy(&said).into_owned();
                assert!(heard.starts_with(&expected), "expected {words}, heard {heard:?}");
                said.drain(..expected.len());
                state
            }
            (("P:", words), Step::Stay(caller)) => {
                assert_eq!(String::from_utf8_lossy(&said), "", "said too much before {words}");
                // "␍␊" joins lines that come in one packet.
                let bytes = format!("{}\r\n", words.replace("␍␊", "\r\n"));
                feed(caller, bytes.as_bytes(), step, &mut said)
            }
            (("--", "tls --"), Step::Upgrade(upgrade)) => {
                Step::Stay(upgrade.secured(TlsFacts::default(), &mut said))
            }
            (("--", "ready --"), Step::Ready(ready)) => Step::Stay(ready.turn(&mut said)),
            (("--", "leave --"), Step::Ready(ready)) => Step::Stay(ready.leave(&mut said)),
            (("--", "cut --"), Step::Stay(caller)) => caller.advance(Input::Ended, &mut said),
            (("--", "silence --"), Step::Stay(caller)) => caller.advance(Input::Expired, &mut said),
            (words, state) => panic!("{words:?} does not fit {state:?}"),
        };
    }
    assert_eq!(String::from_utf8_lossy(&said), "", "said too much at the end");
    match state {
        Step::Turned(turned) => Ok(turned.early),
        Step::Over(ending) => Err(ending),
        other => panic!("not over: {other:?}"),
    }
}

fn feed(mut caller: Caller, bytes: &[u8], step: usize, said: &mut Vec<u8>) -> Step {
    let mut parts = bytes.chunks(step).peekable();
    while let Some(part) = parts.next() {
        match caller.advance(Input::Bytes(part), said) {
            Step::Stay(next) => caller = next,
            other => {
                assert!(parts.peek().is_none(), "bytes were left over");
                return other;
            }
        }
    }
    Step::Stay(caller)
}

fn play_all(orders: impl Fn() -> Orders, script: &str) -> Outcome {
    let whole = play(orders(), script, usize::MAX);
    assert_eq!(whole, play(orders(), script, 1), "cut into single bytes");
    whole
}

fn clear() -> Orders {
    orders(Encryption::Clear)
}

const LOGIN: &str = "
    P: 220-mx.provider.example welcomes you
    P: 220 ESMTP
    C: EHLO home.example
    P: 250-mx.provider.example
    P: 250-AUTH=CRAM-MD5 LOGIN
    P: 250 ATRN
    C: AUTH CRAM-MD5
    P: 334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+
    C: dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw
    P: 235 ok
    -- ready --";

#[test]
fn a_call_with_a_multi_line_greeting_ends_in_the_turn() {
    let script = format!("{LOGIN}\nC: ATRN\nP: 250 OK now reversing the connection");
    assert_eq!(play_all(clear, &script), Ok(vec![]));
}

#[test]
fn domains_are_listed_without_spaces() {
    let with_domains = || Orders {
        domains: ["example.org", "EXAMPLE.com"].map(|d| Domain::parse(d).expect("a domain")).into(),
        ..clear()
    };
    let script = format!("{LOGIN}\nC: ATRN example.org,example.com\nP: 250-OK\nP: 250 reversing");
    assert_eq!(play_all(with_domains, &script), Ok(vec![]));
}

#[test]
fn bytes_behind_the_250_are_the_providers_first_command() {
    let script = format!("{LOGIN}\nC: ATRN\nP: 250 nothing for you␍␊QUIT");
    assert_eq!(play(clear(), &script, usize::MAX), Ok(b"QUIT\r\n".to_vec()));
}

#[test]
fn every_refusal_of_the_turn_is_told_apart() {
    for code in [450, 451, 502, 530, 454, 554] {
        let script = format!("{LOGIN}\nC: ATRN\nP: {code} no\nC: QUIT\nP: 221 bye");
        let heard = PeerReply { code, text: "no".into() };
        assert_eq!(play_all(clear, &script), Err(Ending::Refused(Stage::Turn, heard)));
    }
    let script = format!("{LOGIN}\nC: ATRN\nP: 453 no mail\nC: QUIT\n-- cut --");
    let heard = PeerReply { code: 453, text: "no mail".into() };
    assert_eq!(play_all(clear, &script), Err(Ending::NoMail(heard)));
    let script = format!("{LOGIN}\nC: ATRN\nP: 421 closing");
    let heard = PeerReply { code: 421, text: "closing".into() };
    assert_eq!(play_all(clear, &script), Err(Ending::Refused(Stage::Turn, heard)));
}

#[test]
fn the_caller_can_leave_before_the_turn() {
    let script = LOGIN.replace("-- ready --", "-- leave --");
    let script = format!("{script}\nC: QUIT\nP: 221 bye");
    assert_eq!(play_all(clear, &script), Err(Ending::Left));
}

const UP_TO_STARTTLS: &str = "
    P: 220 mx
    C: EHLO home.example
    P: 250-mx
    P: 250-AUTH CRAM-MD5
    P: 250 STARTTLS
    C: STARTTLS";

#[test]
fn what_was_said_before_tls_is_forgotten() {
    let script = format!(
        "{UP_TO_STARTTLS}
        P: 220 go
        -- tls --
        C: EHLO home.example
        P: 250-mx
        P: 250 AUTH PLAIN
        C: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm
        P: 235 ok
        -- ready --
        C: ATRN
        P: 250 ok"
    );
    assert_eq!(play_all(|| orders(Encryption::StartTls), &script), Ok(vec![]));
}

#[test]
fn clear_text_behind_the_reply_to_starttls_ends_the_call() {
    let script = format!("{UP_TO_STARTTLS}\nP: 220 go␍␊250 injected");
    let outcome = play(orders(Encryption::StartTls), &script, usize::MAX);
    assert_eq!(outcome, Err(Ending::Injected));
    let script = format!("{UP_TO_STARTTLS}\nP: 220 go␍␊2");
    let outcome = play(orders(Encryption::StartTls), &script, usize::MAX);
    assert_eq!(outcome, Err(Ending::Injected));
}

#[test]
fn without_starttls_nothing_is_said_of_the_login() {
    let script = "
        P: 220 mx
        C: EHLO home.example
        P: 250-mx
        P: 250 AUTH CRAM-MD5
        C: QUIT
        P: 221 bye";
    assert_eq!(play_all(|| orders(Encryption::StartTls), script), Err(Ending::NoStartTls));
}

#[test]
fn a_refused_login_is_not_tried_with_a_weaker_mechanism() {
    let script = "
        P: 220 mx
        C: EHLO home.example
        P: 250-mx
        P: 250 AUTH PLAIN CRAM-MD5
        C: AUTH CRAM-MD5
        P: 535 5.7.8 no
        C: QUIT
        P: 221 bye";
    let heard = PeerReply { code: 535, text: "5.7.8 no".into() };
    let outcome = play_all(|| orders(Encryption::Implicit), script);
    assert_eq!(outcome, Err(Ending::Refused(Stage::Login, heard)));
}

#[test]
fn plain_is_never_said_in_clear_text() {
    let script = "
        P: 220 mx
        C: EHLO home.example
        P: 250-mx
        P: 250 AUTH PLAIN LOGIN
        C: QUIT
        P: 221 bye";
    let offered = vec!["PLAIN".into(), "LOGIN".into()];
    assert_eq!(play_all(clear, script), Err(Ending::NoMechanism(offered)));
}

#[test]
fn a_server_that_skips_its_proof_is_left() {
    let script = "
        P: 220 mx
        C: EHLO home.example
        P: 250-mx
        P: 250 AUTH SCRAM-SHA-256
        C: AUTH SCRAM-SHA-256 biwsbj10aW0scj1BUUVCQVFFQkFRRUJBUUVCQVFFQkFRRUJBUUVCQVFFQg==
        P: 235 welcome
        C: QUIT
        P: 221 bye";
    assert_eq!(play_all(clear, script), Err(Ending::Login(LoginFault::Unproven)));
}

#[test]
fn a_challenge_that_is_no_base64_cancels_the_login() {
    let script = "
        P: 220 mx
        C: EHLO home.example
        P: 250-mx
        P: 250 AUTH CRAM-MD5
        C: AUTH CRAM-MD5
        P: 334 <not base64>
        C: *
        C: QUIT
        P: 501 cancelled";
    assert_eq!(play_all(clear, script), Err(Ending::Login(LoginFault::Garbled)));
}

#[test]
fn a_long_login_waits_for_the_servers_leave_to_speak() {
    let mut long = orders(Encryption::Implicit);
    long.keys.secret = Some(Secret::from("x".repeat(400).as_str()));
    let answer = BASE64.encode(format!("\0tim\0{}", "x".repeat(400)));
    let script = format!(
        "P: 220 mx
        C: EHLO home.example
        P: 250-mx
        P: 250 AUTH PLAIN
        C: AUTH PLAIN
        P: 334
        C: {answer}
        P: 235 ok
        -- ready --
        C: ATRN
        P: 250 ok"
    );
    // "334" needs its space in the helper's form.
    let script = script.replace("P: 334\n", "P: 334 \n");
    assert_eq!(play_all(|| long.clone(), &script), Ok(vec![]));
}

#[test]
fn silence_loss_and_noise_are_named_with_their_place() {
    assert_eq!(play_all(clear, "-- cut --"), Err(Ending::Lost(Stage::Greeting)));
    assert_eq!(play_all(clear, "-- silence --"), Err(Ending::Silent(Stage::Greeting)));
    let noise = play(clear(), "P: SSH-2.0-OpenSSH_9.2", usize::MAX);
    assert_eq!(noise, Err(Ending::Garbled(Stage::Greeting, Malformed::Syntax)));
    let script = format!("{LOGIN}\nC: ATRN\n-- silence --");
    assert_eq!(play_all(clear, &script), Err(Ending::Silent(Stage::Turn)));
    let script = "P: 554 no service\nC: QUIT\nP: 221 bye";
    let heard = PeerReply { code: 554, text: "no service".into() };
    assert_eq!(play_all(clear, script), Err(Ending::Refused(Stage::Greeting, heard)));
}

#[test]
fn the_reply_to_the_turn_may_take_ten_minutes_at_least() {
    let mut said = Vec::new();
    let ready = Ready {
        orders: clear(),
        unread: Vec::new(),
        offers: Offers::default(),
        mechanism: "PLAIN",
    };
    assert!(ready.turn(&mut said).patience() >= Seconds(600));
}
