//! The end of data, lines and commands against hostile senders: rows A1 to A16 of docs/security.md.

mod hostile_support;
#[path = "support/process.rs"]
mod process;

use std::time::Duration;

use hostile_support::{Arena, Peer};
use restante::smtp::Door;

/// A peer behind the 354 of a message for one recipient.
fn in_data(arena: &Arena) -> Peer {
    let mut peer = arena.greeted(Door::Mx);
    open_data(&mut peer);
    peer
}

fn open_data(peer: &mut Peer) {
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.ask("RCPT TO:<x@example.com>", "250");
    peer.ask("DATA", "354");
}

/// Sends a content and its true end: one verdict, then in step; at most that one message is queued. Gives the
/// content as stored, if it was taken.
#[track_caller]
fn one_verdict(arena: &Arena, content: &[u8]) -> Option<Vec<u8>> {
    let before = arena.heads().len();
    let mut peer = in_data(arena);
    peer.say([content, b"\r\n.\r\n"].concat());
    let verdict = peer.expect_one(&["250", "550"]);
    peer.in_step();
    peer.ask("QUIT", "221");
    let heads = arena.heads();
    if verdict[0].starts_with("250") {
        assert_eq!(heads.len(), before + 1, "{content:?}");
        let id = heads.last().expect("one").id;
        return Some(arena.content(id));
    }
    assert!(verdict[0].starts_with("550 5.6."), "{verdict:?}");
    assert_eq!(heads.len(), before, "{content:?}");
    None
}

/// What a smuggler puts behind a false end.
const SMUGGLED: &str =
    "MAIL FROM:<s@evil.example>\r\nRCPT TO:<x@example.com>\r\nDATA\r\nSubject: smuggled\r\n\r\nx";

#[test]
fn a1_a_bare_line_feed_ends_nothing() {
    let arena = Arena::new();
    let content = format!("body\n.\n{SMUGGLED}");
    assert_eq!(one_verdict(&arena, content.as_bytes()), None);
    let content = format!("body\n.\r\n{SMUGGLED}");
    assert_eq!(one_verdict(&arena, content.as_bytes()), None);
}

#[test]
fn a2_no_mixture_of_cr_and_lf_ends_anything_but_the_one() {
    let arena = Arena::new();
    for end in [
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r.\r\n",
        "\r.\n",
        "\r\n.\r",
        "\n.\r",
        "\n\n.\r\n",
        "\n.\n",
    ] {
        let content = format!("body{end}{SMUGGLED}");
        // All of these hold a bare CR or LF: refused, after the true end was read.
        assert_eq!(one_verdict(&arena, content.as_bytes()), None, "{end:?}");
    }
}

#[test]
fn a3_an_extra_cr_is_not_stripped() {
    let arena = Arena::new();
    assert_eq!(one_verdict(&arena, format!("body\r\n.\r\r\n{SMUGGLED}").as_bytes()), None);
}

#[test]
fn a4_what_looks_like_an_end_is_content() {
    let arena = Arena::new();
    for almost in ["\r\n. \r\n", "\r\n .\r\n", "\x0b.\x0b"] {
        let content = format!("body{almost}{SMUGGLED}");
        let stored = one_verdict(&arena, content.as_bytes()).expect("nothing wrong with it");
        let text = String::from_utf8(stored).expect("text");
        assert!(text.contains("smuggled") && text.ends_with("\r\nx\r\n"), "{text:?}");
    }
    // NUL has no place in a message (RFC 5321 §2.3.8, RFC 5322 §3.5).
    for almost in ["\r\n\0.\r\n", "\r\n.\0\r\n"] {
        assert_eq!(one_verdict(&arena, format!("body{almost}{SMUGGLED}").as_bytes()), None);
    }
    let content = [b"body\x85.\x85", SMUGGLED.as_bytes()].concat();
    assert!(one_verdict(&arena, &content).is_some());
}

#[test]
fn a5_a_letter_never_becomes_a_line_break() {
    let arena = Arena::new();
    let letters = "\u{10d}\u{10a}.\u{10d}\u{10a}";
    let content = format!("body{letters}{SMUGGLED}");
    let stored = one_verdict(&arena, content.as_bytes()).expect("nothing wrong with it");
    assert!(String::from_utf8(stored).expect("text").contains(letters));
    let mut peer = arena.greeted(Door::Mx);
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.say(format!("RCPT TO:<x{letters}@example.com>\r\n"));
    peer.expect_one(&["553", "501"]);
    peer.in_step();
}

