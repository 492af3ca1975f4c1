use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::base::Ttl;
use domain::base::iana::Class;
use domain::rdata::Cname;
use futures::executor::block_on;

use super::*;

fn name(text: &str) -> Asked {
    Asked::from_str(text).expect("a name")
}

/// The reply of a small zone to a query.
fn reply(query: &[u8], is_udp: bool) -> Vec<u8> {
    let query = Message::from_octets(query.to_vec()).expect("a query");
    let question = query.sole_question().expect("one question");
    let (asked, kind) = (question.qname().to_string(), question.qtype());
    let code = match asked.as_str() {
        "gone.example" => Rcode::NXDOMAIN,
        "broken.example" => Rcode::SERVFAIL,
        _ => Rcode::NOERROR,
    };
    let mut reply = MessageBuilder::new_vec().start_answer(&query, code).expect("room");
    let is_cut = is_udp && asked == "big.example";
    if is_cut {
        reply.header_mut().set_tc(true);
        return reply.finish();
    }
    let ttl = Ttl::from_secs(60);
    let mut mx = |owner: &str, preference, host: &str| {
        reply.push((name(owner), Class::IN, ttl, Mx::new(preference, name(host)))).expect("room");
    };
    match (asked.as_str(), kind) {
        ("foo.example", Rtype::MX) => {
            mx("foo.example.", 10, "a.foo.example.");
            mx("foo.example.", 20, "b.foo.example.");
            mx("other.example.", 1, "evil.example.");
        }
        ("null.example", Rtype::MX) => mx("null.example.", 0, "."),
        ("big.example", Rtype::MX) => {
            (0..100).for_each(|n| mx("big.example.", n, &format!("host{n}.big.example.")));
        }
        ("alias.example", Rtype::MX) => {
            let target = Cname::new(name("foo.example."));
            reply.push((name("alias.example."), Class::IN, ttl, target)).expect("room");
            let mx = Mx::new(10, name("a.foo.example."));
            reply.push((name("foo.example."), Class::IN, ttl, mx)).expect("room");
        }
        ("a.foo.example", Rtype::A) => {
            for last in [1, 2] {
                let a = A::from_octets(192, 0, 2, last);
                reply.push((name("a.foo.example."), Class::IN, ttl, a)).expect("room");
            }
        }
        ("a.foo.example", Rtype::AAAA) => {
            let aaaa = Aaaa::new("2001:db8::1".parse().expect("valid"));
            reply.push((name("a.foo.example."), Class::IN, ttl, aaaa)).expect("room");
        }
        _ => {}
    }
    reply.finish()
}

/// A name server on loopback, UDP and TCP; before each answer come `strays` that answer something else.
fn server(strays: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let address = udp.local_addr().expect("bound");
    let tcp = std::net::TcpListener::bind(address).expect("the same port");
    let by_tcp = Arc::new(AtomicUsize::new(0));
    let count = by_tcp.clone();
    std::thread::spawn(move || {
        let mut place = [0; 512];
        while let Ok((octets, peer)) = udp.recv_from(&mut place) {
            let good = reply(&place[..octets], true);
            for _ in 0..strays {
                let mut bad = good.clone();
                bad[0] ^= 0xff;
                udp.send_to(&bad, peer).expect("sent");
            }
            udp.send_to(&good, peer).expect("sent");
        }
    });
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in tcp.incoming() {
            let mut stream = stream.expect("a stream");
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("read");
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut query).expect("read");
            let reply = reply(&query, false);
            let length = u16::try_from(reply.len()).expect("short").to_be_bytes();
            count.fetch_add(1, Ordering::Relaxed);
            stream.write_all(&[&length[..], &reply].concat()).expect("written");
        }
    });
    (address, by_tcp)
}

#[test]
fn exchangers_and_addresses() {
    let (address, by_tcp) = server(3);
    let resolver = Resolver::with_servers(vec![address]);
    let exchangers = |domain: &str| block_on(resolver.exchangers(domain));
    let found = exchangers("foo.example").expect("an answer");
    assert_eq!(
        found.exchangers,
        [(10, "a.foo.example".into()), (20, "b.foo.example".into())],
        "records of another owner are not believed"
    );
    assert_eq!(exchangers("alias.example").expect("an answer").exchangers.len(), 1);
    assert_eq!(exchangers("null.example").expect("an answer").exchangers, [(0, String::new())]);
    assert_eq!(
        exchangers("none.example").expect("an answer"),
        Found { exists: true, exchangers: vec![] }
    );
    assert_eq!(exchangers("gone.example").expect("an answer"), Found::default());
    assert!(exchangers("broken.example").is_err());
    assert_eq!(by_tcp.load(Ordering::Relaxed), 0);
    assert_eq!(exchangers("big.example").expect("by TCP").exchangers.len(), 100);
    assert_eq!(by_tcp.load(Ordering::Relaxed), 1);
    let addresses = block_on(resolver.addresses("a.foo.example")).expect("an answer");
    let expected: Vec<IpAddr> =
        ["2001:db8::1", "192.0.2.1", "192.0.2.2"].map(|a| a.parse().expect("valid")).into();
    assert_eq!(addresses, expected);
    assert!(block_on(resolver.addresses("none.example")).expect("an answer").is_empty());
}

#[test]
fn another_server_is_asked_when_one_is_deaf() {
    // Bound and never read: the kernel takes the query and nobody answers; a closed port answers at once.
    let closed =
        std::net::UdpSocket::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound");
    let (address, _) = server(0);
    let resolver = Resolver::with_servers(vec![closed, address]);
    assert_eq!(
        block_on(resolver.exchangers("foo.example")).expect("an answer").exchangers.len(),
        2
    );
}

#[test]
fn the_systems_configuration() {
    let text =
        "# x\nsearch example.org\nnameserver 192.0.2.53\nnameserver ::1\nnameserver nonsense\n";
    let servers = servers_in(text);
    assert_eq!(
        servers,
        ["192.0.2.53:53".parse().expect("valid"), "[::1]:53".parse::<SocketAddr>().expect("valid")]
    );
    assert_eq!(
        Resolver::with_servers(Vec::new()).servers,
        ["127.0.0.1:53".parse::<SocketAddr>().expect("valid")]
    );
}
