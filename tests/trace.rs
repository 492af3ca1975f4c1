//! `restante trace`: sessions as they run, seen by an operator; no secret is among what is seen, and nobody waits.

mod app_support;

use app_support::*;
use futures::StreamExt;
use futures::executor::block_on;
use restante::mail::Fact;
use restante::provider::watch::{Kind, Seen, Spy, Want};
use restante::smtp::Door;

fn all(events: &mut futures::channel::mpsc::Receiver<Seen>) -> Vec<Seen> {
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    seen
}

fn texts(seen: &[Seen]) -> Vec<(Kind, &str)> {
    seen.iter().map(|event| (event.kind, event.text.as_str())).collect()
}

#[test]
fn a_session_is_seen_without_its_secrets() {
    let office = office();
    let mut events = office.watch.join(Want::default());
    let mut spy =
        Spy::new(office.clone(), "192.0.2.1:4711".parse().expect("an address"), Door::Odmr);
    spy.said(b"220 mx.provider.example ESMTP\r\n");
    spy.heard(b"EHLO c.example\r\n", false);
    spy.said(b"250-mx.provider.example\r\n250 AUTH CRAM-MD5 PLAIN\r\n");
    spy.heard(b"AUTH PLAIN AGFjbWUAczNjcmV0\r\nRSET\r\n", false);
    spy.heard(b"AUTH CRAM-MD5\r\n", false);
    spy.said(b"334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2U+\r\n");
    spy.heard(b"YWNtZSBhYmNkZWY=\r\n", false);
    // Two replies in one breath: it is the last that asks.
    spy.said(b"250 2.0.0 fine\r\n334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2U+\r\n");
    spy.heard(b"quit\r\n", false);
    spy.said(b"235 2.7.0 welcome\r\n");
    spy.fact(&Fact::LoggedIn { login: "acme/office".into(), mechanism: "CRAM-MD5" });
    // A line in two pieces, whose second half begins like a verb.
    spy.heard(b"AUTH PLA", false);
    spy.heard(b"NOOP secret\r\n", false);
    spy.heard(b"DATA\r\nSubject: private\r\n", false);
    spy.heard(b"MAIL FROM:<in@the.body>\r\n", true);
    drop(spy);
    let seen = all(&mut events);
    assert_eq!(
        texts(&seen),
        [
            (Kind::Open, "connected"),
            (Kind::Said, "220 mx.provider.example ESMTP"),
            (Kind::Heard, "EHLO c.example"),
            (Kind::Said, "250-mx.provider.example"),
            (Kind::Said, "250 AUTH CRAM-MD5 PLAIN"),
            (Kind::Heard, "AUTH PLAIN [hidden]"),
            (Kind::Heard, "[6 octets]"),
            (Kind::Heard, "AUTH CRAM-MD5"),
            (Kind::Said, "334 [challenge]"),
            (Kind::Heard, "[18 octets, a response]"),
            (Kind::Said, "250 2.0.0 fine"),
            (Kind::Said, "334 [challenge]"),
            (Kind::Heard, "[6 octets, a response]"),
            (Kind::Said, "235 2.7.0 welcome"),
            (Kind::Event, "logged in as acme/office by CRAM-MD5"),
            (Kind::Heard, "[8 octets]"),
            (Kind::Heard, "[13 octets]"),
            (Kind::Heard, "DATA"),
            (Kind::Heard, "[18 octets]"),
            (Kind::Heard, "[25 octets of content]"),
            (Kind::Close, "the session is over"),
        ]
    );
    assert_eq!(seen[0].customer, None);
    assert_eq!(seen.last().expect("the end").customer, Some(name("acme")));
    assert!(seen.iter().all(|event| event.client == "192.0.2.1" && event.session == 1));
}

#[test]
fn only_what_is_wanted_is_told() {
    let office = office();
    let want = |customer: Option<&str>, address: Option<&str>| Want {
        customer: customer.map(name),
        address: address.map(|text| text.parse().expect("an address")),
    };
    let mut of_acme = office.watch.join(want(Some("acme"), None));
    let mut of_other = office.watch.join(want(Some("other"), None));
    let mut of_here = office.watch.join(want(None, Some("192.0.2.1")));
    let mut of_there = office.watch.join(want(None, Some("192.0.2.2")));
    let mut spy =
        Spy::new(office.clone(), "[::ffff:192.0.2.1]:4711".parse().expect("an address"), Door::Mx);
    spy.heard(b"NOOP\r\n", false);
    spy.fact(&Fact::LoggedIn { login: "acme".into(), mechanism: "PLAIN" });
    drop(spy);
    assert_eq!(all(&mut of_acme).len(), 2);
    assert_eq!(all(&mut of_here).len(), 4);
    assert!(all(&mut of_other).is_empty() && all(&mut of_there).is_empty());
    drop((of_acme, of_other, of_here, of_there));
    drop(Spy::new(office.clone(), "192.0.2.1:1".parse().expect("an address"), Door::Mx));
    assert!(!office.watch.is_on(), "whoever has gone is forgotten");
}

#[test]
fn a_slow_watcher_misses_events_and_is_told_how_many() {
    let office = office();
    let mut slow = office.watch.join(Want::default());
    let mut spy = Spy::new(office.clone(), "192.0.2.1:4711".parse().expect("an address"), Door::Mx);
    for _ in 0..5000 {
        // If this waited for anybody, the test would not end.
        spy.heard(b"NOOP\r\n", false);
    }
    let first = all(&mut slow);
    assert!(first.len() < 1100, "{}", first.len());
    spy.heard(b"QUIT\r\n", false);
    let next = block_on(slow.next()).expect("an event");
    assert_eq!(next.missed, 5001 - first.len() as u64);
    assert_eq!(next.text, "QUIT");
}

#[test]
fn trace_without_a_provider_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("r.toml");
    std::fs::write(&config, "hostname = \"mx.provider.example\"\ndata_dir = \"data\"\n")
        .expect("written");
    let output = program().arg("-c").arg(&config).arg("trace").output().expect("started");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no provider runs"));
}
