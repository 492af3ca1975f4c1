//! Drains of the real program on loopback: killed at the dot, two sites side by side, waiting and held connections, and
//! the options of their sockets.

mod support;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use support::{Peer, Provider, Sink, sink};

const PASSWORD: &str = "correct-horse-battery";
const ALL: Sink<'_> = Sink { keywords: &["PIPELINING", "8BITMIME"], keep: true };

/// A running provider with customer `acme` for example.org and example.com.
fn provider(folder: &std::path::Path) -> Provider {
    let mut provider = Provider::prepare(folder, "");
    provider.start();
    provider.add_customer("acme", "example.org", PASSWORD);
    provider.command(&["domain", "add", "acme", "example.com"], "");
    provider
}

fn send(provider: &Provider, to: &str, subject: &str) {
    let mut peer = provider.connect("mx");
    peer.expect("220");
    peer.ask("EHLO sender.example", "250");
    let content = format!("Subject: {subject}\r\nMessage-ID: <{subject}@foo.example>\r\n\r\nx\r\n");
    peer.send("t@foo.example", &[to], content.as_bytes());
    peer.ask("QUIT", "221");
}

/// A customer that is logged in over a plain connection.
fn customer(provider: &Provider) -> Peer {
    let mut peer = provider.connect("odmr");
    peer.expect("220");
    peer.ask("EHLO example.org", "250");
    peer.cram("acme", PASSWORD);
    peer
}

fn queued(provider: &Provider) -> usize {
    provider.json(&["queue", "list"])["messages"].as_array().map_or(0, Vec::len)
}

/// What is delivered leaves the queue when it is recorded, a moment after its reply.
fn wait_until_queued(provider: &Provider, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while queued(provider) != count {
        assert!(Instant::now() < deadline, "not recorded: {}", provider.log());
    }
}

/// Takes lines up to the end of the data of the next message, without answering that. Gives its subject.
fn up_to_the_dot(peer: &mut Peer) -> String {
    let mut subject = String::new();
    loop {
        let line = peer.line();
        match line.split(' ').next().unwrap_or_default().trim_end() {
            "EHLO" => peer.say(b"250 customer.example\r\n"),
            "DATA" => peer.say(b"354 go\r\n"),
            "MAIL" | "RCPT" => peer.say(b"250 ok\r\n"),
            "Subject:" => subject = line.trim_end().trim_start_matches("Subject: ").to_owned(),
            "." => return subject,
            _ => assert!(!line.is_empty(), "the wire was lost"),
        }
    }
}

#[test]
fn row_24_and_25_kill_9_at_the_dot_or_behind_its_reply_repeats_that_message_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut provider = provider(folder.path());
    for says_250 in [false, true] {
        for subject in ["one", "two", "three"] {
            send(&provider, "l@example.org", subject);
        }
        let mut peer = customer(&provider);
        peer.ask("ATRN example.org", "250");
        peer.say(b"220 customer.example\r\n");
        assert_eq!(up_to_the_dot(&mut peer), "one");
        peer.say(b"250 taken\r\n");
        assert_eq!(up_to_the_dot(&mut peer), "two");
        wait_until_queued(&provider, 2);
        if says_250 {
            peer.say(b"250 taken\r\n");
        }
        provider.kill();
        provider.start();
        let mut peer = customer(&provider);
        peer.ask("ATRN example.org", "250");
        let again = sink(&mut peer, &ALL);
        let subjects: Vec<String> = again
            .iter()
            .map(|taken| String::from_utf8_lossy(&taken.content).into_owned())
            .filter_map(|text| text.split("Subject: ").nth(1).map(|rest| rest[..3].to_owned()))
            .collect();
        // Whether the record was faster than the kill is chance; more than this message cannot come again.
        let expected: &[&[&str]] =
            if says_250 { &[&["two", "thr"], &["thr"]] } else { &[&["two", "thr"]] };
        assert!(expected.iter().any(|all| subjects == **all), "{subjects:?}");
        provider.wait_for_log("drained customer=acme messages=");
        assert_eq!(queued(&provider), 0);
    }
}

