//! Against our own provider in memory, over TLS: the strong mechanisms, from both sides of one program.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures::executor::block_on;
use restante::fetch::{Account, Event, Report, Verdict, collect_over};
use restante::mail::{Credential, Customer, CustomerName, Domain, Secret, Settings, Timestamp};
use restante::net::clock::RealWorld;
use restante::net::deliver::deliver;
use restante::net::pipe::{PipeEnd, pipe};
use restante::net::serve::{Host, converse};
use restante::net::stop::Stop;
use restante::net::tls::{ClientTls, MinimumVersion, ServerFiles, ServerTls, Trust};
use restante::net::wire::Wire;
use restante::provider::{Office, Policy};
use restante::smtp::caller::Encryption;
use restante::smtp::{Door, sasl};
use restante::store::{Directory as _, Memory};

use super::maildir;

const PASSWORD: &str = "päss wörd";

fn wire(end: PipeEnd) -> Wire {
    Wire { stream: Box::new(end), peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), tls: None }
}

/// Calls a provider whose customer `demo` has that password; gives the report and the mechanism used.
fn call_ours(prepare: impl FnOnce(&mut Account)) -> (Report, Option<&'static str>) {
    let home = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("made");
    let (certificate, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let server = ServerTls::load(ServerFiles::new(certificate.clone(), key, MinimumVersion::Tls12));
    let tls = Arc::new(server.expect("a certificate"));
    let (scram, cram) =
        sasl::derive(&Secret::from(PASSWORD), vec![7; 16], 4096).expect("a password");
    let memory = Arc::new(Memory::new());
    let customer = Customer {
        name: CustomerName::parse("demo").expect("a name"),
        domains: vec![Domain::parse("demo.example").expect("a domain")],
        suspended: false,
        credentials: vec![Credential { label: "".into(), scram, cram, created: Timestamp(0) }],
        settings: Settings::default(),
        created: Timestamp(0),
        revision: 0,
    };
    let mut policy = Policy::new(Domain::parse("mx.provider.example").expect("a domain"));
    policy.tls_available = true;
    let (_giver, stop) = Stop::new();
    let mut used = None;
    let report = block_on(async {
        memory.create(customer).await.expect("created");
        let world = Arc::new(RealWorld::default());
        let office = Arc::new(Office::new(memory.clone(), memory, world, policy));
        let host = Host { office, tls: Some(tls.clone()), stop: stop.clone() };
        let target = maildir(home.path()).parse().expect("a target");
        let secret = Some(Secret::from(PASSWORD));
        let mut account = Account::new("localhost", "demo", secret, target).expect("an account");
        account.encryption = Encryption::Implicit;
        prepare(&mut account);
        let (near, far) = pipe();
        let providing = async {
            let wire = tls.accept(wire(far)).await.expect("a handshake");
            if let Some(reversed) = converse(wire, Door::Odmr, &host).await.expect("a session") {
                deliver(reversed, &host.office, &stop).await;
            }
        };
        let calling = async {
            let client = ClientTls::new(&Trust::Authority(certificate), None).expect("a client");
            let wire = client.connect("localhost", wire(near)).await.expect("a handshake");
            let mut tell = |event: Event<'_>| {
                if let Event::LoggedIn(mechanism) = event {
                    used = Some(mechanism);
                }
            };
            collect_over(&account, wire, &stop, &mut tell).await
        };
        futures::join!(providing, calling).1
    });
    (report, used)
}

#[test]
fn the_strongest_mechanism_is_bound_to_the_connection() {
    let (report, used) = call_ours(|_| {});
    assert_eq!((report.verdict, used), (Verdict::NoMail, Some("SCRAM-SHA-256-PLUS")));
}

#[test]
fn every_other_mechanism_works_when_it_is_ordered() {
    for mechanism in ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN"] {
        let (report, used) = call_ours(|account| account.mechanisms = vec![mechanism]);
        assert_eq!((report.verdict, used), (Verdict::NoMail, Some(mechanism)));
    }
}

#[test]
fn a_wrong_password_is_refused_by_each() {
    for mechanism in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN"] {
        let (report, used) = call_ours(|account| {
            account.secret = Some(Secret::from("wrong"));
            account.mechanisms = vec![mechanism];
        });
        assert_eq!((report.verdict.exit_status(), used), (1, None), "{mechanism}");
    }
}

#[test]
fn a_foreign_domain_is_a_refusal() {
    let other = Domain::parse("other.example").expect("a domain");
    let (report, _) = call_ours(|account| account.domains = vec![other]);
    assert_eq!(report.verdict.exit_status(), 1);
    assert!(report.verdict.trouble().expect("trouble").cause.contains("450 4.7.1"));
}
