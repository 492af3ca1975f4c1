//! The real program on loopback, with real TLS and the real store: the main job from end to end.

mod support;

use support::{Peer, Provider, Sink, Taken, sink};

const PASSWORD: &str = "correct-horse-battery";
const ALL: Sink<'_> =
    Sink { keywords: &["PIPELINING", "8BITMIME", "SIZE", "CHUNKING", "DSN"], keep: true };
const LITTLE: Sink<'_> = Sink { keywords: &["8BITMIME"], keep: true };

/// A running provider with customer `acme` for example.org.
fn provider(folder: &std::path::Path) -> Provider {
    let mut provider = Provider::prepare(folder, "");
    provider.start();
    provider.add_customer("acme", "example.org", PASSWORD);
    provider
}

fn sender(provider: &Provider) -> Peer {
    let mut peer = provider.connect("mx");
    peer.expect("220");
    peer.ask("EHLO sender.example", "250");
    peer
}

/// A customer that is logged in over a plain connection.
fn customer(provider: &Provider) -> Peer {
    let mut peer = provider.connect("odmr");
    peer.expect("220");
    peer.ask("EHLO example.org", "250");
    peer.cram("acme", PASSWORD);
    peer
}

/// Contents that go wrong where a line end or a dot is not handled with care.
fn contents() -> Vec<Vec<u8>> {
    let mut large = b"Subject: large\r\n\r\n".to_vec();
    for number in 0..40_000u32 {
        large.extend_from_slice(format!("{number:08x}{}\r\n", "x".repeat(60)).as_bytes());
    }
    vec![
        b"Subject: plain\r\n\r\nhello\r\n".to_vec(),
        b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\nx.\r\n...\r\n".to_vec(),
        "Subject: 8-bit\r\n\r\nGrüße aus Zürich ✉\r\n".as_bytes().to_vec(),
        b".leading dot in the header: yes\r\n\r\n".to_vec(),
        Vec::new(),
        large,
    ]
}

/// What was sent must stand, byte for byte, behind the one Received line.
fn assert_same(taken: &[Taken], sent: &[Vec<u8>]) {
    let sizes: Vec<_> = taken.iter().map(|one| one.content.len()).collect();
    assert_eq!(taken.len(), sent.len(), "{sizes:?}");
    for (got, wanted) in taken.iter().zip(sent) {
        assert!(got.content.starts_with(b"Received: from sender.example ([127.0.0.1])\r\n"));
        let end = got.content.len() - wanted.len();
        assert!(got.content[end..] == wanted[..], "the content was changed");
        let trace = String::from_utf8_lossy(&got.content[..end]);
        assert!(trace.ends_with(" +0000\r\n"), "{trace:?}");
        assert_eq!(trace.matches("Received:").count(), 1, "{trace:?}");
    }
}

#[test]
fn mail_flows_back_over_the_reversed_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    for manner in [&ALL, &LITTLE] {
        let mut peer = sender(&provider);
        for content in contents() {
            peer.send("t@foo.example", &["l@example.org"], &content);
        }
        peer.ask("QUIT", "221");
        assert_eq!(provider.json(&["queue", "list"])["messages"].as_array().map(Vec::len), Some(6));
        let mut peer = customer(&provider);
        peer.ask("ATRN example.org", "250");
        let taken = sink(&mut peer, manner);
        assert_eq!(taken.len(), 6, "{}", provider.log());
        assert_same(&taken, &contents());
        assert_eq!(taken[0].recipients, ["RCPT TO:<l@example.org>"]);
        provider.wait_for_log("drained customer=acme");
        assert_eq!(provider.json(&["queue", "list"])["messages"].as_array().map(Vec::len), Some(0));
        customer(&provider).ask("ATRN", "453");
    }
}

