//! The real program killed in the middle of a drain, at the points that matter: rows 24 and 25 of docs/security.md. A customer
//! that takes one message after the other says at which point. `drain_deaths.rs` counts the same exactly, on a store in memory.

mod support;

use std::collections::BTreeMap;

use support::{Peer, Provider};

const PASSWORD: &str = "correct-horse-battery";
const MESSAGES: usize = 6;

/// Where the program dies, counted in messages from zero.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// Our 250 to this message's end is not said.
    AtTheDot(usize),
    /// It is said, and nothing is waited for.
    BehindThe250(usize),
}

fn connected(provider: &Provider, listener: &str) -> Peer {
    let mut peer = provider.connect(listener);
    peer.expect("220");
    peer.ask("EHLO client.example", "250");
    peer
}

/// Calls for mail and takes it in lock-step. Gives the subjects in the order in which they came; the program is killed at the
/// point, if one is given.
fn drain(provider: &mut Provider, point: Option<Point>) -> Vec<String> {
    let mut peer = connected(provider, "odmr");
    peer.cram("acme", PASSWORD);
    peer.ask("ATRN", "250");
    peer.say("220 customer.example\r\n");
    let mut taken = Vec::new();
    loop {
        let line = peer.line();
        let number = taken.len();
        match line.get(..4).unwrap_or_default() {
            "EHLO" => peer.say("250-customer.example\r\n250 8BITMIME\r\n"),
            "DATA" => {
                peer.say("354 go on\r\n");
                taken.push(content(&mut peer));
                if matches!(point, Some(Point::AtTheDot(at)) if at == number) {
                    provider.kill();
                    return taken;
                }
                peer.say("250 taken\r\n");
                if matches!(point, Some(Point::BehindThe250(at)) if at == number) {
                    provider.kill();
                    return taken;
                }
            }
            "QUIT" => {
                peer.say("221 bye\r\n");
                return taken;
            }
            _ => peer.say("250 fine\r\n"),
        }
    }
}

/// Reads content up to its end; gives its subject.
fn content(peer: &mut Peer) -> String {
    let mut subject = String::new();
    loop {
        let line = peer.line();
        assert!(!line.is_empty(), "the wire was lost inside the content");
        if line == ".\r\n" {
            return subject;
        }
        if let Some(text) = line.strip_prefix("Subject: ") {
            subject = text.trim_end().to_owned();
        }
    }
}

/// Kills at the point, starts again, drains the rest; how often each message came.
fn counts(point: Point) -> BTreeMap<String, usize> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut provider = Provider::prepare(folder.path(), "");
    provider.add_customer("acme", "example.org", PASSWORD);
    provider.start();
    let mut sender = connected(&provider, "mx");
    for number in 0..MESSAGES {
        let content = format!("Subject: {number}\r\n\r\nx\r\n");
        sender.send("t@foo.example", &["l@example.org"], content.as_bytes());
    }
    let mut all = drain(&mut provider, Some(point));
    provider.start();
    all.extend(drain(&mut provider, None));
    let mut counts = BTreeMap::new();
    for subject in all {
        *counts.entry(subject).or_default() += 1;
    }
    assert_eq!(counts.len(), MESSAGES, "{point:?}: something was lost: {counts:?}");
    counts
}

/// Behind the point everything comes once; before it, what was not recorded yet may come twice (it is within the window), and
/// nothing more often.
fn within_the_window(counts: &BTreeMap<String, usize>, at: usize) {
    for (subject, count) in counts {
        let number: usize = subject.parse().expect("a number");
        let most = if number <= at { 2 } else { 1 };
        assert!((1..=most).contains(count), "{at}: {subject} came {count} times");
    }
}

#[test]
fn row_24_killed_at_the_dot_that_message_comes_again_and_none_behind_it_twice() {
    for at in [0, 3, MESSAGES - 1] {
        let counts = counts(Point::AtTheDot(at));
        assert_eq!(counts[&at.to_string()], 2, "{at}: {counts:?}");
        within_the_window(&counts, at);
    }
}

#[test]
fn row_25_killed_behind_the_250_the_window_comes_twice_at_most() {
    for at in [0, 2, MESSAGES - 1] {
        within_the_window(&counts(Point::BehindThe250(at)), at);
    }
}
