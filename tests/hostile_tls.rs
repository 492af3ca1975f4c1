//! TLS against hostile peers: rows B1 to B11 and E10 of docs/security.md, over the program's own listeners.

mod hostile_support;
#[path = "support/process.rs"]
mod process;

use std::time::{Duration, Instant};

use hostile_support::tls::{Shape, write};
use hostile_support::{Arena, HOST, PASSWORD, Peer, peer, plan};
use restante::net::tls::PairFiles;
use restante::smtp::Door;
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::CertificateDer;

/// The certificate that the server showed.
fn shown(peer: &Peer) -> CertificateDer<'static> {
    peer.connection().peer_certificates().expect("a certificate")[0].clone().into_owned()
}

/// A ClientHello with this version and these suites, without any extension.
fn old_hello(version: [u8; 2], suites: &[[u8; 2]]) -> Vec<u8> {
    raw_hello(version, suites, &[0], &[])
}

/// A ClientHello as it is told to be.
fn raw_hello(version: [u8; 2], suites: &[[u8; 2]], compressions: &[u8], more: &[u8]) -> Vec<u8> {
    let mut hello = vec![version[0], version[1]];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend(u16::try_from(suites.len() * 2).expect("few").to_be_bytes());
    hello.extend(suites.concat());
    hello.push(u8::try_from(compressions.len()).expect("few"));
    hello.extend(compressions);
    if !more.is_empty() {
        hello.extend(u16::try_from(more.len()).expect("few").to_be_bytes());
        hello.extend(more);
    }
    let length = u16::try_from(hello.len()).expect("short").to_be_bytes();
    let handshake = [&[1, 0, length[0], length[1]][..], &hello].concat();
    let length = u16::try_from(handshake.len()).expect("short").to_be_bytes();
    [&[0x16, 3, 1, length[0], length[1]][..], &handshake].concat()
}

/// What a modern client says first.
fn true_hello(arena: &Arena) -> Vec<u8> {
    let name = HOST.try_into().expect("a name");
    let config = arena.authority.client(None);
    let mut connection = rustls::ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("memory");
    hello
}

#[test]
fn b1_nothing_survives_the_switch_to_tls() {
    let arena = Arena::new();
    for tail in ["NOOP\r\n", "EHLO x\r\n", "NOO", "MAIL FROM:<a@b.example>\r\n"] {
        let mut peer = arena.greeted(Door::Mx);
        peer.say(format!("STARTTLS\r\n{tail}"));
        let reply = peer.expect_one(&["220", "503", "554"]);
        if !reply[0].starts_with("220") {
            continue;
        }
        let mut peer = match peer.secure(&arena.authority.client(None), HOST) {
            Ok(peer) => peer,
            // The octets took the place of a ClientHello: closed is as good.
            Err(_) => continue,
        };
        assert!(peer.is_silent(Duration::from_millis(100)), "{tail:?} was answered inside TLS");
        peer.ask("MAIL FROM:<a@b.example>", "503");
    }
    arena.until_quiet();
}

#[test]
fn b3_what_was_said_in_clear_text_is_forgotten() {
    let arena = Arena::new();
    let mut peer = arena.greeted(Door::Mx);
    peer.ask("MAIL FROM:<a@b.example>", "250");
    // STARTTLS inside a transaction may be refused; then the transaction is reset first.
    peer.say("STARTTLS\r\n");
    if !peer.expect_one(&["220", "503"])[0].starts_with("220") {
        peer.ask("RSET", "250");
        peer.ask("STARTTLS", "220");
    }
    let mut peer = peer.secure(&arena.authority.client(None), HOST).expect("a handshake");
    peer.ask("RCPT TO:<a@example.com>", "503");
    let keywords = peer.ask("EHLO client.example", "250");
    assert!(!keywords.iter().any(|line| line.contains("STARTTLS")), "{keywords:?}");
    peer.ask("RCPT TO:<a@example.com>", "503");

    let mut peer = arena.greeted(Door::Odmr);
    peer.cram("acme", PASSWORD, "235");
    peer.say("STARTTLS\r\n");
    if peer.expect_one(&["220", "503"])[0].starts_with("220") {
        let mut peer = peer.secure(&arena.authority.client(None), HOST).expect("a handshake");
        peer.ask("EHLO client.example", "250");
        peer.ask("ATRN", "530");
    }
}

