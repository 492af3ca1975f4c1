//! ATRN and ETRN against customers that want more than theirs: rows D1 to D16 of docs/security.md.

mod hostile_support;

use std::time::Duration;

use hostile_support::peer::plain;
use hostile_support::{Arena, PASSWORD, Peer, plan};
use restante::smtp::Door;

/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(150);

/// Mail for both customers.
fn with_mail() -> Arena {
    let arena = Arena::new();
    arena.queue(&["a@example.com"], "for acme\r\n");
    arena.queue(&["b@other.example"], "for other\r\n");
    arena
}

/// The customer's server behind the turn: takes everything, and gives all commands and contents it got.
fn take_all(peer: &mut Peer) -> Vec<String> {
    peer.say("220 customer.example\r\n");
    let mut heard = Vec::new();
    let mut in_data = false;
    while let Some(line) = peer.line() {
        let answer = match (&line, in_data) {
            (line, true) if line == "." => {
                in_data = false;
                "250 taken"
            }
            (_, true) => "",
            (line, _) if line.starts_with("EHLO") => "250-customer.example\r\n250 8BITMIME",
            (line, _) if line.starts_with("DATA") => {
                in_data = true;
                "354 go on"
            }
            (line, _) if line.starts_with("QUIT") => "221 bye",
            _ => "250 fine",
        };
        heard.push(line);
        if !answer.is_empty() {
            peer.say(format!("{answer}\r\n"));
        }
    }
    heard
}

/// A customer at the MX door, where a login serves ETRN only and is refused while ETRN is switched off.
fn at_mx(arena: &Arena) -> Peer {
    let mut peer = arena.secured(Door::Mx);
    peer.say(format!("{}\r\n", plain("", "acme", PASSWORD)));
    peer.expect_one(&["235", "502"]);
    peer
}

/// After this refusal the roles are what they were, whatever the peer pretends.
#[track_caller]
fn not_reversed(peer: &mut Peer) {
    peer.say("220 x\r\n");
    if let Some(reply) = peer.reply() {
        assert!(reply[0].starts_with("500") || reply[0].starts_with("421"), "{reply:?}");
    }
    assert!(peer.is_silent(SILENCE));
}

#[test]
fn d1_no_turn_without_login() {
    let arena = with_mail();
    let mut peer = arena.peer(Door::Odmr);
    peer.say("ATRN\r\n");
    peer.expect_one(&["503", "530"]);
    not_reversed(&mut peer);

    let mut peer = arena.secured(Door::Odmr);
    peer.ask("ATRN", "530");
    peer.ask(&plain("", "acme", "wrong"), "535");
    peer.ask("ATRN", "530");
    peer.ask("AUTH PLAIN", "334");
    peer.ask("*", "501");
    peer.ask("ATRN example.com", "530");
    not_reversed(&mut peer);
    assert_eq!(arena.waiting(), ["a@example.com", "b@other.example"]);
}

#[test]
fn d2_one_foreign_domain_and_nothing_is_served() {
    let arena = with_mail();
    for list in [
        "other.example",
        "example.com,other.example",
        "other.example,example.com",
        "example.com,example.com,other.example",
    ] {
        let mut peer = arena.customer("acme");
        peer.ask(&format!("ATRN {list}"), "450");
        not_reversed(&mut peer);
    }
    assert_eq!(arena.waiting(), ["a@example.com", "b@other.example"]);
}

#[test]
fn d3_a_foreign_and_an_unknown_domain_are_answered_alike() {
    let arena = with_mail();
    let mut peer = arena.customer("acme");
    let unknown = peer.ask("ATRN unknown.example", "450");
    assert_eq!(peer.ask("ATRN other.example", "450"), unknown);
    let mut text = unknown.concat();
    text.make_ascii_lowercase();
    assert!(!text.contains("other") && !text.contains("unknown.example"), "{text}");
}

#[test]
fn d4_arguments_are_never_code() {
    let arena = with_mail();
    for argument in [
        "' OR '1'='1",
        "x'; DROP TABLE q;--",
        "\"; rm -rf /",
        "example.com\0other.example",
        "${run{id}}",
    ] {
        let mut peer = arena.customer("acme");
        peer.say(format!("ATRN {argument}\r\n"));
        peer.expect_one(&["450", "500", "501"]);
        peer.say(format!("ETRN {argument}\r\n"));
        peer.expect_one(&["450", "458", "459", "500", "501", "502", "503"]);
        peer.in_step();
    }
    assert_eq!(arena.waiting(), ["a@example.com", "b@other.example"]);
}