#[test]
fn row_20_two_sites_of_one_customer_drain_at_the_same_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    send(&provider, "n@example.org", "north");
    send(&provider, "s@example.com", "south");
    let mut north = customer(&provider);
    north.ask("ATRN example.org", "250");
    north.say(b"220 north.example\r\n");
    assert_eq!(up_to_the_dot(&mut north), "north");
    // The first is in the middle of its message; the second is served meanwhile, to its end.
    customer(&provider).ask("ATRN example.org", "451 4.2.1");
    let mut south = customer(&provider);
    south.ask("ATRN example.com", "250");
    let taken = sink(&mut south, &ALL);
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].recipients, ["RCPT TO:<s@example.com>"]);
    assert_eq!(queued(&provider), 1);
    north.say(b"250 taken\r\n");
    assert_eq!(north.line(), "QUIT\r\n");
    north.say(b"221 bye\r\n");
    provider.wait_for_log("ended=quit path=atrn");
    assert_eq!(queued(&provider), 0);
}

#[test]
fn a_waiting_and_a_held_customer_are_told_at_shutdown() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut provider = provider(folder.path());
    provider.command(&["customer", "set", "acme", "wait-for-mail", "9m"], "");
    provider.command(&["customer", "set", "acme", "hold-open", "1h"], "");
    send(&provider, "n@example.org", "north");
    let mut held = customer(&provider);
    held.ask("ATRN example.org", "250");
    held.say(b"220 customer.example\r\n");
    assert_eq!(up_to_the_dot(&mut held), "north");
    held.say(b"250 taken\r\n");
    let mut waiting = customer(&provider);
    waiting.say(b"ATRN example.com\r\n");
    wait_until_queued(&provider, 0);
    let held = std::thread::spawn(move || {
        let last = held.line();
        held.say(b"221 bye\r\n");
        last
    });
    let asked = Instant::now();
    assert!(provider.terminate(), "{}", provider.log());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let last = held.join().expect("no panic");
    assert_eq!(last, "QUIT\r\n", "the held connection ends in order");
    let mut said = String::new();
    waiting.0.read_to_string(&mut said).expect("words, then the end");
    assert!(said.starts_with("421 ") || said.starts_with("453 "), "{said:?}");
    assert!(said.contains("421 4.3.2") || said.starts_with("453 "), "{said:?}");
}

#[test]
fn a_customer_that_hangs_up_while_it_waits_is_noticed_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    provider.command(&["customer", "set", "acme", "wait-for-mail", "9m"], "");
    let sessions = || provider.json(&["status"])["sessions"]["odmr"].as_u64().expect("a number");
    let mut waiting = customer(&provider);
    waiting.say(b"ATRN\r\n");
    assert_eq!(sessions(), 1);
    drop(waiting);
    let deadline = Instant::now() + Duration::from_secs(30);
    while sessions() > 0 {
        assert!(Instant::now() < deadline, "still waiting: {}", provider.log());
    }
}

/// Our own copy of the socket with which the provider talks to `peer`.
fn provider_side_of(provider: &Provider, peer: &Peer) -> OwnedFd {
    let support::Duplex::Plain(stream) = peer.0.get_ref() else { panic!("a plain connection") };
    let ours = stream.local_addr().expect("an address");
    let pid = i32::try_from(provider.pid()).expect("small");
    let process = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(pid).expect("a process"),
        rustix::process::PidfdFlags::empty(),
    )
    .expect("our child");
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("our child's");
    for entry in all.flatten() {
        let number: i32 = entry.file_name().to_string_lossy().parse().expect("a number");
        let is_socket = std::fs::read_link(entry.path())
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        if !is_socket {
            continue;
        }
        let flags = rustix::process::PidfdGetfdFlags::empty();
        let Ok(copy) = rustix::process::pidfd_getfd(&process, number, flags) else { continue };
        let socket = socket2::SockRef::from(&copy);
        let is_it = socket.peer_addr().is_ok_and(|address| address.as_socket() == Some(ours));
        if is_it {
            return copy;
        }
    }
    panic!("the provider has no socket to {ours}");
}

#[test]
fn row_19_the_socket_of_a_drain_notices_a_dead_customer() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    send(&provider, "n@example.org", "north");
    let mut peer = customer(&provider);
    peer.ask("ATRN", "250");
    let copy = provider_side_of(&provider, &peer);
    let socket = socket2::SockRef::from(&copy);
    let read = "the kernel's answer";
    assert!(socket.keepalive().expect(read));
    assert_eq!(socket.tcp_keepalive_time().expect(read), Duration::from_secs(30));
    assert_eq!(socket.tcp_keepalive_interval().expect(read), Duration::from_secs(15));
    assert_eq!(socket.tcp_keepalive_retries().expect(read), 4);
    assert_eq!(socket.tcp_user_timeout().expect(read), Some(Duration::from_secs(90)));
    assert!(socket.tcp_nodelay().expect(read));
}