#[test]
fn b4_tls_is_neither_repeated_nor_offered_inside_tls() {
    let arena = Arena::new();
    let mut peer = arena.greeted(Door::Mx);
    peer.ask("STARTTLS now", "501");
    peer.in_step();
    let mut peer = arena.secured(Door::Mx);
    peer.say("STARTTLS\r\n");
    peer.expect_one(&["502", "503", "554"]);
    peer.in_step();
}

// covers: T-05, T-07
#[test]
fn b5_old_versions_and_weak_suites_are_refused() {
    const RC4_SHA: [u8; 2] = [0, 5];
    const DES3_SHA: [u8; 2] = [0, 10];
    const NULL_SHA256: [u8; 2] = [0, 0x3b];
    const ANON_GCM: [u8; 2] = [0, 0xa6];
    const EXPORT_RC4: [u8; 2] = [0, 3];
    const RSA_GCM: [u8; 2] = [0, 0x9c];
    const CBC_ECDHE: [u8; 2] = [0xc0, 0x27];
    const GOOD: [u8; 2] = [0xc0, 0x2b];
    let arena = Arena::new();
    let address = arena.open(Door::Mx, true);
    let refused = |hello: Vec<u8>| {
        let mut peer = Peer::connect(address);
        peer.say(hello);
        let answer = peer.rest();
        // An alert, or nothing at all; never a ServerHello (a handshake record, 0x16).
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:02x?}");
    };
    for version in [[3, 0], [3, 1], [3, 2]] {
        refused(old_hello(version, &[GOOD, RC4_SHA, DES3_SHA]));
    }
    for suite in [RC4_SHA, DES3_SHA, NULL_SHA256, ANON_GCM, EXPORT_RC4, RSA_GCM, CBC_ECDHE] {
        refused(old_hello([3, 3], &[suite]));
    }
    // SSL 2.
    refused(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x07\x00\xc0\x05\x00\x80".to_vec());

    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = arena.authority.client_of(None, &[version]);
        let mut peer = Peer::connect(address).secure(&client, HOST).expect("a handshake");
        peer.expect("220");
    }
    let mut only13 = plan();
    only13.tls = |files, _| files.minimum = restante::net::tls::MinimumVersion::Tls13;
    let arena = Arena::with(only13);
    let client = arena.authority.client_of(None, &[&rustls::version::TLS12]);
    let peer = Peer::connect(arena.open(Door::Mx, true));
    assert!(peer.secure(&client, HOST).is_err(), "TLS 1.2 although the minimum is 1.3");
}

/// Seals records by hand, as the connection itself would.
struct Sealer {
    encrypter: Box<dyn MessageEncrypter>,
    number: u64,
}

impl Sealer {
    fn new((number, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } = secrets else {
            panic!("the suite that was asked for")
        };
        let suite =
            rustls::crypto::ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
        let rustls::SupportedCipherSuite::Tls12(suite) = suite else { panic!("of TLS 1.2") };
        Self { encrypter: suite.aead_alg.encrypter(key, iv.as_ref(), &[]), number }
    }

    fn seal(&mut self, typ: rustls::ContentType, octets: &[u8]) -> Vec<u8> {
        let version = rustls::ProtocolVersion::TLSv1_2;
        let plain = OutboundPlainMessage { typ, version, payload: OutboundChunks::Single(octets) };
        let sealed = self.encrypter.encrypt(plain, self.number).expect("sealed");
        self.number += 1;
        sealed.encode()
    }
}

/// The types of the records in what a server sent.
fn record_types(mut octets: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = octets {
        types.push(*kind);
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        octets = rest.get(length..).expect("whole records");
    }
    types
}

#[test]
fn b6_there_is_no_renegotiation() {
    use std::io::{Read, Write};
    let arena = Arena::new();
    let address = arena.open(Door::Mx, true);
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| {
        suite.suite() == rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    });
    let mut client = arena.authority.client_by(provider, None, &[&rustls::version::TLS12]);
    client.enable_secret_extraction = true;
    let name = HOST.try_into().expect("a name");
    let mut connection = rustls::ClientConnection::new(client.into(), name).expect("a client");
    let mut stream = std::net::TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(hostile_support::PATIENCE)).expect("a socket");
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).expect("a handshake");
    }
    // The greeting has to be taken off before the keys are taken out.
    let mut greeting = [0; 512];
    while connection.reader().read(&mut greeting).is_err() {
        connection.complete_io(&mut stream).expect("a greeting");
    }
    assert!(greeting.starts_with(b"220 "));
    let mut sealer = Sealer::new(connection.dangerous_extract_secrets().expect("keys").tx);
    let hello = old_hello([3, 3], &[[0xcc, 0xa9]]);
    // What is sealed by hand is understood. Of the hello, all but the head of its record.
    stream
        .write_all(&sealer.seal(rustls::ContentType::ApplicationData, b"NOOP\r\n"))
        .expect("sent");
    stream.write_all(&sealer.seal(rustls::ContentType::Handshake, &hello[5..])).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("open");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an end");
    let types = record_types(&answer);
    // The reply to NOOP; a warning; and the end: no second handshake (0x16).
    assert!(
        types.contains(&0x17) && types.contains(&0x15) && !types.contains(&0x16),
        "{types:02x?}"
    );
    arena.until_quiet();
}

