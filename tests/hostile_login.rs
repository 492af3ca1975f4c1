//! Logins against guessers and forgers: rows C1 to C13 of docs/security.md.

mod hostile_support;

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hostile_support::peer::{cram_response, plain};
use hostile_support::scram::Scram;
use hostile_support::tls::{Shape, self_signed};
use hostile_support::{Arena, HOST, PASSWORD, Peer, Plan, customer, plan};
use restante::mail::*;
use restante::smtp::{Door, sasl};

/// Ten tries in a session instead of three.
fn patient() -> Plan {
    let mut plan = plan();
    plan.policy.auth_failures_max = 1000;
    plan
}

#[test]
fn c1_plain_is_never_taken_in_clear_text() {
    for require_tls in [true, false] {
        let mut plan = plan();
        plan.policy.auth_requires_tls = require_tls;
        let arena = Arena::with(plan);
        for door in [Door::Mx, Door::Odmr] {
            let mut peer = arena.peer(door);
            let keywords = peer.ask("EHLO client.example", "250").join("\n");
            assert!(!keywords.contains("PLAIN") && !keywords.contains("LOGIN"), "{keywords}");
            peer.say(format!("{}\r\n", plain("", "acme", PASSWORD)));
            peer.expect_one(&["502", "504", "530", "538"]);
            peer.say("AUTH LOGIN\r\n");
            peer.expect_one(&["502", "504", "530", "538"]);
            peer.in_step();
        }
    }
}

#[test]
fn c2_without_tls_nothing_is_left_to_a_downgrade() {
    let mut plan = plan();
    plan.policy.auth_requires_tls = true;
    let arena = Arena::with(plan);
    let mut peer = arena.peer(Door::Odmr);
    let keywords = peer.ask("EHLO client.example", "250").join("\n");
    assert!(!keywords.contains("AUTH"), "{keywords}");
    for mechanism in ["CRAM-MD5", "SCRAM-SHA-256", "PLAIN", "EXTERNAL"] {
        peer.ask(&format!("AUTH {mechanism}"), "530");
    }
    peer.ask("ATRN", "530");
}

#[test]
fn c3_challenges_are_single_use_and_unpredictable() {
    let arena = Arena::with(patient());
    let challenge =
        |peer: &mut Peer| BASE64.decode(&peer.ask("AUTH CRAM-MD5", "334")[0][4..]).expect("base64");
    let mut peer = arena.greeted(Door::Odmr);
    let mut seen = HashSet::new();
    for _ in 0..12 {
        let text = challenge(&mut peer);
        assert!(text.starts_with(b"<") && text.ends_with(format!("@{HOST}>").as_bytes()));
        // 96 random bits need 16 characters of base64 at least.
        assert!(text.len() >= 16 + HOST.len() + 3, "{text:?}");
        assert!(seen.insert(text), "a challenge twice");
        peer.ask("*", "501");
    }
    let old = challenge(&mut peer);
    let recorded = cram_response(&old, "acme", PASSWORD);
    peer.ask("*", "501");
    challenge(&mut peer);
    peer.ask(&recorded, "535");
    let mut other = arena.greeted(Door::Odmr);
    challenge(&mut other);
    other.ask(&recorded, "535");
    other.cram("acme", PASSWORD, "235");
}

#[test]
fn c4_a_failed_mechanism_leaves_no_state() {
    let arena = Arena::with(patient());
    let mut peer = arena.secured(Door::Odmr);
    for round in 0..30 {
        if round % 5 == 4 {
            // Before the error budget of the session ends it.
            peer.ask("QUIT", "221");
            peer = arena.secured(Door::Odmr);
        }
        peer.cram("acme", "wrong", "535");
        peer.ask(&plain("", "acme", "wrong"), "535");
        peer.say("AUTH SCRAM-SHA-256 biwsbj1hY21lLHI9eA==\r\n");
        peer.expect("334");
        peer.ask("bogus", "501");
    }
    peer.ask("ATRN", "530");
    peer.ask(&plain("", "acme", PASSWORD), "235");
}

