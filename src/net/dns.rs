//! The resolver of the way out: MX, A and AAAA from the name servers of the system, over UDP and TCP.
//!
//! Called by the phone. A stub resolver: the recursive server of the system does the work, and the DNSSEC checks if
//! it makes them. Each query has its own unpredictable number and port, and an answer to anything else is not
//! looked at (RFC 5452 §9). The messages are read and written by the `domain` crate. It keeps no cache.
//!
//! Keeps RFC 1035 §4, RFC 5321 §5.1, RFC 7766 §5 (TCP where UDP is cut off).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use async_std::net::{TcpStream, UdpSocket};
use domain::base::iana::Rcode;
use domain::base::name::ToName;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::{A, Aaaa, AllRecordData, Mx};
use futures::io::{AsyncReadExt, AsyncWriteExt};

use super::patience::within;
use crate::provider::route::Found;

/// Where the system's name servers are written.
const CONFIGURATION: &str = "/etc/resolv.conf";
/// How long one server may take for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How often each server is asked.
const ROUNDS: usize = 2;
/// Servers that are asked.
const SERVERS_MAX: usize = 3;
/// Packets that are no answer of ours, before a server is given up.
const STRAYS_MAX: usize = 16;

/// See the module's head.
#[derive(Clone, Debug)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
}

/// A name that can be asked for.
type Asked = Name<Vec<u8>>;

impl Resolver {
    /// With the name servers of the system; with the local one if none are written down.
    #[must_use]
    pub fn of_the_system() -> Self {
        Self::with_servers(servers_in(&std::fs::read_to_string(CONFIGURATION).unwrap_or_default()))
    }

    /// With these name servers.
    #[must_use]
    pub fn with_servers(mut servers: Vec<SocketAddr>) -> Self {
        servers.truncate(SERVERS_MAX);
        if servers.is_empty() {
            servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
        }
        Self { servers }
    }

    /// The mail exchangers of a domain.
    ///
    /// # Errors
    /// No server gave a usable answer.
    pub async fn exchangers(&self, domain: &str) -> io::Result<Found> {
        let answer = self.ask(domain, Rtype::MX).await?;
        if answer.header().rcode() == Rcode::NXDOMAIN {
            return Ok(Found::default());
        }
        let Some(owner) = answer.canonical_name() else {
            return Ok(Found { exists: true, ..Found::default() });
        };
        let mut exchangers = Vec::new();
        for record in answer.answer().map_err(unreadable)?.limit_to::<Mx<_>>() {
            let record = record.map_err(unreadable)?;
            if record.owner().name_eq(&owner) {
                let name = record.data().exchange().to_string();
                exchangers
                    .push((record.data().preference(), name.trim_end_matches('.').to_owned()));
            }
        }
        Ok(Found { exists: true, exchangers })
    }

