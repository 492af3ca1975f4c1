//! Addresses that want to be more than addresses: rows F1 to F11 of docs/security.md.

mod hostile_support;

use hostile_support::{Arena, Plan, customer, plan};
use restante::smtp::Door;

/// The reply to this RCPT, and whether the session is in step behind it.
#[track_caller]
fn rcpt(arena: &Arena, path: impl AsRef<[u8]>) -> String {
    let mut peer = arena.greeted(Door::Mx);
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.say([b"RCPT TO:", path.as_ref(), b"\r\n"].concat());
    let reply = peer.reply().expect("an answer").concat();
    peer.in_step();
    reply
}

#[track_caller]
fn refused(arena: &Arena, path: impl AsRef<[u8]>) {
    let reply = rcpt(arena, path.as_ref());
    let path = String::from_utf8_lossy(path.as_ref());
    assert!(reply.starts_with('5'), "{path}: {reply}");
}

#[test]
fn f1_no_relay_for_anybody() {
    let arena = Arena::new();
    for path in [
        "<u@relay.example>",
        "<\"u@relay.example\"@example.com.evil>",
        "<u@example.com@relay.example>",
        "<u@relay.example@example.com>",
        "<@example.com:u@relay.example>",
        "<u@xexample.com>",
        "<u@example.com.evil>",
        "<u@[127.0.0.1]>",
        "<u@[IPv6:::1]>",
        "<u@localhost>",
        "<u>",
        "<>",
        "<@>",
        "<u@>",
    ] {
        refused(&arena, path);
    }
}

#[test]
fn f2_clever_local_parts_are_refused_or_passed_on_as_they_are() {
    let arena = Arena::new();
    let clever = [
        "u%relay.example@example.com",
        "relay!u@example.com",
        "\"u@relay.example\"@example.com",
        "|cat@example.com",
        "${run{id}}@example.com",
        "`id`@example.com",
    ];
    let mut taken = Vec::new();
    for path in clever {
        let reply = rcpt(&arena, format!("<{path}>"));
        if reply.starts_with("250") {
            arena.queue(&[path], "x\r\n");
            taken.push(path.to_owned());
        }
    }
    taken.sort();
    assert_eq!(arena.waiting(), taken, "octet for octet");
}

#[test]
fn f3_a_source_route_is_dropped_or_refused() {
    let arena = Arena::new();
    let mut peer = arena.greeted(Door::Mx);
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.say("RCPT TO:<@hop.example:u@example.com>\r\n");
    if peer.reply().expect("an answer")[0].starts_with("250") {
        peer.ask("DATA", "354");
        peer.say("x\r\n.\r\n");
        peer.expect("250");
        assert_eq!(arena.waiting(), ["u@example.com"]);
    }
    refused(&arena, "<@hop.example:u@relay.example>");
}

#[test]
fn f4_a_domain_is_one_queue_in_any_case() {
    let arena = Arena::new();
    arena.queue(&["U.Ser@EXAMPLE.Com"], "x\r\n");
    arena.queue(&["U.Ser@example.com"], "x\r\n");
    let domain = hostile_support::domain("example.com");
    let count = futures::executor::block_on(arena.office.store.count(&domain)).expect("counted");
    assert_eq!(count.ready, 2);
    assert!(arena.waiting().iter().all(|path| path.starts_with("U.Ser@")));
    let reply = rcpt(&arena, "<u@example.com.>");
    assert!(reply.starts_with('5') || reply.starts_with("250"), "{reply}");
    let count = futures::executor::block_on(arena.office.store.count(&domain)).expect("counted");
    assert_eq!(count.ready, 2);
}

#[test]
fn f5_control_characters_end_at_the_door() {
    let arena = Arena::new();
    for path in [
        "<\"a\rb\"@example.com>",
        "<\"a\nb\"@example.com>",
        "<a\x1b[31m@example.com>",
        "<\"a\x1b\"@example.com>",
        "<\"a\0\"@example.com>",
        "<a\x7f@example.com>",
        "<a@example.com\x1b>",
        "<\"a\\\x07\"@example.com>",
    ] {
        refused(&arena, path);
    }
}

