//! The ways to a host: IPv6, certificates and whom they vouch for, and another way after a reload.

use std::net::TcpListener;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::host::*;
use crate::support::Provider;

/// A private authority, in a PEM file.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(file: &std::path::Path) -> Self {
        let mut params = CertificateParams::new(vec![]).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        std::fs::write(file, authority.as_ref().pem()).expect("written");
        Self(authority)
    }

    /// A server with a certificate for this name.
    fn host(&self, name: &str) -> Host {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("params");
        let made = params.signed_by(&key, &self.0).expect("signed");
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let ring = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.der().clone()], key)
            .expect("a pair");
        Host::open(Manner { tls: Some(std::sync::Arc::new(config)), ..Manner::default() })
    }
}

fn send_and_flush(provider: &Provider) {
    send(provider, "t@foo.example", "a@acme.example", "Subject: x\r\n\r\n");
    provider.command(&["flush", "acme.example"], "");
}

// covers: T-06
/// `etrn-tls verify`: an authority of the system must vouch for the very name in `etrn-host`.
#[test]
fn verified_against_a_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("authorities.pem");
    let authority = Authority::new(&file);
    let (right, wrong) = (authority.host("localhost"), authority.host("other.example"));
    let (self_signed, _) = certificate("localhost");
    let unknown = Host::open(Manner { tls: Some(self_signed), ..Manner::default() });
    let clear = Host::open(Manner::default());
    let mut provider = Provider::prepare(folder.path(), "");
    // The system's authorities, as OpenSSL's environment variable names them.
    provider.start_with(&[("SSL_CERT_FILE", &file.to_string_lossy())]);
    provider.add_customer("acme", "acme.example", PASSWORD);
    set(&provider, "etrn-tls", "verify");
    let point = |host: &Host| {
        set(&provider, "etrn-host", &format!("localhost:{}", host.address.port()));
    };
    point(&right);
    send_and_flush(&provider);
    let visit = right.visit();
    assert!(visit.was_encrypted && visit.messages.len() == 1, "{visit:?}");
    wait_for_queue(&provider, 0);
    for (host, why) in [
        (&wrong, "not valid for name"),
        (&unknown, "TLS: "),
        (&clear, "does not offer STARTTLS, and TLS is required"),
    ] {
        point(host);
        send_and_flush(&provider);
        assert!(host.visit().messages.is_empty(), "{why}");
        provider.wait_for_log(why);
    }
    // A pinned key needs no authority and no name; another key is not it.
    let (pinned, pin) = certificate("whatever.example");
    let pinned = Host::open(Manner { tls: Some(pinned), ..Manner::default() });
    set(&provider, "certificate", &"0".repeat(64));
    point(&pinned);
    send_and_flush(&provider);
    assert!(pinned.visit().messages.is_empty());
    provider.wait_for_log("the server's key is none of the pinned ones");
    set(&provider, "certificate", &pin);
    provider.command(&["flush", "acme.example"], "");
    assert!(!pinned.visit().messages.is_empty());
    wait_for_queue(&provider, 0);
}

/// A listener on ::1, or a word about why this cannot be tested here.
fn on_ipv6() -> Option<TcpListener> {
    match TcpListener::bind("[::1]:0") {
        Ok(listener) => Some(listener),
        Err(error) => {
            eprintln!("NOT TESTED: this machine has no ::1: {error}");
            None
        }
    }
}

// covers: W-16
#[test]
fn a_host_with_an_ipv6_address() {
    let Some(listener) = on_ipv6() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let address = listener.local_addr().expect("bound");
    let host = Host { address, visits: Host::serve(listener, Manner::default()) };
    assert!(address.to_string().starts_with("[::1]:"));
    let provider = provider(folder.path(), "", Some(address));
    send_and_flush(&provider);
    assert_eq!(host.visit().messages.len(), 1);
    wait_for_queue(&provider, 0);
}

// covers: W-16
#[test]
fn a_smart_host_with_an_ipv6_address() {
    let Some(listener) = on_ipv6() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let address = listener.local_addr().expect("bound");
    let relay = Host { address, visits: Host::serve(listener, Manner::default()) };
    let host = Host::open(Manner::default());
    let more = format!("[relay]\nroute = \"{address}\"\ntls = \"opportunistic\"\n");
    let provider = provider(folder.path(), &more, Some(host.address));
    send(&provider, "t@foo.example", "no-such@acme.example", "Subject: x\r\n\r\n");
    provider.command(&["flush", "acme.example"], "");
    assert_eq!(relay.visit().messages.len(), 1);
    wait_for_queue(&provider, 0);
}

