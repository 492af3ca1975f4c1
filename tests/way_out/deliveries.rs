//! ETRN, flush, reports and what a server cannot take, from one end to the other.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use crate::host::*;

// covers: E-01, E-02, E-05, E-07, E-08, E-09, E-10, E-12, D9
#[test]
fn etrn_delivers_over_another_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host::open(Manner::default());
    let provider = provider(folder.path(), "", Some(host.address));
    let mut plain = provider.connect("mx");
    plain.expect("220");
    plain.ask("ETRN", "500");
    plain.ask("ETRN localname", "501");
    assert!(plain.ask("ETRN acme.example", "530").contains("STARTTLS"));
    plain.say("EHLO acme.example\r\n");
    loop {
        let line = plain.line();
        assert!(!line.contains("AUTH") && !line.contains("ETRN"), "not in clear text: {line}");
        if line.starts_with("250 ") {
            break;
        }
    }
    plain.ask("AUTH PLAIN AGFjbWUAeA==", "530");
    let mut peer = customer(&provider);
    assert!(peer.ask("ETRN acme.example", "251").contains("no messages"));
    send(&provider, "t@foo.example", "a@acme.example", "Subject: one\r\n\r\n.dot\r\n");
    send(&provider, "t@foo.example", "b@acme.example", "Subject: two\r\n\r\n");
    assert!(peer.ask("ETRN acme.example", "253").contains(" 2 pending messages "));
    let visit = host.visit();
    assert_eq!(visit.messages.len(), 2);
    assert!(visit.messages[0].ends_with("Subject: one\r\n\r\n.dot\r\n"));
    wait_for_queue(&provider, 0);
    peer.ask("ETRN #acme", "251");
    peer.ask("ETRN @acme.example", "251");
    for foreign in ["other.example", "@example", "@com", "#other", "sub.acme.example"] {
        peer.ask(&format!("ETRN {foreign}"), "459");
    }
    // Mail may be sent after a login, and the login is still there afterwards.
    peer.ask("MAIL FROM:<t@foo.example>", "250");
    peer.ask("ETRN acme.example", "503");
    peer.ask("RSET", "250");
    peer.ask("ETRN acme.example", "251");
    peer.ask("MAIL FROM:<t@foo.example>", "250");
    assert!(
        peer.ask("RCPT TO:<x@elsewhere.example>", "550").contains("5.7.1"),
        "no relay, logged in or not"
    );
    peer.ask("QUIT", "221");
    let status = provider.json(&["status"]);
    assert_eq!(status["last_drains"][0]["path"], "etrn", "{status}");
}

// covers: E-06, E-11, E-13
#[test]
fn policy_is_459_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = provider(folder.path(), "", None);
    let mut peer = customer(&provider);
    assert!(peer.ask("ETRN acme.example", "459").contains("etrn-host"));
    set(&provider, "etrn-host", "127.0.0.1:9");
    set(&provider, "etrn-from", "192.0.2.0/24");
    assert!(peer.ask("ETRN acme.example", "459").contains("address"));
    set(&provider, "etrn-from", "127.0.0.0/8");
    peer.ask("ETRN acme.example", "251");
    provider.command(&["customer", "suspend", "acme"], "");
    assert!(peer.ask("ETRN acme.example", "459").contains("suspended"));
}

// covers: D8
#[test]
fn thousands_of_wishes_cost_one_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    // It takes connections and never greets.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let provider = provider(folder.path(), "", Some(address));
    send(&provider, "t@foo.example", "a@acme.example", "Subject: x\r\n\r\n");
    let mut peer = customer(&provider);
    for _ in 0..30 {
        peer.say("ETRN acme.example\r\n".repeat(100));
        for _ in 0..100 {
            peer.expect("253");
        }
    }
    let (_held, _) = listener.accept().expect("the one");
    listener.set_nonblocking(true).expect("set");
    assert!(listener.accept().is_err(), "no second connection");
}

