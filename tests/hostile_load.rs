//! Floods, slow peers and limits: rows E1 to E12 of docs/security.md, as far as they need no process of their own
//! (those are in `hostile_daemon.rs`).

mod hostile_support;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hostile_support::{Arena, Peer, plan};
use restante::smtp::Door;

const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// A whole transaction with a fresh connection; how long it took.
fn one_message(arena: &Arena, address: std::net::SocketAddr) -> Duration {
    let began = Instant::now();
    let before = arena.heads().len();
    let mut peer = Peer::connect(address);
    peer.expect("220");
    peer.ask("EHLO client.example", "250");
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.ask("RCPT TO:<x@example.com>", "250");
    peer.ask("DATA", "354");
    peer.say("x\r\n.\r\n");
    peer.expect("250");
    peer.ask("QUIT", "221");
    assert_eq!(arena.heads().len(), before + 1);
    began.elapsed()
}

#[test]
fn e1_slow_and_idle_peers_do_not_slow_others() {
    let arena = Arena::new();
    let address = arena.open(Door::Mx, false);
    let quiet = one_message(&arena, address);
    let idle: Vec<Peer> = (0..60).map(|_| Peer::connect_from(ELSEWHERE, address)).collect();
    let mut slow: Vec<Peer> = (0..60).map(|_| Peer::connect_from(ELSEWHERE, address)).collect();
    for (index, peer) in slow.iter_mut().enumerate() {
        peer.expect("220");
        peer.say(&b"EHLO slow.example\r\nMAIL"[..1 + index % 20]);
    }
    let busy = one_message(&arena, address);
    assert!(busy < quiet + Duration::from_secs(1), "{quiet:?} alone, {busy:?} beside 120");
    drop((idle, slow));
    arena.until_quiet();
}

#[test]
fn e1_a_command_has_a_deadline_however_the_octets_drip() {
    let mut plan = plan();
    plan.speed = 300;
    let arena = Arena::with(plan);
    let mut peer = arena.peer(Door::Mx);
    let began = Instant::now();
    // An octet every 30 s of the arena's clock: never silent for five minutes, and never a command.
    let reply = loop {
        if peer.try_say("E").is_err() || !peer.is_silent(Duration::from_millis(100)) {
            break peer.expect("421");
        }
        assert!(began.elapsed() < Duration::from_secs(10), "no end");
    };
    assert!(reply[0].contains("4.4.2"), "{reply:?}");
    let arena_time = began.elapsed() * 300;
    assert!(arena_time >= Duration::from_secs(290), "too early: {arena_time:?}");
}

#[test]
fn e1_content_has_to_come_at_a_pace() {
    let mut plan = plan();
    plan.speed = 300;
    let arena = Arena::with(plan);
    let mut peer = arena.greeted(Door::Mx);
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.ask("RCPT TO:<x@example.com>", "250");
    peer.ask("DATA", "354");
    let began = Instant::now();
    loop {
        if peer.try_say("a\r\n").is_err() || !peer.is_silent(Duration::from_millis(100)) {
            peer.expect("421");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "no end");
    }
    arena.until_quiet();
    assert!(arena.waiting().is_empty());
}

#[test]
fn e2_silence_ends_with_421() {
    let mut plan = plan();
    plan.speed = 300;
    let arena = Arena::with(plan);
    for door in [Door::Mx, Door::Odmr] {
        let mut peer = arena.greeted(door);
        let reply = peer.expect("421");
        assert!(reply[0].contains("4.4.2"), "{reply:?}");
        assert_eq!(peer.rest(), b"");
    }
    // Behind an implicit-TLS door too, where nobody says hello.
    let mut peer = Peer::connect(arena.open(Door::Mx, true));
    assert_eq!(peer.rest(), b"");
}

#[test]
fn e3_a_flood_of_connections_is_refused_and_forgotten() {
    let mut plan = plan();
    plan.policy.sessions_per_address = 20;
    let arena = Arena::with(plan);
    let address = arena.open(Door::Mx, false);
    let at_rest = descriptors();
    let mut peers: Vec<Peer> = (0..300).map(|_| Peer::connect(address)).collect();
    let mut greeted = 0;
    for peer in &mut peers {
        let reply = peer.expect_one(&["220", "421"]);
        greeted += usize::from(reply[0].starts_with("220"));
        assert!(reply[0].starts_with("220") || reply[0].contains("4.3.2"), "{reply:?}");
    }
    assert_eq!(greeted, 20);
    // Somebody else still gets in.
    Peer::connect_from(ELSEWHERE, address).expect("220");
    peers.into_iter().for_each(Peer::reset);
    arena.until_quiet();
    arena.until("descriptors are back", |_| descriptors() <= at_rest + 2);
    one_message(&arena, address);
}

/// Open descriptors of this process; tests that run beside this one have some, too.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}