#[test]
fn c5_base64_is_base64() {
    let arena = Arena::with(patient());
    let mut peer = arena.secured(Door::Odmr);
    let mut texts: Vec<String> = (1..=41).map(|count| "A".repeat(count)).collect();
    texts.extend(["!!!!", "AAA", "A===", "AA=A", "====", "_-_-"].map(str::to_owned));
    let mut errors = 0;
    for text in texts {
        peer.ask("AUTH PLAIN", "334");
        peer.say(format!("{text}\r\n"));
        peer.expect_one(&["501", "535"]);
        errors += 1;
        if errors == 8 {
            peer = arena.secured(Door::Odmr);
            errors = 0;
        }
    }
    peer.ask("AUTH PLAIN", "334");
    peer.say(b"\xff\xff\xff\xff\r\n");
    peer.expect_one(&["500", "501"]);
    peer.in_step();
}

#[test]
fn c6_the_frame_of_an_exchange_is_kept() {
    let arena = Arena::with(patient());
    let mut peer = arena.secured(Door::Odmr);
    peer.ask("AUTH CRAM-MD5", "334");
    peer.ask("*", "501");
    peer.ask("AUTH X-UNKNOWN", "504");
    peer.ask("AUTH", "501");
    peer.ask("AUTH PLAIN", "334");
    peer.say(format!("{}\r\n", "A".repeat(12_284)));
    peer.expect_one(&["501", "535", "500"]);
    peer.in_step();
    peer.ask("AUTH PLAIN", "334");
    peer.say(format!("{}\r\n", "A".repeat(1 << 20)));
    peer.expect_one(&["500", "501"]);
    peer.in_step();
    peer.ask(&plain("", "acme", PASSWORD), "235");
    peer.ask(&plain("", "acme", PASSWORD), "503");
}

/// A session at the ODMR door whose client shows this certificate.
fn showing(arena: &Arena, own: Option<&hostile_support::tls::Pair>) -> Peer {
    let client = arena.authority.client(own);
    let mut peer =
        Peer::connect(arena.open(Door::Odmr, true)).secure(&client, HOST).expect("a handshake");
    peer.expect("220");
    peer.ask("EHLO client.example", "250");
    peer
}

#[test]
fn c7_external_wants_a_certificate_that_stands_for_a_customer() {
    let pinned = self_signed(Shape { common_name: "whatever", ..Shape::default() });
    let stranger = self_signed(Shape { common_name: "acme", ..Shape::default() });
    let mut plan = patient();
    plan.customers[0].settings.certificate = vec![pinned.pin().into()];
    plan.tls = |files, authority| {
        files.asks_clients = true;
        files.client_ca = Some(authority.file(files.certificate.parent().expect("a folder")));
    };
    let arena = Arena::with(plan);
    let acme = BASE64.encode("acme");
    let other = BASE64.encode("other");

    let mut none = showing(&arena, None);
    none.ask("AUTH EXTERNAL =", "504");
    none.ask(&format!("AUTH EXTERNAL {acme}"), "504");

    // A certificate that says `acme` and that nobody signed.
    let mut peer = showing(&arena, Some(&stranger));
    peer.ask("AUTH EXTERNAL =", "535");
    peer.ask(&format!("AUTH EXTERNAL {acme}"), "535");

    let mut peer = showing(&arena, Some(&pinned));
    peer.ask(&format!("AUTH EXTERNAL {other}"), "535");
    peer.ask("AUTH EXTERNAL =", "235");
    let mut peer = showing(&arena, Some(&pinned));
    peer.ask(&format!("AUTH EXTERNAL {acme}"), "235");

    let by = |shape: Shape<'_>| arena.authority.sign(shape);
    let named = by(Shape { common_name: "other", ..Shape::default() });
    let mut peer = showing(&arena, Some(&named));
    peer.ask(&format!("AUTH EXTERNAL {acme}"), "535");
    peer.ask("AUTH EXTERNAL =", "235");
    let domains = by(Shape { dns_names: &["example.org"], ..Shape::default() });
    showing(&arena, Some(&domains)).ask(&format!("AUTH EXTERNAL {acme}"), "235");
    let both = by(Shape { dns_names: &["example.org", "other.example"], ..Shape::default() });
    let mut peer = showing(&arena, Some(&both));
    peer.ask("AUTH EXTERNAL =", "535");
    peer.ask(&format!("AUTH EXTERNAL {other}"), "235");

    let expired = by(Shape { common_name: "acme", is_expired: true, ..Shape::default() });
    showing(&arena, Some(&expired)).ask("AUTH EXTERNAL =", "535");
    let nobody = by(Shape { common_name: "nobody", ..Shape::default() });
    showing(&arena, Some(&nobody)).ask("AUTH EXTERNAL =", "535");
}