// covers: W-15
#[test]
fn after_a_reload_waiting_reports_leave_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host::open(Manner::default());
    let provider = provider(folder.path(), "[relay]\nroute = \"none\"\n", Some(host.address));
    for number in 0..3 {
        let from = format!("t@foo{number}.example");
        send(&provider, &from, "no-such@acme.example", "Subject: x\r\n\r\n");
    }
    provider.command(&["flush", "acme.example"], "");
    host.visit();
    let waiting = || {
        let listed = provider.json(&["queue", "list", "--customer", "relay"]);
        listed["messages"].as_array().map_or(0, Vec::len)
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while waiting() < 3 {
        assert!(std::time::Instant::now() < deadline, "{}", provider.log());
    }
    let (tls, _) = certificate("relay.example");
    let relay = Host::open(Manner { keywords: vec!["AUTH PLAIN"], tls: Some(tls) });
    let file = provider.config();
    let text = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(folder.path().join("password"), "secret\n").expect("written");
    let login = "username = \"us\"\npassword_file = \"password\"";
    let route = format!("route = \"{}\"\n{login}", relay.address);
    std::fs::write(&file, text.replace("route = \"none\"", &route)).expect("written");
    let process = rustix::process::Pid::from_raw(provider.pid().cast_signed()).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::HUP).expect("signalled");
    let visit = relay.visit();
    assert_eq!(visit.messages.len(), 3, "{visit:?}");
    assert!(visit.lines.iter().any(|line| line.starts_with("AUTH PLAIN ")), "{visit:?}");
    wait_for_queue(&provider, 0);
}

// covers: X8-5
/// Raw octets in a header: a sender that did not say SMTPUTF8 gets them passed on as they are under 8BITMIME; one
/// that did is kept until the server offers SMTPUTF8.
#[test]
fn utf8_in_the_header_of_a_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host::open(Manner { keywords: vec!["8BITMIME"], ..Manner::default() });
    let provider = provider(folder.path(), "", Some(host.address));
    let content = "Subject: gr\u{fc}\u{df}e\r\n\r\nx\r\n";
    send(&provider, "t@foo.example", "a@acme.example", content);
    provider.command(&["flush", "acme.example"], "");
    let visit = host.visit();
    assert!(visit.messages[0].ends_with(content), "{visit:?}");
    assert!(visit.lines.iter().any(|line| line.contains("BODY=8BITMIME")), "{visit:?}");
    wait_for_queue(&provider, 0);
    // Another one, and this time it is said.
    let mut peer = provider.connect("mx");
    peer.expect("220");
    peer.ask("EHLO sender.example", "250");
    peer.ask("MAIL FROM:<t@foo.example> BODY=8BITMIME SMTPUTF8", "250");
    peer.ask("RCPT TO:<a@acme.example>", "250");
    peer.ask("DATA", "354");
    peer.ask(&format!("{content}."), "250");
    provider.command(&["flush", "acme.example"], "");
    assert!(host.visit().messages.is_empty());
    provider.wait_for_log("4.6.9 UTF-8 header, and the customer's server does not offer SMTPUTF8");
    let mended = Host::open(Manner { keywords: vec!["8BITMIME", "SMTPUTF8"], ..Manner::default() });
    set(&provider, "etrn-host", &mended.address.to_string());
    provider.command(&["flush", "acme.example"], "");
    let visit = mended.visit();
    assert!(visit.messages[0].ends_with(content), "{visit:?}");
    assert!(visit.lines.iter().any(|line| line.contains("SMTPUTF8")), "{visit:?}");
    // Without 8BITMIME there is no way for either.
    let old = Host::open(Manner::default());
    set(&provider, "etrn-host", &old.address.to_string());
    send(&provider, "t@foo.example", "a@acme.example", content);
    provider.command(&["flush", "acme.example"], "");
    assert!(old.visit().messages.is_empty());
    provider.wait_for_log("4.6.3 8-bit header, and the customer's server does not offer 8BITMIME");
}

// covers: X8-6
/// One UTF-8 address among the recipients keeps nobody else from getting the mail.
#[test]
fn a_utf8_recipient_beside_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Host::open(Manner { keywords: vec!["8BITMIME"], ..Manner::default() });
    let provider = provider(folder.path(), "", Some(host.address));
    let mut peer = provider.connect("mx");
    peer.expect("220");
    peer.ask("EHLO sender.example", "250");
    peer.ask("MAIL FROM:<t@foo.example> SMTPUTF8", "250");
    for to in ["a", "\u{fc}", "b"] {
        peer.ask(&format!("RCPT TO:<{to}@acme.example>"), "250");
    }
    peer.ask("DATA", "354");
    peer.ask("Subject: x\r\n\r\n.", "250");
    provider.command(&["flush", "acme.example"], "");
    let visit = host.visit();
    assert_eq!(visit.messages.len(), 1);
    let rcpt: Vec<&String> = visit.lines.iter().filter(|line| line.starts_with("RCPT")).collect();
    assert_eq!(rcpt, ["RCPT TO:<a@acme.example>", "RCPT TO:<b@acme.example>"]);
    provider.wait_for_log("4.6.7 UTF-8 address, and the customer's server does not offer SMTPUTF8");
    let listed = provider.json(&["queue", "list"]);
    let left = listed["messages"][0]["forward_paths"].as_array().map_or(0, Vec::len);
    assert_eq!(left, 1, "{listed}");
}