#[test]
fn d5_look_alike_punycode_is_never_a_customers_domain() {
    let arena = with_mail();
    for name in ["xn--example-.com", "example.com.xn--", "xn--example.com", "xn--a.example.com"] {
        let mut peer = arena.customer("acme");
        peer.say(format!("ATRN {name}\r\n"));
        peer.expect_one(&["450", "501"]);
        let mut peer = arena.greeted(Door::Mx);
        peer.ask("MAIL FROM:<a@b.example>", "250");
        peer.say(format!("RCPT TO:<x@{name}>\r\n"));
        peer.expect_one(&["501", "550", "553"]);
    }
}

#[test]
fn d6_only_the_whole_name_is_the_name() {
    let arena = with_mail();
    for name in [
        "xexample.com",
        "example.com.evil",
        ".example.com",
        "@example.com",
        "#example.com",
        "*",
        "%",
        "example.com..",
        "example.com\0x",
        "example.com:25",
        "com",
        "example",
    ] {
        let mut peer = arena.customer("acme");
        peer.say(format!("ATRN {name}\r\n"));
        peer.expect_one(&["450", "500", "501"]);
        not_reversed(&mut peer);
    }
    assert_eq!(arena.waiting(), ["a@example.com", "b@other.example"]);
}

#[test]
fn d7_odd_lists_are_refused_or_mean_each_domain_once() {
    for argument in [
        "example.com.",
        " example.com",
        "example.com ",
        "example.com, example.org",
        "example.com,example.com",
        "EXAMPLE.com",
    ] {
        let arena = with_mail();
        let mut peer = arena.customer("acme");
        peer.say(format!("ATRN {argument}\r\n"));
        if peer.expect_one(&["250", "450", "501"])[0].starts_with("250") {
            let heard = take_all(&mut peer);
            let taken = heard.iter().filter(|line| line.starts_with("MAIL")).count();
            assert_eq!(taken, 1, "{argument:?}: {heard:?}");
            assert!(!heard.concat().contains("other"), "{argument:?}: {heard:?}");
        }
    }
}

// covers: E-17
#[test]
fn d8_etrn_amplifies_nothing() {
    let arena = with_mail();
    for argument in ["@com", "@", "#", "@.", "*"] {
        let mut peer = at_mx(&arena);
        peer.say(format!("ETRN {argument}\r\n"));
        peer.expect_one(&["458", "459", "501", "502"]);
    }
    let mut peer = at_mx(&arena);
    let mut asked = 0;
    loop {
        if peer.try_say("ETRN other.example\r\n").is_err() {
            break;
        }
        match peer.reply() {
            Some(reply) if reply[0].starts_with("421") => break,
            Some(reply) => assert!(reply[0].starts_with('4') || reply[0].starts_with('5')),
            None => break,
        }
        asked += 1;
        assert!(asked < 100, "no end to refused ETRN");
    }
}

#[test]
fn d9_etrn_has_no_place_in_a_transaction_and_no_echo() {
    let arena = with_mail();
    let mut peer = at_mx(&arena);
    peer.say("ETRN example.com\r\n");
    peer.reply().expect("an answer");
    assert!(peer.is_silent(SILENCE), "nothing is sent on this connection");
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.say("ETRN example.com\r\n");
    peer.expect_one(&["502", "503"]);
    peer.ask("RCPT TO:<a@example.com>", "250");
}

#[test]
fn d11_there_is_no_turn_at_the_mx_door() {
    let arena = with_mail();
    let mut peer = arena.secured(Door::Mx);
    peer.say("ATRN example.com\r\n");
    peer.expect_one(&["502", "530"]);
    let mut peer = at_mx(&arena);
    peer.ask("ATRN example.com", "502");
    not_reversed(&mut peer);
}

