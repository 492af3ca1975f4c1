//! `restante doctor`: a provider in good health, and one ailment after the other. The name server, the smart host and
//! the customer's host are ours and on loopback.

#[path = "way_out/host.rs"]
#[allow(dead_code, reason = "shared with the tests of the way out")]
mod host;
mod support;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use domain::base::iana::{Class, Rcode, TlsaCertificateUsage, TlsaMatchingType, TlsaSelector};
use domain::base::{Message, MessageBuilder, Name, Rtype, Ttl};
use domain::rdata::{A, Mx, Tlsa};
use host::{Host, Manner, PASSWORD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sha2::Digest as _;
use support::{Provider, program};

/// What the name server knows.
#[derive(Clone, Debug, Default)]
struct Zone {
    /// Preference and host.
    exchangers: Vec<(u16, &'static str)>,
    has_address: bool,
    is_gone: bool,
    tlsa: Option<(u8, Vec<u8>)>,
}

/// A name server for acme.example and mx.provider.example.
struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl NameServer {
    fn open() -> Self {
        let zone = Zone {
            exchangers: vec![(10, "mx.provider.example.")],
            has_address: true,
            ..Zone::default()
        };
        let zone = Arc::new(Mutex::new(zone));
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        let known = zone.clone();
        std::thread::spawn(move || {
            let mut place = [0; 512];
            while let Ok((octets, peer)) = socket.recv_from(&mut place) {
                let query = Message::from_octets(place[..octets].to_vec()).expect("a query");
                let reply = reply(&query, &known.lock().expect("whole"));
                socket.send_to(&reply, peer).expect("sent");
            }
        });
        Self { address, zone }
    }

    fn set(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.lock().expect("whole"));
    }
}

fn reply(query: &Message<Vec<u8>>, zone: &Zone) -> Vec<u8> {
    let question = query.sole_question().expect("one");
    let (asked, kind) = (question.qname().to_string(), question.qtype());
    let name = |text: &str| text.parse::<Name<Vec<u8>>>().expect("a name");
    let is_gone = zone.is_gone && asked == "acme.example";
    let code = if is_gone { Rcode::NXDOMAIN } else { Rcode::NOERROR };
    let mut reply = MessageBuilder::new_vec().start_answer(query, code).expect("room");
    let (ttl, owner) = (Ttl::from_secs(60), name(&format!("{asked}.")));
    match (asked.as_str(), kind) {
        ("acme.example", Rtype::MX) if !is_gone => {
            for (preference, host) in &zone.exchangers {
                let mx = Mx::new(*preference, name(host));
                reply.push((owner.clone(), Class::IN, ttl, mx)).expect("room");
            }
        }
        ("mx.provider.example", Rtype::A) if zone.has_address => {
            reply.push((owner, Class::IN, ttl, A::from_octets(192, 0, 2, 7))).expect("room");
        }
        ("_25._tcp.mx.provider.example", Rtype::TLSA) => {
            if let Some((usage, data)) = &zone.tlsa {
                let tlsa = Tlsa::new(
                    TlsaCertificateUsage::from_int(*usage),
                    TlsaSelector::SPKI,
                    TlsaMatchingType::SHA2_256,
                    data.clone(),
                );
                reply.push((owner, Class::IN, ttl, tlsa)).expect("room");
            }
        }
        _ => {}
    }
    reply.finish()
}

/// Names and end of a certificate.
struct Wish<'a> {
    name: &'a str,
    days: i64,
}

/// A certificate by a private authority, in place of the provider's; the SHA-256 of its key.
fn certify(folder: &Path, wish: &Wish<'_>) -> Vec<u8> {
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(86_400);
    let ends = match wish.days {
        days if days >= 0 => now + day * u32::try_from(days).expect("small") + day / 2,
        days => now - day * u32::try_from(-days).expect("small"),
    };
    let mut params = CertificateParams::new(vec![]).expect("params");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("made");
    std::fs::write(folder.join("authorities.pem"), authority.as_ref().pem()).expect("written");
    let mut params = CertificateParams::new(vec![wish.name.to_owned()]).expect("params");
    params.not_before = (now - day * 400).into();
    params.not_after = ends.into();
    let key = KeyPair::generate().expect("a key");
    let made = params.signed_by(&key, &authority).expect("signed");
    std::fs::write(folder.join("certificate.pem"), made.pem()).expect("written");
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).expect("written");
    restante::net::tls::key_digest(made.der()).expect("a key").to_vec()
}

