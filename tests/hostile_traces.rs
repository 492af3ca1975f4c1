//! Loops, trace lines and the log: rows H1, H6, H7 and H8 of docs/security.md. H2 to H5 concern reports and stand in
//! their tests.

mod hostile_support;

use std::sync::{Mutex, OnceLock};

use hostile_support::peer::plain;
use hostile_support::{Arena, Peer, plan};
use restante::app::config::LogFormat;
use restante::app::logging;
use restante::mail::Timestamp;
use restante::smtp::Door;

/// Everything logged in this process, formatted by the program's own text format.
fn lines() -> &'static Mutex<Vec<String>> {
    struct Keeper;
    impl log::Log for Keeper {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            if record.target() == restante::provider::ledger::TARGET {
                let event = logging::Event::of(record, Timestamp(0));
                let mut kept = lines().lock().expect("lines");
                for format in [LogFormat::Text, LogFormat::Json] {
                    let line = logging::shape(&event, format, "host", 1);
                    kept.push(line.strip_suffix('\n').expect("a line").to_owned());
                }
                // Postfix itself writes several lines for some events.
                let lines = logging::shape(&event, LogFormat::Postfix, "host", 1);
                kept.extend(lines.split_terminator('\n').map(str::to_owned));
            }
        }
        fn flush(&self) {}
    }
    static LINES: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
    LINES.get_or_init(|| {
        log::set_boxed_logger(Box::new(Keeper)).expect("the first");
        log::set_max_level(log::LevelFilter::Trace);
        Mutex::default()
    })
}

#[test]
fn h1_a_loop_is_noticed_and_a_long_way_is_not_a_loop() {
    let arena = Arena::new();
    for (hops, code) in [(24, "250"), (90, "250"), (200, "554")] {
        let mut peer = arena.greeted(Door::Mx);
        peer.ask("MAIL FROM:<a@b.example>", "250");
        peer.ask("RCPT TO:<x@example.com>", "250");
        peer.ask("DATA", "354");
        peer.say(format!("{}\r\nx\r\n.\r\n", "Received: from a by b; now\r\n".repeat(hops)));
        peer.expect(code);
    }
}

#[test]
fn h6_no_trace_line_can_be_injected() {
    let arena = Arena::new();
    let names = [
        "a\x1b[2J".to_owned(),
        "x) Bcc: y".to_owned(),
        "a".repeat(480),
        "\u{202e}evil".to_owned(),
        "x\tby y".to_owned(),
        "[127.0.0.1](x)".to_owned(),
    ];
    for name in names {
        let mut peer = arena.peer(Door::Mx);
        peer.say(format!("EHLO {name}\r\n"));
        if peer.reply().expect("an answer")[0].starts_with('5') {
            continue;
        }
        peer.ask("MAIL FROM:<a@b.example>", "250");
        peer.ask("RCPT TO:<x@example.com>", "250");
        peer.ask("DATA", "354");
        peer.say("Subject: x\r\n\r\nx\r\n.\r\n");
        peer.expect("250");
        let body = arena.body(arena.heads().last().expect("one").id);
        let text = String::from_utf8(body).expect("text");
        let (trace, _) = text.split_once("Subject: x").expect("the content");
        assert!(trace.starts_with("Received: from ") && trace.is_ascii(), "{trace:?}");
        assert!(!trace.contains("\r\nBcc") && !trace.contains('\x1b'), "{trace:?}");
        assert!(trace.lines().all(|line| line.len() <= 998), "{trace:?}");
        let headers = trace.lines().filter(|line| !line.starts_with('\t')).count();
        assert_eq!(headers, 1, "{trace:?}");
    }
}

#[test]
fn h7_one_event_is_one_line_and_secrets_are_in_none() {
    let lines = lines();
    let arena = Arena::new();
    let evil = "x\u{202e}\x1b[2J\u{9b}";
    for name in [evil.to_owned(), "n".repeat(255), "acme\"=x y=z".to_owned()] {
        let mut peer = arena.secured(Door::Odmr);
        peer.ask(&plain("", &name, "a very secret guess"), "535");
    }
    let mut peer = arena.secured(Door::Odmr);
    peer.ask(&plain("", "acme", hostile_support::PASSWORD), "235");
    let mut peer = arena.greeted(Door::Mx);
    peer.say(format!("MAIL FROM:<{evil}@b.example>\r\n"));
    peer.expect_one(&["500", "501", "553"]);
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.ask("RCPT TO:<x@nobody.example>", "550");
    peer.say(format!("EHLO {}\r\n", "h".repeat(400)));
    peer.expect_one(&["250", "501"]);
    let lines = lines.lock().expect("lines");
    assert!(lines.iter().any(|line| line.contains("login-failed")), "{lines:?}");
    for line in lines.iter() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(!line.contains('\u{202e}') && !line.contains('\u{9b}'), "{line:?}");
        assert!(!line.contains("secret guess") && !line.contains("ordinary"), "{line:?}");
        assert!(line.len() < 1500, "{line:?}");
    }
}

#[test]
fn h8_only_our_own_balancers_are_believed() {
    let v1 = "PROXY TCP4 203.0.113.77 192.0.2.1 4711 25\r\n";
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([203, 0, 113, 77, 192, 0, 2, 1, 0x12, 0x67, 0, 25]);
    // From anybody else.
    let arena = Arena::new();
    let mut peer = arena.peer(Door::Mx);
    peer.say(v1);
    peer.expect_one(&["500", "421", "554"]);
    let mut peer = arena.peer(Door::Mx);
    peer.say(&v2);
    let reply = peer.reply();
    assert!(reply.is_none_or(|reply| ["500", "421", "554"].contains(&&reply[0][..3])));
    // From one of ours.
    let mut ours = plan();
    ours.policy.proxy_from = vec!["127.0.0.0/8".parse().expect("a network")];
    let arena = Arena::with(ours);
    let address = arena.open(Door::Mx, false);
    let mut peer = Peer::connect(address);
    peer.say([&v2[..], b"EHLO client.example\r\n"].concat());
    peer.expect("220");
    peer.expect("250");
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.ask("RCPT TO:<x@example.com>", "250");
    peer.ask("DATA", "354");
    peer.say("x\r\n.\r\n");
    peer.expect("250");
    let body = String::from_utf8(arena.body(arena.heads()[0].id)).expect("text");
    assert!(body.contains("([203.0.113.77])"), "{body}");
    let mut peer = Peer::connect(address);
    peer.say(v1);
    assert_eq!(peer.rest(), b"", "no header of version 2, no service");
}