// covers: W-14
#[test]
fn a_host_that_was_down_is_tried_again_and_flush_does_it_by_hand() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let provider = provider(folder.path(), "[etrn]\nretry = [\"1s\"]\n", Some(address));
    send(&provider, "t@foo.example", "a@acme.example", "Subject: x\r\n\r\n");
    let mut peer = customer(&provider);
    peer.ask("ETRN acme.example", "253");
    provider.wait_for_log("unreachable");
    let listener = TcpListener::bind(address).expect("the same port");
    let host = Host { address, visits: Host::serve(listener, Manner::default()) };
    assert_eq!(host.visit().messages.len(), 1, "tried again by itself");
    wait_for_queue(&provider, 0);
    send(&provider, "t@foo.example", "b@acme.example", "Subject: y\r\n\r\n");
    let said = provider.command(&["flush", "acme.example"], "");
    assert!(said.contains("delivery started (1 message waits)"), "{said}");
    assert_eq!(host.visit().messages.len(), 1);
    assert!(provider.command(&["flush", "acme.example"], "").contains("nothing to deliver"));
}

#[test]
fn flush_without_a_running_provider() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host::open(Manner::default());
    let mut provider = provider(folder.path(), "", Some(host.address));
    send(&provider, "t@foo.example", "a@acme.example", "Subject: x\r\n\r\n");
    assert!(provider.terminate());
    let said = provider.command(&["flush", "acme.example"], "");
    assert!(said.contains("1 delivered, 0 deferred, 0 failed"), "{said}");
    assert_eq!(host.visit().messages.len(), 1);
    wait_for_queue(&provider, 0);
}

// covers: T-06
#[test]
fn tls_towards_the_host_by_etrn_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let (tls, pin) = certificate("host.example");
    let secure = Host::open(Manner { tls: Some(tls), ..Manner::default() });
    let clear = Host::open(Manner::default());
    let provider = provider(folder.path(), "", Some(secure.address));
    let flush = |wanted: &str| {
        send(&provider, "t@foo.example", "a@acme.example", "Subject: x\r\n\r\n");
        provider.command(&["flush", "acme.example"], "");
        assert!(
            wanted.is_empty() || {
                provider.wait_for_log(wanted);
                true
            }
        );
    };
    flush("");
    assert!(secure.visit().was_encrypted, "opportunistic is the default");
    wait_for_queue(&provider, 0);
    set(&provider, "etrn-tls", "none");
    flush("");
    assert!(!secure.visit().was_encrypted);
    wait_for_queue(&provider, 0);
    set(&provider, "etrn-tls", "verify");
    flush("error=\"127.0.0.1 [127.0.0.1]: TLS: ");
    assert!(secure.visit().messages.is_empty(), "nobody vouches for this certificate");
    set(&provider, "certificate", &pin);
    provider.command(&["flush", "acme.example"], "");
    let visit = secure.visit();
    assert!(visit.was_encrypted && visit.messages.len() == 1, "{visit:?}");
    wait_for_queue(&provider, 0);
    set(&provider, "etrn-host", &clear.address.to_string());
    set(&provider, "etrn-tls", "required");
    flush("does not offer STARTTLS, and TLS is required");
    assert!(clear.visit().messages.is_empty());
}

// covers: N-10, N-13, S-13, O-04, W-13
#[test]
fn a_refusal_becomes_a_report_at_the_smart_host() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host::open(Manner::default());
    let (tls, _) = certificate("relay.example");
    let relay = Host::open(Manner { keywords: vec!["AUTH PLAIN", "8BITMIME"], tls: Some(tls) });
    std::fs::write(folder.path().join("relay-password"), "secret\n").expect("written");
    let more = format!(
        "[relay]\nroute = \"{}\"\nusername = \"us\"\npassword_file = \"relay-password\"\n",
        relay.address
    );
    let provider = provider(folder.path(), &more, Some(host.address));
    send(
        &provider,
        "t@foo.example",
        "no-such@acme.example",
        "Subject: x\r\nMessage-ID: <1@foo>\r\n\r\nbody\r\n",
    );
    provider.command(&["flush", "acme.example"], "");
    let visit = relay.visit();
    assert!(visit.was_encrypted, "a password is never said in clear text");
    assert!(visit.lines.contains(&"MAIL FROM:<>".to_owned()), "{visit:?}");
    assert!(visit.lines.contains(&"RCPT TO:<t@foo.example>".to_owned()), "{visit:?}");
    assert!(visit.lines.iter().any(|line| line.starts_with("AUTH PLAIN ")), "{visit:?}");
    let report = &visit.messages[0];
    for part in [
        "Reporting-MTA: dns; mx.provider.example\r\n",
        "Final-Recipient: rfc822; no-such@acme.example\r\n",
        "Action: failed\r\nStatus: 5.1.1\r\n",
        "Remote-MTA: dns; host.example\r\n",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
        "Subject: x\r\nMessage-ID: <1@foo>\r\n",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
    wait_for_queue(&provider, 0);
    let log = provider.log();
    assert!(log.contains(" report ") && log.contains("path=relay"), "{log}");
    // A relay that refuses: nobody is told of that, and the report stays for the postmaster.
    send(&provider, "no-one@foo.example", "no-such@acme.example", "Subject: y\r\n\r\n");
    provider.command(&["flush", "acme.example"], "");
    provider.wait_for_log("kept-for-postmaster");
    let kept = provider.json(&["queue", "list", "--failed"]);
    assert_eq!(kept["messages"][0]["customer"], "relay", "{kept}");
}

