//! The provider as client against a hostile customer's server: rows G1 to G7 of docs/security.md, and B2's rule that
//! nothing unasked-for is believed.

mod hostile_support;

use std::time::{Duration, Instant};

use hostile_support::{Arena, Peer, customer, plan};
use restante::mail::Settings;
use restante::smtp::Door;

/// A provider with quick clocks and these messages for acme.
fn with(contents: &[&str]) -> Arena {
    with_settings(contents, Settings::default())
}

fn with_settings(contents: &[&str], settings: Settings) -> Arena {
    let mut plan = plan();
    plan.speed = 50;
    let mut acme = customer("acme", &["example.com"]);
    acme.settings = settings;
    plan.customers = vec![acme];
    let arena = Arena::with(plan);
    for content in contents {
        arena.queue(&["a@example.com"], content);
    }
    arena
}

/// The customer right behind the 250 to ATRN.
fn reversed(arena: &Arena) -> Peer {
    let mut peer = arena.customer("acme");
    peer.ask("ATRN", "250");
    peer
}

/// Up to and with the reply to EHLO.
fn hello(peer: &mut Peer, keywords: &str) {
    peer.say("220 customer.example\r\n");
    assert!(peer.line().expect("EHLO").starts_with("EHLO "));
    peer.say(keywords);
}

/// All lines until a lone dot, unstuffed, in one piece.
fn content(peer: &mut Peer) -> String {
    let mut whole = String::new();
    loop {
        let line = peer.line().expect("content");
        if line == "." {
            return whole;
        }
        whole.push_str(line.strip_prefix('.').unwrap_or(&line));
        whole.push_str("\r\n");
    }
}

/// The peer is given up within this time, and all mail is kept.
#[track_caller]
fn given_up(arena: &Arena, peer: &mut Peer, count: usize) {
    let rest = String::from_utf8_lossy(&peer.rest()).into_owned();
    assert!(!rest.contains("MAIL FROM"), "{rest}");
    arena.until_quiet();
    assert_eq!(arena.waiting().len(), count, "mail is kept");
}

#[test]
fn b2_replies_that_were_not_asked_for_are_not_believed() {
    let arena = with(&["x\r\n"]);
    // In a reversed session there is no STARTTLS by us, whatever is offered; and no reply before its command.
    let mut peer = reversed(&arena);
    hello(
        &mut peer,
        "250-customer.example\r\n250-STARTTLS\r\n250 8BITMIME\r\n220 go\r\n250 inj\r\n",
    );
    let rest = String::from_utf8_lossy(&peer.rest()).into_owned();
    assert!(!rest.contains("STARTTLS"), "{rest}");
    arena.until_quiet();
    assert_eq!(arena.waiting().len(), 1);
}

#[test]
fn g1_every_dot_arrives_and_none_more() {
    let dots = format!("a\r\n\r\n.\r\n..\r\n.x\r\n{}end\r\n", ".\r\n".repeat(20_000));
    let arena = Arena::new();
    let mut sender = arena.greeted(Door::Mx);
    sender.ask("MAIL FROM:<a@b.example>", "250");
    sender.ask("RCPT TO:<a@example.com>", "250");
    sender.ask("DATA", "354");
    let stuffed: String = dots
        .split_inclusive("\r\n")
        .map(|line| if line.starts_with('.') { format!(".{line}") } else { line.to_owned() })
        .collect();
    sender.say(format!("{stuffed}.\r\n"));
    sender.expect("250");
    sender.ask("QUIT", "221");
    let mut peer = arena.customer("acme");
    peer.ask("ATRN", "250");
    hello(&mut peer, "250 customer.example\r\n");
    for verb in ["MAIL", "RCPT"] {
        assert!(peer.line().expect("a command").starts_with(verb));
        peer.say("250 fine\r\n");
    }
    assert_eq!(peer.line().expect("DATA"), "DATA");
    peer.say("354 go on\r\n");
    let taken = content(&mut peer);
    let (_, own) = taken.split_once("+0000\r\n").expect("the trace line");
    assert!(own == dots, "not octet for octet");
    peer.say("250 taken\r\n");
    assert_eq!(peer.line().expect("QUIT"), "QUIT");
    peer.say("221 bye\r\n");
    arena.until_quiet();
    assert!(arena.waiting().is_empty());
}