#[test]
fn the_same_under_starttls_and_under_implicit_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    for implicit in [false, true] {
        let open = |plain: &str, implicit_name: &str| {
            if implicit {
                let mut peer = provider.secure(provider.connect(implicit_name));
                peer.expect("220");
                peer
            } else {
                let mut peer = provider.connect(plain);
                peer.expect("220");
                peer.ask("EHLO sender.example", "250");
                peer.ask("STARTTLS", "220");
                provider.secure(peer)
            }
        };
        let mut peer = open("mx", "mxs");
        peer.ask("EHLO sender.example", "250");
        for content in contents() {
            peer.send("t@foo.example", &["l@example.org"], &content);
        }
        let mut peer = open("odmr", "odmrs");
        peer.ask("EHLO example.org", "250");
        peer.plain("acme", PASSWORD);
        peer.ask("ATRN", "250");
        let taken = sink(&mut peer, &ALL);
        assert_same(&taken, &contents());
        let trace = String::from_utf8_lossy(&taken[0].content[..200]).into_owned();
        assert!(trace.contains("with ESMTPS\r\n\t(TLSv1.3 "), "{trace}");
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut provider = provider(folder.path());
    let mut peer = sender(&provider);
    for content in contents() {
        peer.send("t@foo.example", &["l@example.org"], &content);
    }
    provider.kill();
    provider.start();
    let mut peer = customer(&provider);
    peer.ask("ATRN", "250");
    assert_same(&sink(&mut peer, &ALL), &contents());
}

#[test]
fn a_cut_drain_loses_nothing_and_frees_the_queue() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    let mut peer = sender(&provider);
    for content in contents() {
        peer.send("t@foo.example", &["l@example.org"], &content);
    }
    let mut peer = customer(&provider);
    peer.ask("ATRN", "250");
    customer(&provider).ask("ATRN", "451 4.2.1");
    peer.say("220 customer.example\r\n");
    drop(peer);
    provider.wait_for_log("drained customer=acme");
    let mut peer = customer(&provider);
    peer.ask("ATRN", "250");
    assert_same(&sink(&mut peer, &LITTLE), &contents());
}

#[test]
fn sigterm_ends_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut provider = provider(folder.path());
    let mut idle = sender(&provider);
    assert!(provider.terminate(), "{}", provider.log());
    idle.expect("421");
    assert!(provider.log().contains("stopped"), "{}", provider.log());
}

#[test]
fn a_second_provider_on_the_same_store_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    let second = provider.try_command(&["serve"], "");
    assert_eq!(second.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&second.stderr);
    assert!(!errors.trim().is_empty() && !errors.contains("panicked"), "{errors}");
}

#[test]
fn commands_do_the_same_beside_a_running_provider_and_without_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut provider = Provider::prepare(folder.path(), "");
    for (round, name) in ["first", "second"].into_iter().enumerate() {
        let domain = format!("{name}.example");
        let added = provider.json(&["customer", "add", name, "--domain", &domain]);
        assert_eq!(added["name"], name);
        assert_eq!(added["domains"][0], domain.as_str());
        assert!(added["password"].as_str().is_some_and(|text| text.len() >= 24), "{added}");
        let taken = provider.try_command(&["customer", "add", "third", "--domain", &domain], "");
        assert_eq!(taken.status.code(), Some(1));
        provider.command(&["customer", "suspend", name], "");
        provider.command(&["customer", "resume", name], "");
        provider.command(&["domain", "add", name, &format!("more-{domain}")], "");
        provider.command(&["domain", "remove", name, &format!("more-{domain}")], "");
        if round == 0 {
            provider.start();
        }
    }
    let listed = provider.command(&["customer", "list"], "");
    assert!(listed.contains("first.example") && listed.contains("second.example"), "{listed}");
    provider.command(&["customer", "remove", "second"], "");
    assert!(!provider.command(&["customer", "list"], "").contains("second"));
}