#[test]
fn e3_all_sessions_together_have_a_limit() {
    let mut plan = plan();
    plan.policy.sessions_max = 5;
    let arena = Arena::with(plan);
    let (mx, odmr) = (arena.open(Door::Mx, false), arena.open(Door::Odmr, false));
    let mut held: Vec<Peer> = [mx, odmr, mx, odmr, mx].into_iter().map(Peer::connect).collect();
    held.iter_mut().for_each(|peer| drop(peer.expect("220")));
    for address in [mx, odmr] {
        let mut late = Peer::connect(address);
        late.expect("421");
        assert_eq!(late.rest(), b"");
    }
    held[0].ask("QUIT", "221");
    arena.until("a place is free", |_| {
        Peer::connect(mx).expect_one(&["220", "421"])[0].starts_with("220")
    });
}

#[test]
fn e5_recipients_above_the_limit_are_for_another_transaction() {
    let mut plan = plan();
    plan.policy.recipients_max = 1000;
    let arena = Arena::with(plan);
    let mut peer = arena.greeted(Door::Mx);
    peer.ask("MAIL FROM:<a@b.example>", "250");
    let all: String = (0..3000).map(|n| format!("RCPT TO:<x{n}@example.com>\r\n")).collect();
    let (mut taken, mut later) = (0, 0);
    // Written in portions: our answers need room, too.
    for portion in all.as_bytes().chunks(16 << 10) {
        peer.say(portion);
    }
    for _ in 0..3000 {
        match peer.expect_one(&["250", "452"])[0].starts_with("250") {
            true => taken += 1,
            false => later += 1,
        }
    }
    assert_eq!((taken, later), (1000, 2000));
    peer.ask("DATA", "354");
    peer.say("x\r\n.\r\n");
    peer.expect("250");
    peer.in_step();
    assert_eq!(arena.waiting().len(), 1000);
}

#[test]
fn e8_header_floods_have_an_end() {
    let arena = Arena::new();
    let judge = |content: &[u8]| {
        let mut peer = arena.greeted(Door::Mx);
        peer.ask("MAIL FROM:<a@b.example>", "250");
        peer.ask("RCPT TO:<x@example.com>", "250");
        peer.ask("DATA", "354");
        peer.say([content, b"\r\n.\r\n"].concat());
        let verdict = peer.expect_one(&["250", "550", "552", "554"]);
        peer.in_step();
        verdict[0].clone()
    };
    let began = Instant::now();
    judge("X-A: b\r\n".repeat(100_000).as_bytes());
    let one = format!("X-A: b{}", "\r\n c".repeat(10 << 18));
    judge(one.as_bytes());
    let loops = judge("Received: from x by y; now\r\n".repeat(10_000).as_bytes());
    assert!(loops.starts_with("554 5.4.6"), "{loops}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn e9_mime_is_not_looked_into() {
    let arena = Arena::new();
    let mut content = String::from("MIME-Version: 1.0\r\n");
    for depth in 0..5000 {
        content.push_str(&format!(
            "Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n"
        ));
    }
    let began = Instant::now();
    arena.queue(&["x@example.com"], &content);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(arena.content(arena.heads()[0].id), content.as_bytes());
}

#[test]
fn e11_an_error_budget_ends_the_session() {
    let arena = Arena::new();
    for door in [Door::Mx, Door::Odmr] {
        let mut peer = arena.greeted(door);
        let mut errors = 0;
        loop {
            if peer.try_say("BOGUS\r\n").is_err() {
                break;
            }
            match peer.reply() {
                Some(reply) if reply[0].starts_with("500") => errors += 1,
                Some(reply) => {
                    assert!(reply[0].starts_with("421"), "{reply:?}");
                    break;
                }
                None => break,
            }
        }
        assert!((10..=25).contains(&errors), "{errors}");
    }
}

#[test]
fn e12_sizes_are_numbers_and_a_big_tail_is_no_command() {
    let mut plan = plan();
    plan.policy.message_bytes_max = 1 << 20;
    let arena = Arena::with(plan);
    for size in ["18446744073709551616", "-1", "abc", "", "1048577"] {
        let mut peer = arena.greeted(Door::Mx);
        peer.say(format!("MAIL FROM:<a@b.example> SIZE={size}\r\n"));
        peer.expect_one(&["501", "552"]);
        peer.in_step();
    }
    let mut peer = arena.greeted(Door::Mx);
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.ask("RCPT TO:<x@example.com>", "250");
    peer.ask("DATA", "354");
    peer.say("NOOP\r\n".repeat(((1 << 20) + (600 << 10)) / 6));
    peer.say("\r\n.\r\n");
    peer.expect("552");
    peer.in_step();
    assert!(arena.waiting().is_empty());
}

// covers: O-29
#[test]
fn networks_may_be_listed_for_the_odmr_door() {
    let mut plan = plan();
    plan.policy.odmr_from = vec!["127.0.0.2/32".parse().expect("a network")];
    let arena = Arena::with(plan);
    let (mx, odmr) = (arena.open(Door::Mx, false), arena.open(Door::Odmr, false));
    let mut stranger = Peer::connect(odmr);
    stranger.expect("554");
    assert_eq!(stranger.rest(), b"");
    Peer::connect_from(ELSEWHERE, odmr).expect("220");
    Peer::connect(mx).expect("220");
}