#[test]
fn g2_replies_without_end_are_given_up() {
    let endless = "250-x\r\n".repeat(10_000);
    let long = format!("220 {}\r\n", "A".repeat(8 << 20));
    for greeting in [endless.as_str(), long.as_str(), "250-a\r\n451 b\r\n"] {
        let arena = with(&["x\r\n"]);
        let mut peer = reversed(&arena);
        let began = Instant::now();
        let _ = peer.try_say(greeting);
        given_up(&arena, &mut peer, 1);
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    for reply in [endless.as_str(), "250-a\r\n451 b\r\n", "250_x\r\n", "25\r\n"] {
        let arena = with(&["x\r\n"]);
        let mut peer = reversed(&arena);
        peer.say("220 customer.example\r\n");
        assert!(peer.line().expect("EHLO").starts_with("EHLO "));
        let _ = peer.try_say(reply);
        given_up(&arena, &mut peer, 1);
    }
}

#[test]
fn g3_what_is_not_offered_is_not_used() {
    let arena = with(&["x\r\n"]);
    let mut peer = reversed(&arena);
    peer.say("220 customer.example\r\n");
    assert!(peer.line().expect("EHLO").starts_with("EHLO "));
    peer.say("502 what?\r\n");
    assert!(peer.line().expect("HELO").starts_with("HELO "));
    peer.say("250 customer.example\r\n");
    assert_eq!(peer.line().expect("MAIL"), "MAIL FROM:<sender@remote.example>");
    assert!(peer.is_silent(Duration::from_millis(100)), "pipelined without being asked");
    peer.say("250 fine\r\n");
    assert_eq!(peer.line().expect("RCPT"), "RCPT TO:<a@example.com>");
    peer.say("250 fine\r\n");
    assert_eq!(peer.line().expect("DATA"), "DATA");
    peer.say("354 go on\r\n");
    content(&mut peer);
    peer.say("250 taken\r\n");
    assert_eq!(peer.line().expect("QUIT"), "QUIT");
}

#[test]
fn g4_what_cannot_be_taken_is_not_sent_anyway() {
    let arena = with(&[]);
    let mut sender = arena.greeted(Door::Mx);
    sender.ask("MAIL FROM:<a@b.example> BODY=8BITMIME", "250");
    sender.ask("RCPT TO:<a@example.com>", "250");
    sender.ask("DATA", "354");
    sender.say("Subject: \u{e4}\r\n\r\n\u{e4}\r\n.\r\n");
    sender.expect("250");
    for keywords in ["250 customer.example\r\n", "250-customer.example\r\n250 SIZE 10\r\n"] {
        let mut peer = reversed(&arena);
        hello(&mut peer, keywords);
        let line = peer.line().expect("a command");
        assert_eq!(line, "QUIT", "eight bits, or too much, are not sent");
        peer.say("221 bye\r\n");
        arena.until_quiet();
        if arena.waiting().is_empty() || arena.heads()[0].recipients[0].state != Default::default()
        {
            // It failed for good the first time, with a report owed.
            return;
        }
    }
}

#[test]
fn g5_odd_codes_move_no_content() {
    for (at, odd) in [
        ("MAIL", "354 go on\r\n"),
        ("MAIL", "999 odd\r\n"),
        ("MAIL", "\r\n"),
        ("MAIL", "\x00\x01\x02\r\n"),
        ("DATA", "250 fine\r\n"),
        ("DATA", "220 fine\r\n"),
    ] {
        let arena = with(&["the content\r\n"]);
        let mut peer = reversed(&arena);
        hello(&mut peer, "250 customer.example\r\n");
        loop {
            let line = peer.line().expect("a command");
            if line.starts_with(at) {
                peer.say(odd);
                break;
            }
            peer.say("250 fine\r\n");
        }
        let rest = String::from_utf8_lossy(&peer.rest()).into_owned();
        assert!(!rest.contains("the content"), "{at} {odd:?}: {rest}");
        arena.until_quiet();
        assert_eq!(arena.waiting().len(), 1, "{at} {odd:?}: kept");
    }
}

#[test]
fn g6_replies_before_their_commands_are_a_broken_session() {
    let arena = with(&["the content\r\n"]);
    let mut peer = reversed(&arena);
    peer.say("220 x\r\n250 x\r\n250 x\r\n250 x\r\n354 x\r\n250 x\r\n");
    let rest = String::from_utf8_lossy(&peer.rest()).into_owned();
    assert!(!rest.contains("the content"), "{rest}");
    arena.until_quiet();
    assert_eq!(arena.waiting().len(), 1);
}

#[test]
fn g7_the_end_is_said_and_its_absence_loses_nothing() {
    let arena = with(&["one\r\n", "two\r\n"]);
    let mut peer = reversed(&arena);
    hello(&mut peer, "250 customer.example\r\n");
    for _ in 0..2 {
        peer.line().expect("a command");
        peer.say("250 fine\r\n");
    }
    peer.line().expect("DATA");
    peer.say("354 go on\r\n");
    content(&mut peer);
    peer.say("250 taken\r\n");
    assert!(peer.line().expect("the next").starts_with("MAIL"));
    peer.say("421 closing\r\n");
    // QUIT may still be said; nothing else.
    let rest = String::from_utf8_lossy(&peer.rest()).into_owned();
    assert!(rest.is_empty() || rest == "QUIT\r\n", "{rest}");
    arena.until_quiet();
    assert_eq!(arena.waiting().len(), 1);
    let mut peer = reversed(&arena);
    hello(&mut peer, "250 customer.example\r\n");
    for _ in 0..2 {
        peer.line().expect("a command");
        peer.say("250 fine\r\n");
    }
    peer.line().expect("DATA");
    peer.say("354 go on\r\n");
    content(&mut peer);
    peer.say("250 taken\r\n");
    assert_eq!(peer.line().expect("QUIT"), "QUIT");
    drop(peer);
    arena.until_quiet();
    assert!(arena.waiting().is_empty());
}