#[test]
fn c7_another_authority_names_nobody() {
    let mut plan = patient();
    plan.tls = |files, _| {
        let folder = files.certificate.parent().expect("a folder");
        files.client_ca = Some(hostile_support::tls::Authority::new().file(folder));
    };
    let arena = Arena::with(plan);
    // The server's authority is not the one for clients.
    let pair = arena.authority.sign(Shape { common_name: "acme", ..Shape::default() });
    showing(&arena, Some(&pair)).ask("AUTH EXTERNAL =", "535");
}

#[test]
fn c8_nobody_acts_for_somebody_else() {
    let arena = Arena::with(patient());
    let mut peer = arena.secured(Door::Odmr);
    for authzid in ["other", "*", "root", "ACME", "acme/x", "other/acme"] {
        peer.ask(&plain(authzid, "acme", PASSWORD), "535");
    }
    peer.ask(&plain("", "other", "acme's password"), "535");
    let scram = Scram { header: "n,a=other,", ..Scram::default() };
    assert!(scram.run(&mut peer)[0].starts_with("535"));
    peer.ask(&plain("acme", "acme", PASSWORD), "235");
    arena.queue(&["x@other.example"], "x\r\n");
    peer.ask("ATRN other.example", "450");
    peer.ask("ATRN", "453");
}

#[test]
fn c9_empty_and_odd_names_and_passwords_never_log_in() {
    let arena = Arena::with(patient());
    let long = "a".repeat(5000);
    let responses: Vec<Vec<u8>> = vec![
        b"\0\0".to_vec(),
        b"\0acme\0".to_vec(),
        format!("\0acme\0{PASSWORD}\0").into_bytes(),
        format!("\0acme\0{PASSWORD}\n").into_bytes(),
        format!("\0acme\r\n\0{PASSWORD}").into_bytes(),
        format!("\0{long}\0{PASSWORD}").into_bytes(),
        [&b"\0acm\xff\0"[..], PASSWORD.as_bytes()].concat(),
        [&b"\0acme\0"[..], PASSWORD.as_bytes(), b"\xff"].concat(),
        b"".to_vec(),
        b"acme".to_vec(),
        format!("\0acme {PASSWORD}").into_bytes(),
    ];
    for response in responses {
        let mut peer = arena.secured(Door::Odmr);
        peer.ask("AUTH PLAIN", "334");
        peer.say(format!("{}\r\n", BASE64.encode(&response)));
        peer.expect_one(&["501", "535"]);
        peer.ask("ATRN", "530");
    }
}

/// A wrong login for this name; the reply.
type Attempt = dyn Fn(&mut Peer, &str) -> String;

