//! Reports on their way to the mail exchangers that a name server names: order, the next one when one is down, none.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use domain::base::iana::{Class, Rcode};
use domain::base::{Message, MessageBuilder, Name, Rtype, Ttl};
use domain::rdata::{A, Aaaa, Mx};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{Either, select};
use restante::net::call::{Phone, Reach};
use restante::net::dns::Resolver;
use restante::net::stop::Stop;
use restante::provider::rounds::Rounds;
use restante::store::{Filter, Head};

use crate::house::*;

/// A name server for a few names.
fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut place = [0; 512];
        while let Ok((octets, peer)) = socket.recv_from(&mut place) {
            let query = Message::from_octets(place[..octets].to_vec()).expect("a query");
            socket.send_to(&reply(&query), peer).expect("sent");
        }
    });
    address
}

fn reply(query: &Message<Vec<u8>>) -> Vec<u8> {
    let question = query.sole_question().expect("one");
    let (asked, kind) = (question.qname().to_string(), question.qtype());
    let name = |text: &str| text.parse::<Name<Vec<u8>>>().expect("a name");
    let code = if asked == "gone.example" { Rcode::NXDOMAIN } else { Rcode::NOERROR };
    let mut reply = MessageBuilder::new_vec().start_answer(query, code).expect("room");
    let (ttl, owner) = (Ttl::from_secs(60), name(&format!("{asked}.")));
    match (asked.as_str(), kind) {
        ("foo.example", Rtype::MX) => {
            for (preference, host) in [(20, "up.example."), (10, "down.example.")] {
                let mx = Mx::new(preference, name(host));
                reply.push((owner.clone(), Class::IN, ttl, mx)).expect("room");
            }
        }
        ("six.example", Rtype::MX) => {
            reply.push((owner, Class::IN, ttl, Mx::new(10, name("only6.example.")))).expect("room");
        }
        ("only6.example", Rtype::AAAA) => {
            reply
                .push((owner, Class::IN, ttl, Aaaa::new(std::net::Ipv6Addr::LOCALHOST)))
                .expect("room");
        }
        // No exchanger at all: the domain's own address counts.
        ("bare.example", Rtype::A) => {
            reply.push((owner, Class::IN, ttl, A::from_octets(127, 0, 0, 3))).expect("room");
        }
        ("null.example", Rtype::MX) => {
            reply.push((owner, Class::IN, ttl, Mx::new(0, name(".")))).expect("room");
        }
        ("down.example", Rtype::A) => {
            reply.push((owner, Class::IN, ttl, A::from_octets(127, 0, 0, 2))).expect("room");
        }
        ("up.example", Rtype::A) => {
            reply.push((owner, Class::IN, ttl, A::from_octets(127, 0, 0, 3))).expect("room");
        }
        _ => {}
    }
    reply.finish()
}

/// A mail server that takes everything and tells its RCPT lines.
fn exchanger(listener: TcpListener) -> (u16, Receiver<String>) {
    let port = listener.local_addr().expect("bound").port();
    let (tell, heard) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a caller");
            stream.write_all(b"220 up.example\r\n").expect("greeted");
            let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
            let (mut line, mut is_data) = (String::new(), false);
            while reader.read_line(&mut line).is_ok_and(|octets| octets > 0) {
                let text = std::mem::take(&mut line);
                if is_data && text != ".\r\n" {
                    continue;
                }
                let reply = match text.split([' ', '\r']).next() {
                    Some("DATA") => "354 go\r\n",
                    Some("QUIT") => "221 bye\r\n",
                    _ => "250 ok\r\n",
                };
                is_data = reply.starts_with("354");
                if text.starts_with("RCPT") {
                    tell.send(text.trim_end().to_owned()).expect("the test listens");
                }
                stream.write_all(reply.as_bytes()).expect("answered");
            }
        }
    });
    (port, heard)
}

/// A failed message from this sender, and the rounds of the way out until `is_done`.
fn relay(from: &str, is_done: impl Fn(&[Head], &Receiver<String>) -> bool) {
    relay_to(TcpListener::bind("127.0.0.3:0").expect("a port"), from, is_done);
}

fn relay_to(
    listener: TcpListener,
    from: &str,
    is_done: impl Fn(&[Head], &Receiver<String>) -> bool,
) {
    let house = House::new();
    let (port, heard) = exchanger(listener);
    let id = house.mail(from, vec![recipient("a@acme.example", None, None)]);
    house.settle("acme", vec![(id, 0, failed("550 no"))]);
    house.report();
    let (_giver, stop) = Stop::new();
    let resolver = Resolver::with_servers(vec![name_server()]);
    let reach = Reach { port, local: true };
    let phone = Arc::new(Phone::new(house.office.clone(), resolver, reach, stop));
    let rounds = Rounds::relay(house.office.clone(), phone);
    let running = rounds.run().boxed();
    let done = async {
        // Bounded: the test's own clock is the system's.
        for _ in 0..2000 {
            house.reporter.round().await;
            let left = house.office.store.query(Filter::default(), None, 10).await.expect("asked");
            if is_done(&left, &heard) {
                return true;
            }
            restante::net::patience::pause(Duration::from_millis(5)).await;
        }
        false
    };
    let Either::Right((is_done, _)) = block_on(select(running, done.boxed_local())) else {
        panic!("rounds have no end")
    };
    assert!(is_done, "{from}: {:?}", house.query(Filter::default()));
}

// covers: W-10
#[test]
fn the_next_exchanger_takes_what_the_first_cannot() {
    let first: IpAddr = "127.0.0.2".parse().expect("valid");
    assert!(std::net::TcpStream::connect((first, 9)).is_err(), "nobody listens on the first one");
    relay("t@foo.example", |_, heard| {
        heard.try_iter().any(|line| line == "RCPT TO:<t@foo.example>")
    });
}

// covers: W-10
#[test]
fn a_domain_without_exchangers_is_its_own() {
    relay("t@bare.example", |_, heard| {
        heard.try_iter().any(|line| line == "RCPT TO:<t@bare.example>")
    });
}

// covers: W-16
#[test]
fn an_exchanger_with_an_ipv6_address_only() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("NOT TESTED: this machine has no ::1");
        return;
    };
    relay_to(listener, "t@six.example", |_, heard| {
        heard.try_iter().any(|line| line == "RCPT TO:<t@six.example>")
    });
}

// covers: W-11, S-30
#[test]
fn a_domain_that_takes_no_mail_is_not_tried_again() {
    for (from, code) in [("t@null.example", "5.1.10 "), ("t@gone.example", "5.1.2 ")] {
        relay(from, |left, heard| {
            assert_eq!(heard.try_iter().count(), 0, "nothing is sent anywhere");
            left.iter().any(|head| match &head.recipients[0].state {
                restante::mail::RecipientState::Failed(words) => words.as_str().starts_with(code),
                _ => false,
            })
        });
    }
}