#[test]
fn a6_the_same_content_by_chunks_is_judged_the_same() {
    let arena = Arena::new();
    for bad in ["body\n.\n", "body\r\n.\r\r\n", "a\rb\r\n", "a\0b\r\n"] {
        let mut peer = arena.greeted(Door::Mx);
        peer.ask("MAIL FROM:<a@b.example>", "250");
        peer.ask("RCPT TO:<x@example.com>", "250");
        peer.say(format!("BDAT {} LAST\r\n{bad}", bad.len()));
        peer.expect("550");
        peer.in_step();
    }
    assert!(arena.waiting().is_empty());
}

#[test]
fn a7_announced_octets_are_swallowed_and_sizes_are_numbers() {
    let arena = Arena::new();
    let mut peer = arena.greeted(Door::Mx);
    peer.say("BDAT 20 LAST\r\nNOOP\r\nNOOP\r\nQUIT\r\n..");
    peer.expect("503");
    peer.in_step();
    for size in ["-1", "99999999999999999999", "18446744073709551617", "0x10", "+5", "", " 5"] {
        let mut peer = arena.greeted(Door::Mx);
        peer.ask("MAIL FROM:<a@b.example>", "250");
        peer.ask("RCPT TO:<x@example.com>", "250");
        peer.say(format!("BDAT {size}\r\n"));
        peer.expect_one(&["501", "552", "503"]);
        // Nobody knows how many octets follow: closed is as good as in step.
        if peer.try_say("NOOP\r\n").is_ok() {
            let reply = peer.reply();
            let is_fine = reply
                .is_none_or(|lines| lines[0].starts_with("250") || lines[0].starts_with("421"));
            assert!(is_fine, "{size:?}");
        }
    }
    assert!(arena.waiting().is_empty());
}

#[test]
fn a8_chunks_are_kept_octet_for_octet() {
    let arena = Arena::new();
    let content = "Subject: x\r\n\r\n.\r\n..\r\n.\r\nend without a line end";
    let mut peer = arena.greeted(Door::Mx);
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.ask("RCPT TO:<x@example.com>", "250");
    let (first, second) = content.split_at(17);
    peer.say(format!("BDAT {}\r\n{first}", first.len()));
    peer.expect("250");
    peer.ask("DATA", "503");
    peer.say(format!("BDAT {} LAST\r\n{second}", second.len()));
    let verdict = peer.expect_one(&["250", "503"]);
    if verdict[0].starts_with("250") {
        let id = arena.heads()[0].id;
        let stored = arena.content(id);
        let is_same = stored == content.as_bytes() || stored == format!("{content}\r\n").as_bytes();
        assert!(is_same, "{:?}", String::from_utf8_lossy(&stored));
    }
}

#[test]
fn a9_a_command_line_ends_in_crlf_only() {
    let arena = Arena::new();
    for line in ["NOOP\nNOOP\r\n", "NOOP\rNOOP\r\n", "NOOP\n\r\n", "NOOP\r\r\n"] {
        let mut peer = arena.greeted(Door::Mx);
        peer.say(line);
        peer.expect_one(&["500", "501"]);
        peer.in_step();
    }
}

#[test]
fn a10_octets_without_a_line_end_cost_no_memory() {
    let arena = Arena::new();
    let block = vec![b'A'; 64 << 10];
    let flood = |mut peer: Peer| {
        let before = process::resident_kib("self");
        for _ in 0..128 {
            if peer.try_say(&block).is_err() {
                break;
            }
        }
        let grown = process::resident_kib("self").saturating_sub(before);
        assert!(grown < 6 << 10, "{grown} KiB for 8 MiB without a line end");
        peer
    };
    let mut peer = flood(arena.greeted(Door::Mx));
    let _ = peer.try_say("\r\n");
    assert!(peer.reply().is_none_or(|lines| ["500", "421"].contains(&&lines[0][..3])));

    let mut peer = arena.secured(Door::Odmr);
    peer.ask("AUTH PLAIN", "334");
    let mut peer = flood(peer);
    let _ = peer.try_say("\r\n");
    assert!(peer.reply().is_none_or(|lines| ["500", "421"].contains(&&lines[0][..3])));

    let mut peer = flood(in_data(&arena));
    peer.say("\r\n.\r\n");
    peer.expect_one(&["550", "250", "552"]);
    peer.in_step();
}