struct Ward {
    folder: tempfile::TempDir,
    provider: Provider,
    names: NameServer,
    key: Vec<u8>,
    _relay: Host,
    relay_at: SocketAddr,
}

impl Ward {
    /// Everything is well, and the provider runs.
    fn healthy() -> Self {
        let mut ward = Self::prepared();
        ward.provider.start();
        ward.provider.add_customer("acme", "acme.example", PASSWORD);
        ward
    }

    fn prepared() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (tls, _) = host::certificate("relay.example");
        let relay = Host::open(Manner { keywords: vec!["AUTH PLAIN"], tls: Some(tls) });
        let password = folder.path().join("relay-password");
        std::fs::write(&password, "secret\n").expect("written");
        only_owner(&password);
        let more = format!(
            "[relay]\nroute = \"{}\"\nusername = \"us\"\npassword_file = \"relay-password\"\n\
             [limits]\ndisk_free_min = \"1 KiB\"\n",
            relay.address
        );
        let provider = Provider::prepare(folder.path(), &more);
        let key = certify(folder.path(), &Wish { name: "mx.provider.example", days: 90 });
        only_owner(&folder.path().join("key.pem"));
        let relay_at = relay.address;
        Self { folder, provider, names: NameServer::open(), key, _relay: relay, relay_at }
    }

    fn doctor(&self, more: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let server = self.names.address.to_string();
        let mut child = Command::new(program())
            .args(["doctor", "-c", &self.provider.config(), "--name-server", &server])
            .args(more)
            .env("SSL_CERT_FILE", self.folder.path().join("authorities.pem"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the program");
        // A program that does not read its input may be gone already.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        child.wait_with_output().expect("ended")
    }

    /// Lines that are not `ok`, and the exit status.
    #[track_caller]
    fn ailments(&self, more: &[&str], input: &str) -> (Vec<String>, i32) {
        let output = self.doctor(more, input);
        let text = String::from_utf8(output.stdout).expect("text");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let status = output.status.code().expect("ended");
        let ailing: Vec<String> = text
            .lines()
            .filter(|line| !line.starts_with("ok ") && *line != "nothing to mend")
            .map(str::to_owned)
            .collect();
        let faults = ailing.iter().filter(|line| line.starts_with("fault ")).count();
        assert_eq!(status, i32::from(faults > 0), "{text}{errors}");
        assert_eq!(errors.lines().count(), usize::from(faults > 0), "{errors}");
        assert!(ailing.iter().all(|line| line.contains("; ")), "each has its mend: {ailing:?}");
        (ailing, status)
    }

    /// The only ailment begins so and says this.
    #[track_caller]
    fn ails(&self, begin: &str, what: &str) {
        let (ailing, _) = self.ailments(&[], "");
        assert_eq!(ailing.len(), 1, "{what}: {ailing:?}");
        assert!(ailing[0].starts_with(begin) && ailing[0].contains(what), "{what}: {ailing:?}");
    }

    fn configure(&self, from: &str, to: &str) {
        let file = self.provider.config();
        let text = std::fs::read_to_string(&file).expect("readable");
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(&file, text.replace(from, to)).expect("written");
    }
}

fn only_owner(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("set");
}

#[test]
fn a_provider_in_good_health() {
    let ward = Ward::healthy();
    let output = ward.doctor(&[], "");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.ends_with("nothing to mend\n"), "{text}");
    for said in [
        "ok       store        ",
        "ok       clock        nothing in the store is later than now",
        "ok       disk         ",
        "ok       certificate  the system's authorities vouch for mx.provider.example",
        " answers as mx.provider.example, TLSv1.3",
        "ok       ports        http 127.0.0.1:",
        "ok       dns          mx.provider.example is 192.0.2.7",
        "ok       dns          MX of acme.example is 10 mx.provider.example.",
        "TLSv1.3, the login is good",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
    assert_eq!(text.matches(" answers as mx.provider.example").count(), 4, "four doors: {text}");
    let output = ward.doctor(&["--json"], "");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(json["ok"], true);
    let findings = json["findings"].as_array().expect("a list");
    assert!(findings.len() > 10);
    for finding in findings {
        assert_eq!(finding["level"], "ok", "{finding}");
        assert!(finding["check"].is_string() && finding["what"].is_string(), "{finding}");
        assert_eq!(finding["mend"], "", "{finding}");
    }
    let output = ward.doctor(&["--json-lines"], "");
    let lines = String::from_utf8(output.stdout).expect("text");
    assert_eq!(lines.lines().count(), findings.len());
}

#[test]
fn ailments_of_the_names() {
    let ward = Ward::healthy();
    let names = &ward.names;
    names.set(|zone| zone.exchangers = vec![]);
    ward.ails("fault    dns ", "acme.example has no MX record");
    names.set(|zone| zone.exchangers = vec![(10, "elsewhere.example.")]);
    ward.ails("fault    dns ", "MX of acme.example is 10 elsewhere.example.: its mail does not come here; in the DNS: acme.example. IN MX 10 mx.provider.example.");
    names.set(|zone| zone.exchangers = vec![(0, ".")]);
    ward.ails("fault    dns ", "null MX");
    names.set(|zone| zone.exchangers = vec![(5, "a.example."), (10, "MX.provider.example.")]);
    ward.ails("warning  dns ", "others come before mx.provider.example");
    names.set(|zone| zone.exchangers = vec![(20, "a.example."), (10, "mx.provider.example.")]);
    assert_eq!(ward.ailments(&[], ""), (vec![], 0));
    names.set(|zone| zone.is_gone = true);
    ward.ails("fault    dns ", "acme.example does not exist");
    names.set(|zone| {
        zone.is_gone = false;
        zone.has_address = false;
    });
    ward.ails("fault    dns ", "mx.provider.example has no address");
    names.set(|zone| {
        zone.has_address = true;
        zone.tlsa = Some((3, vec![7; 32]));
    });
    ward.ails(
        "fault    dns ",
        "no TLSA record of _25._tcp.mx.provider.example fits the certificate",
    );
    let key = ward.key.clone();
    names.set(|zone| zone.tlsa = Some((3, key)));
    assert_eq!(ward.ailments(&[], ""), (vec![], 0));
    names.set(|zone| zone.tlsa = Some((2, sha2::Sha256::digest(b"x").to_vec())));
    ward.ails("warning  dns ", "names an authority (usage 2)");
}

#[test]
fn a_name_server_that_is_not_there() {
    let ward = Ward::healthy();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound").to_string();
    drop(socket);
    let output = Command::new(program())
        .args(["doctor", "-c", &ward.provider.config(), "--name-server", &address])
        .env("SSL_CERT_FILE", ward.folder.path().join("authorities.pem"))
        .output()
        .expect("ended");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    let said = format!("fault    dns          the name server {address} gives no answer: ");
    assert!(text.contains(&said), "{text}");
}

#[test]
fn ailments_of_the_certificate() {
    let mut ward = Ward::prepared();
    let folder = ward.folder.path().to_owned();
    let cases = [
        ("mx.provider.example", 20, "warning  certificate ", "ends in 20 days"),
        ("*.provider.example", 22, "", ""),
        ("mx.provider.example", -3, "fault    certificate ", "expired 3 days ago"),
        ("other.example", 90, "fault    certificate ", "no certificate names mx.provider.example"),
    ];
    for (name, days, begin, what) in cases {
        certify(&folder, &Wish { name, days });
        only_owner(&folder.join("key.pem"));
        ward.provider.start();
        if name == "mx.provider.example" && days == 20 {
            ward.provider.add_customer("acme", "acme.example", PASSWORD);
        }
        let (ailing, _) = ward.ailments(&[], "");
        // That nobody vouches for what is expired or has another name, is a line of its own.
        let ailing: Vec<&String> =
            ailing.iter().filter(|line| !line.contains("authorities do not vouch")).collect();
        match begin {
            "" => assert!(ailing.is_empty(), "{ailing:?}"),
            _ => {
                assert_eq!(ailing.len(), 1, "{ailing:?}");
                assert!(ailing[0].starts_with(begin) && ailing[0].contains(what), "{ailing:?}");
            }
        }
        assert!(ward.provider.terminate());
    }
    // Renewed, and the provider has not noticed yet: it looks every half a minute.
    certify(&folder, &Wish { name: "mx.provider.example", days: 90 });
    ward.provider.start();
    certify(&folder, &Wish { name: "mx.provider.example", days: 91 });
    let (ailing, _) = ward.ailments(&[], "");
    assert_eq!(ailing.len(), 4, "{ailing:?}");
    assert!(
        ailing.iter().all(|line| line.contains("still shows another certificate")),
        "{ailing:?}"
    );
}

#[test]
fn ailments_of_the_way_out() {
    let ward = Ward::healthy();
    let route = format!("route = \"{}\"", ward.relay_at);
    let (tls, _) = host::certificate("relay.example");
    let no_login = Host::open(Manner { keywords: vec![], tls: Some(tls) });
    let clear = Host::open(Manner { keywords: vec!["AUTH PLAIN"], tls: None });
    let down = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    for (address, what) in [
        (no_login.address, "offers no login"),
        (clear.address, "does not offer STARTTLS, and TLS is required"),
        (down, "refused"),
    ] {
        let other = format!("route = \"{address}\"");
        ward.configure(&route, &other);
        ward.ails("fault    reports ", what);
        ward.configure(&other, &route);
    }
    let login = "username = \"us\"\npassword_file = \"relay-password\"\n";
    ward.configure(&format!("{route}\n{login}"), "route = \"none\"\n");
    ward.ails("warning  reports ", "wait here until they expire; set it to \"mx\"");
    ward.configure("route = \"none\"\n", "route = \"mx\"\n");
    assert_eq!(ward.ailments(&[], ""), (vec![], 0));
}

#[test]
fn ailments_of_disk_clock_and_store() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut ward = Ward::healthy();
    let data = ward.folder.path().join("data");
    ward.configure("disk_free_min = \"1 KiB\"", "disk_free_min = \"4000 TiB\"");
    ward.ails("fault    disk ", "less than limits.disk_free_min");
    ward.configure("disk_free_min = \"4000 TiB\"", "disk_free_min = \"1 KiB\"");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).expect("set");
    ward.ails("warning  disk ", "can be looked into by others (mode 755); chmod 700");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).expect("set");
    assert!(ward.provider.terminate());
    // Nothing runs: the ports are free, and that is all that is to be said of them.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    ward.ails("warning  ports ", "no provider runs on this data_dir");
    let address = taken.local_addr().expect("bound").to_string();
    ward.configure("mx = [\"127.0.0.1:0\"]", &format!("mx = [\"{address}\"]"));
    let (ailing, status) = ward.ailments(&[], "");
    assert_eq!(status, 1);
    assert!(ailing[0].contains(&format!("mx {address} cannot be bound")), "{ailing:?}");
    ward.configure(&format!("mx = [\"{address}\"]"), "mx = [\"127.0.0.1:0\"]");
    // A file from tomorrow: the clock was set back.
    let file = std::fs::File::create(data.join("store/from-tomorrow")).expect("made");
    let tomorrow = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
    file.set_modified(tomorrow).expect("set");
    let (ailing, status) = ward.ailments(&[], "");
    assert_eq!(status, 1);
    assert!(
        ailing
            .iter()
            .any(|line| line.starts_with("fault    clock ")
                && line.contains("after now; set the clock")),
        "{ailing:?}"
    );
    std::fs::remove_file(data.join("store/from-tomorrow")).expect("removed");
    // A store of a release to come.
    std::fs::write(data.join("store/LAYOUT"), "restante store layout 99\n").expect("written");
    let (ailing, status) = ward.ailments(&[], "");
    assert_eq!(status, 1);
    assert!(
        ailing.iter().any(|line| line.starts_with("fault    store ") && line.contains("layout 99")),
        "{ailing:?}"
    );
}