    /// The addresses of a host, IPv6 and IPv4 in turns, IPv6 first.
    ///
    /// # Errors
    /// No server gave a usable answer to either question.
    pub async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let (six, four) = futures::future::join(
            self.addresses_of(host, Rtype::AAAA),
            self.addresses_of(host, Rtype::A),
        )
        .await;
        let (six, four) = match (six, four) {
            (Err(error), Err(_)) => return Err(error),
            (six, four) => (six.unwrap_or_default(), four.unwrap_or_default()),
        };
        let mut mixed = Vec::with_capacity(six.len() + four.len());
        let (mut six, mut four) = (six.into_iter(), four.into_iter());
        loop {
            let (one, other) = (six.next(), four.next());
            if one.is_none() && other.is_none() {
                return Ok(mixed);
            }
            mixed.extend(one.into_iter().chain(other));
        }
    }

    async fn addresses_of(&self, host: &str, kind: Rtype) -> io::Result<Vec<IpAddr>> {
        let answer = self.ask(host, kind).await?;
        let Some(owner) = answer.canonical_name() else { return Ok(Vec::new()) };
        let section = answer.answer().map_err(unreadable)?;
        let mut found = Vec::new();
        if kind == Rtype::AAAA {
            for record in section.limit_to::<Aaaa>() {
                let record = record.map_err(unreadable)?;
                if record.owner().name_eq(&owner) {
                    found.push(IpAddr::V6(record.data().addr()));
                }
            }
        } else {
            for record in section.limit_to::<A>() {
                let record = record.map_err(unreadable)?;
                if record.owner().name_eq(&owner) {
                    found.push(IpAddr::V4(record.data().addr()));
                }
            }
        }
        Ok(found)
    }

    /// The TLSA records of a service, as in `_25._tcp.mx.example` (RFC 6698 §2.1): usage, selector, matching type,
    /// and data.
    ///
    /// # Errors
    /// No server gave a usable answer.
    pub async fn tlsa(&self, name: &str) -> io::Result<Vec<(u8, u8, u8, Vec<u8>)>> {
        let answer = self.ask(name, Rtype::TLSA).await?;
        let mut found = Vec::new();
        for record in answer.answer().map_err(unreadable)?.limit_to::<AllRecordData<_, _>>() {
            let record = record.map_err(unreadable)?;
            let AllRecordData::Tlsa(data) = record.data() else { continue };
            found.push((
                data.usage().to_int(),
                data.selector().to_int(),
                data.matching_type().to_int(),
                data.data().to_vec(),
            ));
        }
        Ok(found)
    }

    /// The name servers that are asked.
    #[must_use]
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// An answer with NOERROR or NXDOMAIN from one of the servers.
    async fn ask(&self, name: &str, kind: Rtype) -> io::Result<Message<Vec<u8>>> {
        let name = Asked::from_str(&format!("{}.", name.trim_end_matches('.')))
            .map_err(|_| io::Error::other(format!("{name} is no domain name")))?;
        let mut last = io::Error::other("no name server");
        for _ in 0..ROUNDS {
            for server in &self.servers {
                let asked = within(ANSWER, ask_one(*server, &name, kind)).await;
                match asked.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(answer) => match answer.header().rcode() {
                        Rcode::NOERROR | Rcode::NXDOMAIN => return Ok(answer),
                        code => last = io::Error::other(format!("the name server says {code}")),
                    },
                    Err(error) => last = error,
                }
            }
        }
        Err(io::Error::new(last.kind(), format!("{kind} of {name}: {last}")))
    }
}

fn unreadable(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an unreadable answer: {error}"))
}

/// The query, and its number.
fn query(name: &Asked, kind: Rtype) -> io::Result<(u16, Vec<u8>)> {
    let mut number = [0; 2];
    getrandom::fill(&mut number).map_err(io::Error::other)?;
    let number = u16::from_be_bytes(number);
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(number);
    message.header_mut().set_rd(true);
    let mut message = message.question();
    message.push((name, kind)).map_err(unreadable)?;
    Ok((number, message.finish()))
}

/// The answer in these octets, if it is one to this question.
fn answer(octets: &[u8], number: u16, name: &Asked, kind: Rtype) -> Option<Message<Vec<u8>>> {
    let message = Message::from_octets(octets.to_vec()).ok()?;
    let question = message.sole_question().ok()?;
    let is_ours = message.header().id() == number
        && message.header().qr()
        && question.qtype() == kind
        && question.qname().name_eq(name);
    is_ours.then_some(message)
}

async fn ask_one(server: SocketAddr, name: &Asked, kind: Rtype) -> io::Result<Message<Vec<u8>>> {
    let (number, octets) = query(name, kind)?;
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&octets).await?;
    let mut place = [0; 4096];
    for _ in 0..STRAYS_MAX {
        let count = socket.recv(&mut place).await?;
        match answer(&place[..count], number, name, kind) {
            Some(message) if message.header().tc() => {
                return ask_by_tcp(server, &octets, number, name, kind).await;
            }
            Some(message) => return Ok(message),
            None => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "no answer to the question"))
}

async fn ask_by_tcp(
    server: SocketAddr,
    query: &[u8],
    number: u16,
    name: &Asked,
    kind: Rtype,
) -> io::Result<Message<Vec<u8>>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut octets = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut octets).await?;
    answer(&octets, number, name, kind)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no answer to the question"))
}

/// The `nameserver` lines.
fn servers_in(configuration: &str) -> Vec<SocketAddr> {
    configuration
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

#[cfg(test)]
mod tests;