// covers: B-01, G4, X8-1, X8-2
#[test]
fn eight_bit_content_is_converted_where_it_may_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host::open(Manner { keywords: vec!["SIZE"], ..Manner::default() });
    let provider = provider(folder.path(), "", Some(host.address));
    let long = "gr\u{fc}\u{df}e aus Z\u{fc}rich ".repeat(4000);
    let text = long
        .as_bytes()
        .chunks(900)
        .map(|line| [line, b"\r\n"].concat())
        .collect::<Vec<_>>()
        .concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let content = format!(
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: 8bit\r\n\r\n{text}"
    );
    send(&provider, "t@foo.example", "a@acme.example", &content);
    provider.command(&["flush", "acme.example"], "");
    let visit = host.visit();
    let taken = &visit.messages[0];
    assert!(
        taken.is_ascii() && !visit.lines.iter().any(|line| line.contains("BODY=")),
        "{visit:?}"
    );
    let size = format!("SIZE={}", taken.len());
    assert!(visit.lines.iter().any(|line| line.contains(&size)), "{:?} {size}", visit.lines);
    let parsed = mail_parser::MessageParser::default().parse(taken.as_bytes()).expect("a message");
    assert_eq!(parsed.body_text(0).expect("text"), text);
    wait_for_queue(&provider, 0);
    let sealed = "Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\n\u{fc}\r\n--s--\r\n";
    send(&provider, "t@foo.example", "a@acme.example", sealed);
    provider.command(&["flush", "acme.example"], "");
    assert!(host.visit().messages.is_empty(), "signed parts are not touched");
    provider.wait_for_log("4.6.3 8-bit content, and the customer's server does not offer 8BITMIME; it cannot be converted: the 8-bit part is signed or encrypted");
}

// covers: Z-05, U-02, X8-3
#[test]
fn what_the_customers_server_would_refuse_is_refused_at_intake() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host::open(Manner { keywords: vec!["SIZE 5000", "8BITMIME"], ..Manner::default() });
    let provider = provider(folder.path(), "", Some(host.address));
    let mut peer = provider.connect("mx");
    peer.expect("220");
    peer.ask("EHLO sender.example", "250");
    let mut ask = |to: &str, code: &str| {
        peer.ask("MAIL FROM:<t@foo.example> SIZE=6000 SMTPUTF8", "250");
        let reply = peer.ask(&format!("RCPT TO:<{to}>"), code);
        peer.ask("RSET", "250");
        reply
    };
    ask("a@acme.example", "250");
    ask("\u{fc}@acme.example", "250");
    send(&provider, "t@foo.example", "a@acme.example", "Subject: x\r\n\r\n");
    provider.command(&["flush", "acme.example"], "");
    host.visit();
    assert!(ask("a@acme.example", "552").contains("5.3.4"));
    peer.ask("MAIL FROM:<t@foo.example> SIZE=60 SMTPUTF8", "250");
    assert!(peer.ask("RCPT TO:<\u{fc}@acme.example>", "553").contains("5.6.7"));
    peer.ask("RCPT TO:<a@acme.example>", "250");
}