#[test]
fn a11_long_commands_get_one_reply() {
    let arena = Arena::new();
    for length in [600, 2_100, 70_000] {
        for prefix in ["", "EHLO ", "MAIL FROM:<"] {
            let mut peer = arena.greeted(Door::Mx);
            peer.say(format!("{prefix}{}\r\n", "a".repeat(length)));
            peer.expect_one(&["500", "501", "553"]);
            peer.in_step();
        }
    }
}

#[test]
fn a12_nul_ends_no_string() {
    let arena = Arena::new();
    for line in ["NO\0OP", "MAIL FROM:<a\0@x.example>", "EHLO a\0b", "\0NOOP"] {
        let mut peer = arena.greeted(Door::Mx);
        peer.say(format!("{line}\r\n"));
        peer.expect_one(&["500", "501", "553"]);
        peer.in_step();
    }
}

#[test]
fn a13_there_is_no_half_transaction() {
    let arena = Arena::new();
    let mut peer = arena.greeted(Door::Mx);
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.ask("RCPT TO:<x@example.com>", "250");
    peer.say("VRFY <\u{e4}@x.example>\r\n");
    peer.expect_one(&["252", "500", "501", "502", "553"]);
    peer.ask("MAIL FROM:<broken", "5");
    peer.ask("RCPT TO:<broken", "5");
    peer.say("DATA\r\n");
    if peer.expect_one(&["354", "503"])[0].starts_with("354") {
        peer.say("x\r\n.\r\n");
        peer.expect("250");
        assert_eq!(arena.waiting(), ["x@example.com"]);
    }
}

#[test]
fn a14_a_browser_is_sent_away() {
    let arena = Arena::new();
    for door in [Door::Mx, Door::Odmr] {
        for first in ["POST / HTTP/1.1", "GET / HTTP/1.1", "CONNECT x:25 HTTP/1.1"] {
            let mut peer = arena.peer(door);
            peer.say(format!(
                "{first}\r\nHost: x\r\n\r\nEHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@example.com>\r\nDATA\r\nx\r\n.\r\n"
            ));
            let rest = String::from_utf8(peer.rest()).expect("text");
            assert_eq!(rest.matches("\r\n").count(), 1, "{rest:?}");
            assert!(rest.starts_with('5') || rest.starts_with("421"), "{rest:?}");
        }
    }
    arena.until_quiet();
    assert!(arena.waiting().is_empty());
}

#[test]
fn a15_what_was_cut_off_is_not_queued() {
    let arena = Arena::new();
    for content in ["text", "text\r\n", "text\r\n.", "text\r\n.\r"] {
        let mut peer = in_data(&arena);
        peer.say(content);
        drop(peer);
        let mut peer = in_data(&arena);
        peer.say(content);
        peer.reset();
        let mut peer = in_data(&arena);
        peer.say(content);
        peer.half_close();
        assert_eq!(peer.rest(), b"");
    }
    arena.until_quiet();
    assert!(arena.waiting().is_empty());
}

#[test]
fn a16_a_transaction_in_one_segment_is_answered_in_order() {
    let arena = Arena::new();
    let mut peer = arena.greeted(Door::Mx);
    peer.say("MAIL FROM:<a@b.example>\r\nRCPT TO:<x@example.com>\r\nRCPT TO:<x@nobody.example>\r\nDATA\r\n");
    for code in ["250", "250", "550", "354"] {
        peer.expect(code);
    }
    peer.say("x\r\n.\r\nNOOP\r\n");
    peer.expect("250");
    peer.expect("250");
    assert_eq!(arena.waiting(), ["x@example.com"]);
    peer.say("MAIL FROM:<a@b.example>\r\nRCPT TO:<x@nobody.example>\r\nDATA\r\nNOOP\r\n");
    for code in ["250", "550"] {
        peer.expect(code);
    }
    peer.expect_one(&["503", "554"]);
    peer.expect("250");
    assert!(peer.is_silent(Duration::from_millis(20)));
}