#[test]
fn held_mail_stays_and_comes_when_released() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    let reply = sender(&provider).send("t@foo.example", &["l@example.org"], b"x\r\n");
    let listed = provider.json(&["queue", "list"]);
    let message = &listed["messages"][0];
    let id = message["id"].as_str().expect("an id").to_owned();
    assert!(reply.contains(&id), "{reply}");
    for (field, value) in [
        ("customer", "acme"),
        ("domain", "example.org"),
        ("state", "queued"),
        ("reverse_path", "t@foo.example"),
    ] {
        assert_eq!(message[field], value, "{listed}");
    }
    assert_eq!(message["forward_paths"][0]["address"], "l@example.org", "{listed}");
    provider.command(&["queue", "hold", &id, "--yes"], "");
    assert_eq!(provider.json(&["queue", "list"])["messages"][0]["state"], "held");
    customer(&provider).ask("ATRN", "453");
    provider.command(&["queue", "release", &id, "--yes"], "");
    let shown = provider.command(&["queue", "show", &id, "--body"], "");
    assert!(shown.ends_with("x\r\n") || shown.ends_with("x\n"), "{shown}");
    let mut peer = customer(&provider);
    peer.ask("ATRN", "250");
    assert_eq!(sink(&mut peer, &ALL).len(), 1);
}

#[test]
fn refused_for_good_becomes_a_report_to_its_sender() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    sender(&provider).send("t@foo.example", &["l@example.org"], b"x\r\n");
    sender(&provider).send("", &["l@example.org"], b"y\r\n");
    let mut peer = customer(&provider);
    peer.ask("ATRN", "250");
    peer.say("220 customer.example\r\n");
    loop {
        let line = peer.line();
        peer.say(match line.split([' ', '\r']).next().unwrap_or_default() {
            "QUIT" => "221 bye\r\n",
            "RCPT" => "550 5.1.1 no such user\r\n",
            _ => "250 ok\r\n",
        });
        if line.starts_with("QUIT") {
            break;
        }
    }
    // The message leaves as its report enters; with `relay.route = "none"` the report is kept and listed.
    provider.wait_for_log(" report id=");
    let reports = provider.json(&["queue", "list", "--customer", "relay"]);
    let report = &reports["messages"][0];
    assert_eq!(report["reverse_path"], "", "{reports}");
    assert_eq!(report["forward_paths"][0]["address"], "t@foo.example", "{reports}");
    let id = report["id"].as_str().expect("an id");
    let text = provider.command(&["queue", "show", id, "--body"], "");
    for part in ["Status: 5.1.1", "no such user", "Final-Recipient: rfc822; l@example.org"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    // Of the other one nobody can be told: it stays, marked.
    provider.wait_for_log("kept-for-postmaster");
    let failed = provider.json(&["queue", "list", "--failed"]);
    assert_eq!(failed["messages"].as_array().map(Vec::len), Some(1), "{failed}");
    assert_eq!(failed["messages"][0]["reverse_path"], "", "{failed}");
    let path = &failed["messages"][0]["forward_paths"][0];
    assert_eq!(path["state"], "failed", "{failed}");
    assert!(path["reply"].as_str().is_some_and(|text| text.contains("no such user")), "{failed}");
    customer(&provider).ask("ATRN", "453");
}

#[test]
fn a_customer_with_mail_is_not_removed_by_accident() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    sender(&provider).send("t@foo.example", &["l@example.org"], b"x\r\n");
    let refused = provider.try_command(&["customer", "remove", "acme"], "");
    assert_eq!(refused.status.code(), Some(1), "mail is still there");
    provider.command(&["customer", "remove", "acme", "--discard-mail"], "");
    assert_eq!(provider.json(&["queue", "list"])["messages"].as_array().map(Vec::len), Some(0));
}