#[test]
fn plays_a_customer_and_moves_no_mail() {
    let ward = Ward::healthy();
    host::send(&ward.provider, "t@foo.example", "a@acme.example", "Subject: x\r\n\r\n");
    let said = |more: &[&str], input: &str| {
        let output = ward.doctor(more, input);
        let text = String::from_utf8(output.stdout).expect("text");
        (output.status.code().expect("ended"), text)
    };
    let (status, text) = said(&["--as", "acme"], "");
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("ok       customer     acme: acme.example; 1 messages wait"), "{text}");
    assert!(text.contains("ATRN, AUTH ") && text.contains("no login was tried"), "{text}");
    let (status, text) = said(&["--as", "acme", "--password-stdin"], &format!("{PASSWORD}\n"));
    assert_eq!(status, 0, "{text}");
    assert!(
        text.contains("acme can log in (SCRAM-SHA-256-PLUS); no ATRN was sent, so no mail moved"),
        "{text}"
    );
    let (status, text) = said(&["--as", "acme", "--password-stdin"], "wrong\n");
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("fault    customer     acme cannot log in: "), "{text}");
    let (status, text) = said(&["--as", "nobody"], "");
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("there is no customer nobody"), "{text}");
    // Its host for ETRN is looked at as well.
    let theirs = Host::open(Manner::default());
    host::set(&ward.provider, "etrn-host", &theirs.address.to_string());
    let (status, text) = said(&["--as", "acme"], "");
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("answers, in clear text"), "{text}");
    host::set(&ward.provider, "etrn-tls", "required");
    let (status, text) = said(&["--as", "acme"], "");
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("warning  customer     its etrn-host"), "{text}");
    ward.provider.command(&["customer", "suspend", "acme"], "");
    let (status, text) = said(&["--as", "acme"], "");
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("restante customer resume acme"), "{text}");
    let listed = ward.provider.json(&["queue", "list"]);
    assert_eq!(listed["messages"].as_array().map(Vec::len), Some(1), "nothing moved: {listed}");
    let status = ward.provider.json(&["status"]);
    assert_eq!(status["last_drains"].as_array().map(Vec::len), Some(0), "{status}");
}