#[test]
fn b7_a_close_notify_behind_the_hello_costs_nothing() {
    let arena = Arena::new();
    let address = arena.open(Door::Mx, true);
    let mut hostile: Vec<Peer> = (0..20).map(|_| Peer::connect(address)).collect();
    for peer in &mut hostile {
        peer.say([true_hello(&arena), b"\x15\x03\x03\0\x02\x01\0".to_vec()].concat());
    }
    let before = process::processor_ticks("self");
    let began = Instant::now();
    let client = arena.authority.client(None);
    let mut good = Peer::connect(address).secure(&client, HOST).expect("a handshake");
    good.expect("220");
    good.in_step();
    // The server takes it as the end; nobody is left spinning.
    for peer in &mut hostile {
        peer.rest();
    }
    good.ask("QUIT", "221");
    arena.until_quiet();
    let (ticks, seconds) =
        (process::processor_ticks("self") - before, began.elapsed().as_secs_f64());
    assert!(seconds < 10.0, "{seconds} s");
    // A hundred ticks are a second; one spinning thread would use all of the time.
    assert!((ticks as f64) < 100.0 * (seconds * 0.8 + 3.0), "{ticks} ticks in {seconds} s");
}

#[test]
fn b8_a_truncated_stream_is_never_a_message() {
    let arena = Arena::new();
    for content in ["text", "text\r\n", "text\r\n.", "text\r\n.\r"] {
        for says_goodbye in [false, true] {
            let mut peer = arena.secured(Door::Mx);
            peer.ask("MAIL FROM:<a@b.example>", "250");
            peer.ask("RCPT TO:<a@example.com>", "250");
            peer.ask("DATA", "354");
            peer.say(content);
            if says_goodbye {
                peer.close_notify();
            }
            peer.half_close();
            assert_eq!(peer.rest(), b"", "{content:?} was answered");
        }
    }
    arena.until_quiet();
    assert_eq!(arena.waiting(), Vec::<String>::new());
}

#[test]
fn b9_garbage_for_a_handshake_ends_the_connection() {
    let arena = Arena::new();
    let address = arena.open(Door::Mx, true);
    for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0; 16 << 10], b"EHLO x\r\n", &[0xff; 5]] {
        let mut peer = Peer::connect(address);
        // It may be gone before all is written.
        let _ = peer.try_say(garbage);
        peer.half_close_if_open();
        let answer = peer.rest();
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:02x?}");

        let mut peer = arena.greeted(Door::Mx);
        peer.ask("STARTTLS", "220");
        let _ = peer.try_say(garbage);
        peer.half_close_if_open();
        let answer = peer.rest();
        assert!(answer.is_empty() || answer[0] == 0x15, "clear text again: {answer:02x?}");
    }
    arena.until_quiet();
}

#[test]
fn b10_a_new_pair_is_served_and_a_bad_one_is_not() {
    let arena = Arena::new();
    let address = arena.open(Door::Mx, true);
    let client = arena.authority.client(None);
    let connect = || {
        let mut peer = Peer::connect(address).secure(&client, HOST).expect("a handshake");
        peer.expect("220");
        peer
    };
    let mut running = connect();
    let first = shown(&running);
    assert_eq!(arena.tls.reload(false), Ok(false), "nothing changed");

    let folder = arena.folder.path();
    let good = arena.authority.sign(Shape { dns_names: &[HOST], ..Shape::default() });
    write(folder, "server", &good);
    assert_eq!(arena.tls.reload(false), Ok(true));
    let second = shown(&connect());
    assert_ne!(first, second);
    running.in_step();

    let names = Shape { dns_names: &[HOST], ..Shape::default() };
    let expired = arena.authority.sign(Shape { is_expired: true, ..names });
    let other = arena.authority.sign(names);
    let refused = |what: &str| {
        let error = arena.tls.reload(false).expect_err(what);
        assert!(error.contains("server.") && !error.contains('\n'), "{error}");
        assert_eq!(arena.tls.reload(false), Ok(false), "{what}: said once");
        assert_eq!(shown(&connect()), second, "{what}");
    };
    write(folder, "server", &expired);
    refused("expired");
    write(folder, "server", &good);
    std::fs::write(folder.join("server.key"), other.key.serialize_pem()).expect("written");
    refused("the key of another");
    std::fs::write(folder.join("server.pem"), "-----BEGIN CERTIFICATE-----\nAAAA").expect("ok");
    refused("cut off");
    std::fs::remove_file(folder.join("server.pem")).expect("removed");
    refused("absent");
    write(folder, "server", &other);
    assert_eq!(arena.tls.reload(false), Ok(true));
    assert_eq!(shown(&connect()), other.certificate);
    running.in_step();
}