#[test]
fn c10_replies_and_times_do_not_tell_who_exists() {
    let mut plan = patient();
    let strong = |customer: &mut Customer| {
        let (scram, cram) =
            sasl::derive(&Secret::from(PASSWORD), vec![9; 16], sasl::ITERATIONS).expect("derived");
        let only = &mut customer.credentials[0];
        (only.scram, only.cram) = (scram, cram);
    };
    plan.customers.iter_mut().for_each(strong);
    plan.customers[1].suspended = true;
    plan.policy.delay_after_failures = vec![Duration::ZERO];
    let arena = Arena::with(plan);
    let names = ["acme", "nobody", "other"];
    let median = |attempt: &Attempt| {
        let mut times = vec![Vec::new(); names.len()];
        let mut replies = HashSet::new();
        for _ in 0..7 {
            let mut peer = arena.secured(Door::Odmr);
            for (index, name) in names.iter().enumerate() {
                let began = Instant::now();
                replies.insert(attempt(&mut peer, name));
                times[index].push(began.elapsed());
            }
        }
        assert_eq!(replies.len(), 1, "{replies:?}");
        times
            .iter_mut()
            .map(|all| {
                all.sort();
                all[3]
            })
            .collect::<Vec<Duration>>()
    };
    let attempts: [&Attempt; 3] = [
        &|peer, name| peer.ask(&plain("", name, "wrong"), "535").concat(),
        &|peer, name| {
            let challenge = peer.ask("AUTH CRAM-MD5", "334");
            let challenge = BASE64.decode(&challenge[0][4..]).expect("base64");
            peer.ask(&cram_response(&challenge, name, "wrong"), "535").concat()
        },
        &|peer, name| Scram { name, password: "wrong", ..Scram::default() }.run(peer).concat(),
    ];
    for attempt in attempts {
        let medians = median(attempt);
        let (least, most) =
            (medians.iter().min().expect("some"), medians.iter().max().expect("some"));
        // A skipped derivation would be a difference of many times.
        assert!(*most < *least * 2 + Duration::from_millis(5), "{medians:?}");
    }
}

#[test]
fn c10_the_right_password_of_a_suspended_customer_fails_the_same() {
    let mut plan = patient();
    plan.customers[1].suspended = true;
    let arena = Arena::with(plan);
    let mut peer = arena.secured(Door::Odmr);
    let wrong = peer.ask(&plain("", "acme", "wrong"), "535");
    assert_eq!(peer.ask(&plain("", "other", PASSWORD), "535"), wrong);
    assert_eq!(Scram { name: "other", ..Scram::default() }.run(&mut peer), wrong);
}

#[test]
fn c11_guesses_are_slow_and_lock_nobody_out() {
    let mut plan = plan();
    plan.speed = 20;
    plan.policy.delay_after_failures = [0, 1, 2, 4].map(Duration::from_secs).to_vec();
    let arena = Arena::with(plan);
    let address = arena.open(Door::Odmr, false);
    let from = |last: u8| {
        let mut peer = Peer::connect_from(IpAddr::from([127, 0, 0, last]), address);
        peer.expect("220");
        peer.ask("EHLO client.example", "250");
        peer
    };
    // In one session: over after a few.
    let mut guesser = from(2);
    let mut guesses = 0;
    let began = Instant::now();
    loop {
        guesser.say("AUTH CRAM-MD5\r\n");
        let reply = guesser.expect_one(&["334", "421"]);
        if reply[0].starts_with("421") {
            break;
        }
        let challenge = BASE64.decode(&reply[0][4..]).expect("base64");
        guesser.ask(&cram_response(&challenge, "acme", "wrong"), "535");
        guesses += 1;
    }
    assert!((3..=10).contains(&guesses), "{guesses}");
    // 0 + 1 + 2 seconds of the arena's clock.
    assert!(began.elapsed() * 20 >= Duration::from_secs(3), "{:?}", began.elapsed());
    // From many addresses.
    for last in 10..40 {
        from(last).cram("acme", "wrong", "535");
    }
    // The customer, from somewhere else, does not notice.
    let mut customer = from(200);
    let began = Instant::now();
    customer.cram("acme", PASSWORD, "235");
    assert!(began.elapsed() * 20 < Duration::from_secs(4), "{:?}", began.elapsed());
    // And even from the guesser's address there is an end to the wait.
    let mut neighbour = from(2);
    neighbour.cram("acme", PASSWORD, "235");
}

#[test]
fn c12_nothing_behind_a_failed_login_is_taken_for_more() {
    let arena = Arena::new();
    let mut peer = arena.secured(Door::Odmr);
    peer.say(format!("{}\r\nATRN\r\n", plain("", "acme", "wrong")));
    peer.expect("535");
    peer.expect_one(&["530", "503"]);
}