#[test]
fn f6_encoded_line_breaks_stay_encoded() {
    let arena = Arena::new();
    let mut peer = arena.greeted(Door::Mx);
    peer.say("MAIL FROM:<a@b.example> AUTH=+0D+0AX:+20y\r\n");
    peer.expect_one(&["250", "501", "555"]);
    for parameter in ["ENVID=", "ENVID=+", "ENVID=+0", "ENVID=a\tb"] {
        let mut peer = arena.greeted(Door::Mx);
        peer.say(format!("MAIL FROM:<a@b.example> {parameter}\r\n"));
        peer.expect_one(&["500", "501"]);
    }
    let mut peer = arena.greeted(Door::Mx);
    peer.say(format!("MAIL FROM:<a@b.example> ENVID={}\r\n", "e".repeat(2000)));
    peer.expect_one(&["500", "501"]);
    let mut peer = arena.greeted(Door::Mx);
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.say(format!("RCPT TO:<x@example.com> ORCPT=rfc822;{}\r\n", "e".repeat(2000)));
    peer.expect_one(&["500", "501"]);
    peer.say("RCPT TO:<x@example.com> ORCPT=rfc822;a+0D+0ARCPT+20TO:<x@other.example>\r\n");
    if peer.expect_one(&["250", "501"])[0].starts_with("250") {
        peer.ask("DATA", "354");
        peer.say("x\r\n.\r\n");
        peer.expect("250");
        let head = &arena.heads()[0];
        let orcpt = head.recipients[0].recipient.orcpt.as_ref().map(ToString::to_string);
        let orcpt = orcpt.unwrap_or_default();
        assert!(!orcpt.contains(['\r', '\n']), "{orcpt:?}");
    }
    assert!(arena.waiting().len() <= 1);
}

#[test]
fn f7_octets_that_are_no_text_are_refused() {
    let arena = Arena::new();
    for octets in [&b"\xff\xfe"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\x80"] {
        for smtputf8 in ["", " SMTPUTF8"] {
            let mut peer = arena.greeted(Door::Mx);
            peer.ask(&format!("MAIL FROM:<a@b.example>{smtputf8}"), "250");
            peer.say([b"RCPT TO:<", octets, b"@example.com>\r\n"].concat());
            let reply = peer.reply().expect("an answer");
            assert!(reply[0].starts_with('5'), "{octets:?}: {reply:?}");
            peer.in_step();
        }
    }
    // UTF-8 that is sound, but was not announced (RFC 6531 §3.5).
    refused(&arena, "<\u{e4}@example.com>".as_bytes());
}

#[test]
fn f8_both_forms_of_a_name_are_one_queue() {
    let customers = vec![customer("acme", &["b\u{fc}cher.example"])];
    let arena = Arena::with(Plan { customers, ..plan() });
    let domain = hostile_support::domain("xn--bcher-kva.example");
    arena.queue(&["a@xn--bcher-kva.example"], "x\r\n");
    for path in ["b\u{fc}cher.example", "B\u{dc}CHER.example", "bu\u{308}cher.example"] {
        let mut peer = arena.greeted(Door::Mx);
        peer.ask("MAIL FROM:<a@b.example> SMTPUTF8", "250");
        peer.ask(&format!("RCPT TO:<a@{path}>"), "250");
        peer.ask("DATA", "354");
        peer.say("x\r\n.\r\n");
        peer.expect("250");
    }
    let count = futures::executor::block_on(arena.office.store.count(&domain)).expect("counted");
    assert_eq!(count.ready, 4);
}

#[test]
fn f9_long_parts_work_or_are_refused_never_cut() {
    let arena = Arena::new();
    let local = "l".repeat(64);
    arena.queue(&[&format!("{local}@example.com")], "x\r\n");
    assert_eq!(arena.waiting(), [format!("{local}@example.com")]);
    refused(&arena, format!("<{local}l@example.com>"));
    refused(&arena, format!("<l@{}example.com>", "d.".repeat(130)));
    refused(&arena, format!("<l@{}.example.com>", "d".repeat(64)));
    refused(&arena, format!("<{}@{}example.com>", local, "d.".repeat(140)));
}

#[test]
fn f10_the_postmaster_is_always_reached() {
    let arena = Arena::new();
    for path in ["<postmaster@example.com>", "<Postmaster>", "<POSTMASTER@other.example>"] {
        let reply = rcpt(&arena, path);
        assert!(reply.starts_with("250"), "{path}: {reply}");
    }
}

#[test]
fn f11_nobody_learns_who_exists() {
    let arena = Arena::new();
    let mut peer = arena.greeted(Door::Mx);
    for verb in ["VRFY", "EXPN"] {
        let mut answer = |name: &str| {
            peer.say(format!("{verb} {name}\r\n"));
            peer.expect_one(&["252", "502"])
        };
        let known = answer("postmaster@example.com");
        assert_eq!(answer("nobody@example.com"), known);
        assert_eq!(answer("x@unknown.example"), known);
    }
}