#[test]
fn e10_nothing_is_compressed() {
    const ECDSA_GCM: [u8; 2] = [0xc0, 0x2b];
    // supported_groups: x25519; signature_algorithms: ECDSA with P-256.
    let more = [&[0, 10, 0, 4, 0, 2, 0, 29][..], &[0, 13, 0, 4, 0, 2, 4, 3]].concat();
    let arena = Arena::new();
    let address = arena.open(Door::Mx, true);
    let answer = |compressions: &[u8]| {
        let mut peer = Peer::connect(address);
        peer.say(raw_hello([3, 3], &[ECDSA_GCM], compressions, &more));
        peer.half_close();
        peer.rest()
    };
    for compressions in [&[0][..], &[1, 0], &[1, 64, 0]] {
        let hello = answer(compressions);
        // Record, handshake head, version, random; then the session's id, the suite, and the compression: none.
        assert_eq!((hello[0], hello[5]), (0x16, 2), "{hello:02x?}");
        let behind_id = 44 + usize::from(hello[43]);
        assert_eq!(hello[behind_id..behind_id + 3], [0xc0, 0x2b, 0], "{compressions:?}");
    }
    // Deflate or nothing: nothing.
    let refused = answer(&[1]);
    assert!(refused.is_empty() || refused[0] == 0x15, "{refused:02x?}");
}

#[test]
fn b11_clear_text_gets_no_reply_on_an_implicit_tls_port() {
    let arena = Arena::new();
    for door in [Door::Mx, Door::Odmr] {
        let mut peer = Peer::connect(arena.open(door, true));
        peer.say("EHLO client.example\r\n");
        let answer = peer.rest();
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:02x?}");
    }
}

#[test]
fn certificates_are_chosen_by_name() {
    let mut several = plan();
    several.tls = |files, authority| {
        let folder = files.certificate.parent().expect("a folder").to_owned();
        let names = &["mail.other.example", "*.wild.example"];
        let pair = authority.sign(Shape { dns_names: names, ..Shape::default() });
        let (certificate, private_key) = write(&folder, "second", &pair);
        files.also = vec![PairFiles { certificate, private_key }];
    };
    let arena = Arena::with(several);
    let address = arena.open(Door::Mx, true);
    let served = |name: &str| {
        let client = arena.authority.client(None);
        Peer::connect(address).secure(&client, name).map(|peer| shown(&peer))
    };
    let first = served(HOST).expect("a handshake");
    let second = served("mail.other.example").expect("a handshake");
    assert_ne!(first, second);
    assert_eq!(served("x.wild.example").expect("a handshake"), second);
    // Everybody else is shown the first, and this client does not like it.
    assert!(served("x.y.wild.example").is_err() && served("nobody.example").is_err());
}

// covers: T-11
#[test]
fn a_session_ends_with_close_notify() {
    let arena = Arena::new();
    let mut peer = arena.secured(Door::Mx);
    peer.ask("QUIT", "221");
    assert!(peer.ended_in_order(), "the end of the stream could be anybody's");
}

#[test]
fn scram_plus_is_offered_where_a_binding_exists() {
    let arena = Arena::new();
    let address = arena.open(Door::Odmr, true);
    for (version, has_binding) in
        [(&rustls::version::TLS13, true), (&rustls::version::TLS12, false)]
    {
        let client = arena.authority.client_of(None, &[version]);
        let mut peer = Peer::connect(address).secure(&client, HOST).expect("a handshake");
        peer.expect("220");
        let keywords = peer.ask("EHLO client.example", "250").join("\n");
        assert!(keywords.contains("SCRAM-SHA-256"), "{keywords}");
        assert_eq!(keywords.contains("SCRAM-SHA-256-PLUS"), has_binding, "{keywords}");
        peer.ask(&peer::plain("", "acme", PASSWORD), "235");
    }
}