// covers: X8-4
#[test]
fn reject_policy_retry_keeps_what_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host::open(Manner::default());
    let provider = provider(folder.path(), "[relay]\nroute = \"none\"\n", Some(host.address));
    set(&provider, "reject-policy", "retry");
    send(&provider, "t@foo.example", "no-such@acme.example", "Subject: x\r\n\r\n");
    provider.command(&["flush", "acme.example"], "");
    host.visit();
    provider.wait_for_log("deferred");
    let listed = provider.json(&["queue", "list"]);
    assert_eq!(listed["messages"][0]["state"], "deferred", "{listed}");
    set(&provider, "reject-policy", "report");
    provider.command(&["flush", "acme.example"], "");
    host.visit();
    provider.wait_for_log(" report ");
    let listed = provider.json(&["queue", "list"]);
    let messages = listed["messages"].as_array().expect("a list");
    assert_eq!(messages.len(), 1, "{listed}");
    assert_eq!(messages[0]["customer"], "relay", "without a way out it waits, visible");
    let status = provider.json(&["status"]);
    assert_eq!(status["relay"], "none");
}

// covers: G-01, N-20
#[test]
fn expiry_and_relaying_are_reported_to_customers_in_their_own_queues() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host::open(Manner::default());
    let provider = provider(folder.path(), "[queue]\nexpire_after = \"1s\"\n", Some(host.address));
    provider.add_customer("other", "other.example", PASSWORD);
    provider.command(&["customer", "set", "other", "expire-after", "1h"], "");
    send(&provider, "t@other.example", "a@acme.example", "Subject: x\r\n\r\n");
    provider.wait_for_log(" report ");
    let listed = provider.json(&["queue", "list", "--customer", "other"]);
    assert_eq!(listed["messages"][0]["reverse_path"], "", "{listed}");
    let id = listed["messages"][0]["id"].as_str().expect("an id").to_owned();
    let text = provider.command(&["queue", "show", &id, "--body"], "");
    assert!(text.contains("Status: 5.4.7"), "{text}");
    // Handed on to a server without DSN, with NOTIFY=SUCCESS.
    set(&provider, "expire-after", "1h");
    let mut peer = provider.connect("mx");
    peer.expect("220");
    peer.ask("EHLO sender.example", "250");
    peer.ask("MAIL FROM:<t@other.example> ENVID=E1", "250");
    peer.ask("RCPT TO:<a@acme.example> NOTIFY=SUCCESS", "250");
    peer.ask("DATA", "354");
    peer.ask("Subject: y\r\n\r\n.", "250");
    provider.command(&["flush", "acme.example"], "");
    host.visit();
    provider.wait_for_log("actions=relayed");
    let listed = provider.json(&["queue", "list", "--customer", "other"]);
    let id = listed["messages"][1]["id"].as_str().expect("an id").to_owned();
    let text = provider.command(&["queue", "show", &id, "--body"], "");
    assert!(
        text.contains("Action: relayed") && text.contains("Original-Envelope-Id: E1"),
        "{text}"
    );
}

#[test]
fn sigterm_waits_for_the_reply_to_what_is_on_its_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut provider =
        provider(folder.path(), "", Some(listener.local_addr().expect("an address")));
    send(&provider, "t@foo.example", "a@acme.example", "Subject: one\r\n\r\n");
    customer(&provider).ask("ETRN acme.example", "253");
    let (stream, _) = listener.accept().expect("a call");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let (mut lines, mut writer) = (BufReader::new(&stream).lines(), &stream);
    writer.write_all(b"220 host.example ESMTP\r\n").expect("said");
    for line in (&mut lines).map(|line| line.expect("a command")) {
        if line == "DATA" {
            break;
        }
        writer.write_all(b"250 ok\r\n").expect("said");
    }
    writer.write_all(b"354 go\r\n").expect("said");
    assert!(lines.any(|line| line.expect("content") == "."));
    provider.order_to_stop();
    provider.wait_for_log("stopping");
    writer.write_all(b"250 taken\r\n").expect("said");
    assert_eq!(lines.next().expect("goodbye").expect("a line"), "QUIT");
    writer.write_all(b"221 bye\r\n").expect("said");
    assert!(provider.has_ended_well(), "{}", provider.log());
    provider.start();
    wait_for_queue(&provider, 0);
}