#[test]
fn d12_a_customer_sees_its_own_recipients_only() {
    let arena = Arena::new();
    arena.queue(&["a@example.com", "b@other.example", "c@example.org"], "Subject: x\r\n\r\nx\r\n");
    let mut acme = arena.customer("acme");
    acme.ask("ATRN", "250");
    let heard = take_all(&mut acme).join("\n");
    assert!(heard.contains("<a@example.com>") && heard.contains("<c@example.org>"), "{heard}");
    assert!(!heard.contains("other") && !heard.contains("for <"), "{heard}");
    arena.until("acme's mail is gone", |arena| arena.waiting() == ["b@other.example"]);
    let mut other = arena.customer("other");
    other.ask("ATRN", "250");
    let heard = take_all(&mut other).join("\n");
    assert!(heard.contains("<b@other.example>"), "{heard}");
    assert!(!heard.contains("example.com") && !heard.contains("example.org"), "{heard}");
    arena.until("all is gone", |arena| arena.waiting().is_empty());
}

#[test]
fn d13_a_login_is_no_submission() {
    let arena = with_mail();
    let mut peer = arena.customer("acme");
    peer.say("MAIL FROM:<a@example.com>\r\n");
    if peer.expect_one(&["250", "502", "503"])[0].starts_with("250") {
        peer.ask("RCPT TO:<x@elsewhere.example>", "550");
    }
    let mut peer = at_mx(&arena);
    peer.ask("MAIL FROM:<a@example.com>", "250");
    peer.ask("RCPT TO:<x@elsewhere.example>", "550");
}

#[test]
fn d14_a_command_is_no_greeting() {
    for first in
        ["ATRN\r\n", "MAIL FROM:<>\r\n", "SSH-2.0\r\n", "\r\n", "250 hello\r\n", "554 no\r\n"]
    {
        let mut quick = plan();
        quick.speed = 20;
        let arena = Arena::with(quick);
        arena.queue(&["a@example.com"], "for acme\r\n");
        let mut peer = arena.customer("acme");
        peer.ask("ATRN", "250");
        peer.say(first);
        let rest = String::from_utf8(peer.rest()).expect("text");
        assert!(rest.is_empty() || rest == "QUIT\r\n", "{first:?}: {rest:?}");
        arena.until_quiet();
        assert_eq!(arena.waiting(), ["a@example.com"], "{first:?}");
    }
}

#[test]
fn d15_octets_behind_atrn_move_no_mail() {
    let tail = "250 ok\r\n".repeat(8);
    for behind in ["QUIT\r\n", &tail, "220 x\r\n250 x\r\n"] {
        let arena = with_mail();
        let mut peer = arena.customer("acme");
        peer.say(format!("ATRN\r\n{behind}"));
        let rest = peer.reply().expect("an answer");
        assert!(!rest[0].starts_with("250"), "{rest:?}");
        peer.half_close();
        let rest = String::from_utf8(peer.rest()).expect("text");
        assert!(!rest.contains("MAIL") && !rest.contains("EHLO"), "{rest}");
        arena.until_quiet();
        assert_eq!(arena.waiting(), ["a@example.com", "b@other.example"]);
    }
}

#[test]
fn d16_every_reply_to_atrn_is_one_line() {
    let arena = with_mail();
    let mut peer = arena.customer("acme");
    for argument in ["", " example.com extra", " other.example", " ,", " example.org"] {
        peer.say(format!("ATRN{argument}\r\n"));
        let reply = peer.reply().expect("an answer");
        assert_eq!(reply.len(), 1, "{reply:?}");
        if reply[0].starts_with("250") {
            take_all(&mut peer);
            peer = arena.customer("acme");
        }
    }
    let mut peer = arena.secured(Door::Odmr);
    assert_eq!(peer.ask("ATRN", "530").len(), 1);
}

#[test]
fn turns_in_vain_run_out_for_a_while() {
    let mut plan = plan();
    plan.policy.turns_per_minute = 5;
    let arena = Arena::with(plan);
    for _ in 0..5 {
        arena.customer("acme").ask("ATRN", "453");
    }
    let mut peer = arena.customer("acme");
    let reply = peer.ask("ATRN", "450");
    assert!(reply[0].contains("too many"), "{reply:?}");
    // Others are not concerned, and neither is mail that waits for them.
    arena.queue(&["b@other.example"], "x\r\n");
    arena.customer("other").ask("ATRN", "250");
}