/// Mail that came while the clock was wrong.
#[test]
fn messages_from_the_future() {
    use futures::executor::block_on;
    use restante::mail::*;
    use restante::store::{NewMessage, Options, SledStore, Store};
    let mut ward = Ward::healthy();
    assert!(ward.provider.terminate());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after it");
    let then = Timestamp(u64::try_from(now.as_millis()).expect("in this age") + 86_400_000);
    let id = QueueId::at(then.0, 1);
    let recipient = Recipient {
        forward_path: ForwardPath::parse("a@acme.example").expect("a path"),
        notify: None,
        orcpt: None,
    };
    let message = NewMessage {
        id,
        envelope: Envelope { recipients: vec![recipient], ..Envelope::default() },
        owners: vec![CustomerName::parse("acme").expect("a name")],
        facts: ContentFacts { size: 3, ..ContentFacts::default() },
        arrived: then,
        expires: vec![then.after(Seconds(3600))],
    };
    let store = SledStore::open(&ward.folder.path().join("data/store"), Options::default());
    let store = store.expect("opened");
    block_on(async {
        let mut body = store.begin_body(id, 0).await.expect("a body");
        body.write(b"x\r\n").await.expect("written");
        store.commit(message, body).await.expect("durable");
        store.close().await.expect("closed");
    });
    drop(store);
    ward.provider.start();
    ward.ails("warning  clock ", "1 messages came later than now, up to ");
}

#[test]
fn a_bad_configuration_is_wrong_usage() {
    let ward = Ward::prepared();
    ward.configure("hostname = ", "hostnam = ");
    let output = ward.doctor(&[], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}