#[test]
fn c13_scram_is_held_to_its_words() {
    let arena = Arena::with(patient());
    let mut peer = showing(&arena, None);
    let fails = |peer: &mut Peer, what: &str, scram: Scram<'_>| {
        let reply = scram.run(peer);
        assert!(reply[0].starts_with("535") || reply[0].starts_with("501"), "{what}: {reply:?}");
    };
    let ordinary = || Scram::default();
    let challenge = ordinary().begin(&mut peer).expect("a challenge");
    assert!(challenge.iterations >= 4096 && challenge.salt.len() >= 16);
    let recorded = BASE64.encode(ordinary().final_message(&challenge));
    peer.ask("*", "501");
    // The whole exchange again, with the same client nonce.
    ordinary().begin(&mut peer).expect("a challenge");
    peer.ask(&recorded, "535");
    fails(&mut peer, "another nonce", Scram { other_nonce: true, ..ordinary() });
    fails(&mut peer, "another c=", Scram { other_binding: Some("eSws"), ..ordinary() });
    fails(&mut peer, "no proof", Scram { empty_proof: true, ..ordinary() });
    fails(&mut peer, "a mandatory extension", Scram { extension: "m=x,", ..ordinary() });
    fails(&mut peer, "PLUS was taken away", Scram { header: "y,,", ..ordinary() });
    let plus = || Scram {
        mechanism: "SCRAM-SHA-256-PLUS",
        header: "p=tls-exporter,,",
        binding: &[5; 32],
        ..ordinary()
    };
    fails(&mut peer, "another channel", plus());
    fails(&mut peer, "an unknown binding", Scram { header: "p=tls-unique,,", ..plus() });
    fails(&mut peer, "for somebody else", Scram { header: "n,a=other,", ..ordinary() });
    let mut exporter = [0; 32];
    peer.connection()
        .export_keying_material(&mut exporter, b"EXPORTER-Channel-Binding", Some(&[]))
        .expect("TLS 1.3");
    let reply = Scram { binding: &exporter, ..plus() }.run(&mut peer);
    assert!(reply[0].starts_with("235"), "{reply:?}");
    let mut peer = showing(&arena, None);
    assert!(ordinary().run(&mut peer)[0].starts_with("235"));
}

#[test]
fn c13_the_salt_of_nobody_is_stable() {
    let arena = Arena::with(patient());
    let salt = |name: &str| {
        let mut peer = showing(&arena, None);
        let challenge = Scram { name, ..Scram::default() }.begin(&mut peer).expect("a challenge");
        challenge.salt
    };
    assert_eq!(salt("nobody"), salt("nobody"));
    assert_ne!(salt("nobody"), salt("somebody"));
    assert_eq!(salt("nobody").len(), salt("acme").len());
}

#[test]
fn every_credential_logs_in_until_it_is_revoked() {
    let mut plan = patient();
    let mut office = customer("acme", &[]).credentials.remove(0);
    let (scram, cram) = sasl::derive(&Secret::from("another"), vec![3; 16], 4096).expect("derived");
    (office.label, office.scram, office.cram) = ("office".into(), scram, cram);
    plan.customers[0].credentials.push(office);
    let arena = Arena::with(plan);
    let mut peer = arena.secured(Door::Odmr);
    peer.ask(&plain("", "acme/office", PASSWORD), "535");
    peer.ask(&plain("", "acme", "another"), "535");
    peer.ask(&plain("", "acme/office", "another"), "235");
    let name = CustomerName::parse("acme").expect("a name");
    let directory = &arena.office.directory;
    let mut found =
        (*futures::executor::block_on(directory.customer(&name)).expect("read").expect("there"))
            .clone();
    found.credentials.retain(|credential| &*credential.label != "office");
    futures::executor::block_on(directory.update(found)).expect("changed");
    let mut peer = arena.secured(Door::Odmr);
    peer.ask(&plain("", "acme/office", "another"), "535");
    peer.ask(&plain("", "acme", PASSWORD), "235");
}