#[test]
fn fetch_follows_and_mail_comes_at_once_over_the_open_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    provider.command(&["customer", "set", "acme", "hold-open", "5m"], "");
    provider.command(&["customer", "set", "acme", "wait-for-mail", "5m"], "");
    let (password, mailbox) = (folder.path().join("password"), folder.path().join("Maildir"));
    std::fs::write(&password, format!("{PASSWORD}\n")).expect("written");
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("a mode");
    let mut fetch = std::process::Command::new(support::program())
        .args(["fetch", &provider.address("odmr"), "--user", "acme", "--tls", "none", "--follow"])
        .arg("--password-file")
        .arg(&password)
        .arg("--to")
        .arg(format!("maildir:{}", mailbox.display()))
        .stdin(std::process::Stdio::null())
        .spawn()
        .expect("the program");
    let wait_for = |count: usize| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while std::fs::read_dir(mailbox.join("new")).map_or(0, Iterator::count) < count {
            assert!(
                std::time::Instant::now() < deadline,
                "no {count} messages: {}",
                provider.log()
            );
            std::thread::yield_now();
        }
    };
    provider.wait_for_log(" login customer=acme");
    for number in 1..=3 {
        sender(&provider).send("t@foo.example", &["l@example.org"], b"Subject: x\r\n\r\ny\r\n");
        wait_for(number);
    }
    assert_eq!(provider.log().matches(" turn customer=acme").count(), 1, "{}", provider.log());
    let pid = rustix::process::Pid::from_child(&fetch);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    assert!(fetch.wait().expect("ended").success());
    provider.wait_for_log("drained customer=acme");
}

#[test]
fn fetch_logs_in_by_a_pinned_certificate() {
    use rustls::pki_types::pem::PemObject;
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    let made = rcgen::generate_simple_self_signed(["acme".to_owned()]).expect("made");
    let (certificate, key) = (folder.path().join("own.pem"), folder.path().join("own.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("a mode");
    let own = rustls::pki_types::CertificateDer::from_pem_file(&certificate).expect("sound");
    let digest = restante::net::tls::key_digest(&own).expect("a key");
    provider.command(
        &["customer", "set", "acme", "certificate", &restante::net::tls::hex(&digest)],
        "",
    );
    sender(&provider).send("t@foo.example", &["l@example.org"], b"Subject: x\r\n\r\ny\r\n");
    let mailbox = folder.path().join("Maildir");
    let place = provider.address("odmr").replace("127.0.0.1", "localhost");
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let target = format!("maildir:{}", mailbox.display());
    let ca = text(&folder.path().join("certificate.pem"));
    let (certificate, key) = (text(&certificate), text(&key));
    let arguments = ["fetch", &place, "--user", "acme", "--mechanism", "EXTERNAL", "--ca", &ca];
    let more = ["--certificate", &certificate, "--key", &key, "--to", &target];
    let output = support::run(&[&arguments[..], &more[..]].concat(), "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(mailbox.join("new")).expect("a mailbox").count(), 1);
    assert!(provider.log().contains("mechanism=EXTERNAL"), "{}", provider.log());
}

#[test]
fn health_and_metrics_are_served() {
    use std::io::{Read, Write};
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path());
    let ask = |path: &str| {
        let mut stream = std::net::TcpStream::connect(provider.address("http")).expect("http");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("text");
        text
    };
    assert!(ask("/healthz").starts_with("HTTP/1.1 200"));
    assert!(ask("/readyz").starts_with("HTTP/1.1 200"), "{}", ask("/readyz"));
    assert!(ask("/metrics").contains("restante_queue_messages 0"));
    sender(&provider).send("t@foo.example", &["l@example.org"], b"x\r\n");
    let metrics = ask("/metrics");
    assert!(metrics.contains("restante_queue_messages 1"), "{metrics}");
    assert!(metrics.contains("restante_domain_messages{domain=\"example.org\"} 1"), "{metrics}");
    assert!(ask("/").contains("example.org"));
    assert!(ask("/secret").starts_with("HTTP/1.1 404"));
}
