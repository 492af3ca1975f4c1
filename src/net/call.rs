//! Calls: connections that we open, for the ETRN path and the way out.
//!
//! Given to both by the program. It finds addresses, dials, lets the opening speak, brings TLS up, and carries the
//! drain; a lease that no drain was made for is handed back. Whom to call, when, and with which TLS is decided
//! above.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::deliver::deliver_opened;
use super::dial;
use super::dns::Resolver;
use super::patience::within;
use super::stop::Stop;
use super::tls::{ClientTls, Trust};
use super::wire::Wire;
use crate::mail::{Domain, EtrnTls, Lease, TlsFacts};
use crate::provider::board::LastDrain;
use crate::provider::call::{Call, CallError, Caller, HostPort, Identity, Place};
use crate::provider::route::{self, Exchangers};
use crate::provider::{Office, World};
use crate::smtp::opening::{Opening, REPLY_SECONDS_MAX, StartTls, Step, Wish};
use crate::smtp::sasl::client::Keys;

/// The port of mail exchangers (RFC 5321 §2.3.5).
const SMTP_PORT: u16 = 25;
/// Addresses tried in one call.
const ADDRESSES_MAX: usize = 8;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// See the module's head.
pub struct Phone {
    office: Arc<Office>,
    resolver: Arc<Resolver>,
    reach: Reach,
    stop: Stop,
}

/// How mail exchangers are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The port; 25 but in tests.
    pub port: u16,
    /// Whether they may be on this machine; only in tests.
    pub local: bool,
}

impl Default for Reach {
    fn default() -> Self {
        Self { port: SMTP_PORT, local: false }
    }
}

/// A host to try, with its addresses.
struct Target {
    name: String,
    addresses: Vec<SocketAddr>,
}

/// A wire on which the sender may begin, and the server's name.
struct Opened {
    wire: Wire,
    peer_name: Option<String>,
}

impl Phone {
    /// A phone for this office.
    #[must_use]
    pub fn new(office: Arc<Office>, resolver: Resolver, reach: Reach, stop: Stop) -> Self {
        Self { office, resolver: Arc::new(resolver), reach, stop }
    }
}

impl Caller for Phone {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<LastDrain, CallError>> {
        let (office, resolver) = (self.office.clone(), self.resolver.clone());
        let (stop, reach) = (self.stop.clone(), self.reach);
        async move {
            let Call { lease, way, place, tls, identity, login } = call;
            let hostname = office.policy().hostname.clone();
            let order = Order { hostname, world: &*office.world, tls, identity, login };
            // Nothing is on its way yet, so the order to stop is obeyed at once.
            let connecting = Box::pin(connect(&order, &resolver, reach, &place));
            let outcome = match select(connecting, Box::pin(stop.given())).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right(_) => Err(CallError::Later("the provider is being stopped".into())),
            };
            let opened = match outcome {
                Ok(opened) => opened,
                Err(error) => {
                    release(&office, lease).await;
                    return Err(error);
                }
            };
            let Opened { wire, peer_name } = opened;
            Ok(deliver_opened(wire, lease, way, peer_name, &office, &stop).await)
        }
        .boxed()
    }
}

/// A look at a host as a call would find it: TLS and login, then QUIT. What TLS came to, if it came up.
///
/// # Errors
/// Why it could not be used, in one line.
pub async fn try_out(
    hostname: &Domain,
    world: &dyn World,
    host: &HostPort,
    tls: EtrnTls,
    identity: Identity,
    login: Option<(String, crate::mail::Secret)>,
) -> Result<Option<TlsFacts>, String> {
    let order = Order { hostname: hostname.clone(), world, tls, identity, login };
    let said = |error| match error {
        CallError::Later(why) | CallError::Never(why) => why,
    };
    let addresses = addresses_of_host(&host.host, host.port).await.map_err(said)?;
    let mut last = "no address".to_owned();
    for address in addresses.into_iter().take(ADDRESSES_MAX) {
        match open(&order, &host.host, address).await {
            Ok(Opened { mut wire, .. }) => {
                // Courtesy: nothing depends on it.
                let _ = say(&mut wire, &mut b"QUIT\r\n".to_vec()).await;
                return Ok(wire.tls);
            }
            Err(error) => last = format!("[{}]: {error}", address.ip()),
        }
    }
    Err(last)
}

async fn release(office: &Office, lease: Lease) {
    if let Err(error) = office.store.release(lease).await {
        log::warn!(target: crate::provider::ledger::TARGET, error = error.to_string(); "store-trouble");
    }
}

/// What holds for every host of a call.
struct Order<'a> {
    hostname: Domain,
    world: &'a dyn World,
    tls: EtrnTls,
    identity: Identity,
    login: Option<(String, crate::mail::Secret)>,
}

/// The first host that lets us in.
async fn connect(
    order: &Order<'_>,
    resolver: &Resolver,
    reach: Reach,
    place: &Place,
) -> Result<Opened, CallError> {
    let mut last = "no host to call".to_owned();
    let mut left = ADDRESSES_MAX;
    for target in targets(resolver, reach, place, order).await? {
        for address in target.addresses.into_iter().take(left) {
            left -= 1;
            match open(order, &target.name, address).await {
                Ok(opened) => return Ok(opened),
                Err(error) => last = format!("{} [{}]: {error}", target.name, address.ip()),
            }
        }
    }
    Err(CallError::Later(last))
}

/// The hosts to try, best first.
async fn targets(
    resolver: &Resolver,
    reach: Reach,
    place: &Place,
    order: &Order<'_>,
) -> Result<Vec<Target>, CallError> {
    match place {
        Place::Host(HostPort { host, port }) => {
            let addresses = addresses_of_host(host, *port).await?;
            Ok(vec![Target { name: host.clone(), addresses }])
        }
        Place::Exchangers(domain) => {
            let mut chance = [0u8; 16];
            order.world.chance(&mut chance);
            let answer = resolver.exchangers(domain.as_str()).await;
            let found = answer.map_err(|error| CallError::Later(error.to_string()))?;
            let names =
                match route::choose(found, domain, &order.hostname, u128::from_be_bytes(chance)) {
                    Exchangers::Hosts(names) => names,
                    Exchangers::Nobody(why) => return Err(CallError::Never(why)),
                };
            let mut targets = Vec::new();
            for name in names.into_iter().take(ADDRESSES_MAX) {
                // One exchanger without an address does not make the others useless (RFC 5321 §5.1).
                let addresses = resolver.addresses(&name).await.unwrap_or_default();
                let addresses: Vec<SocketAddr> = addresses
                    .into_iter()
                    .filter(|ip| reach.local || route::is_elsewhere(*ip))
                    .map(|ip| SocketAddr::new(ip, reach.port))
                    .collect();
                if !addresses.is_empty() {
                    targets.push(Target { name, addresses });
                }
            }
            if targets.is_empty() {
                return Err(CallError::Later(format!(
                    "no mail exchanger of {domain} has an address"
                )));
            }
            Ok(targets)
        }
    }
}

/// The addresses of a host that an operator named. A name that suddenly points into our own machine or link is not
/// followed, unless the name says so itself.
async fn addresses_of_host(host: &str, port: u16) -> Result<Vec<SocketAddr>, CallError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = dial::addresses(host, port).await;
    usable(host, found.map_err(|error| CallError::Later(format!("{host}: {error}")))?)
}

/// Those of a name's addresses that may be called.
fn usable(host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, CallError> {
    let is_local = host == "localhost" || host.ends_with(".localhost");
    let usable: Vec<SocketAddr> =
        found.into_iter().filter(|a| is_local || route::is_elsewhere(a.ip())).collect();
    if usable.is_empty() {
        return Err(CallError::Later(format!(
            "{host} has no address that may be called; local ones must be written as numbers"
        )));
    }
    Ok(usable)
}

/// One address: a wire that the sender may use. Opportunistic TLS that fails is tried without (RFC 7435 §3).
async fn open(order: &Order<'_>, name: &str, address: SocketAddr) -> Result<Opened, String> {
    let starttls = match order.tls {
        EtrnTls::None => StartTls::Never,
        EtrnTls::Opportunistic => StartTls::IfOffered,
        EtrnTls::Required | EtrnTls::Verify => StartTls::Must,
    };
    match opened(order, name, address, starttls).await {
        Err(Failure::Handshake(_)) if starttls == StartTls::IfOffered && order.login.is_none() => {
            opened(order, name, address, StartTls::Never).await
        }
        outcome => outcome,
    }
    .map_err(|failure| match failure {
        Failure::Handshake(why) => format!("TLS: {why}"),
        Failure::Other(why) => why,
    })
}

enum Failure {
    Handshake(String),
    Other(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

async fn opened(
    order: &Order<'_>,
    name: &str,
    address: SocketAddr,
    starttls: StartTls,
) -> Result<Opened, Failure> {
    let mut wire = dial::connect_to(address).await?;
    let mut nonce = [0; 24];
    order.world.chance(&mut nonce);
    let keys = order.login.as_ref().map(|(login, secret)| Keys {
        login: login.clone(),
        secret: Some(secret.clone()),
        has_certificate: false,
    });
    let hostname = order.hostname.clone();
    let mut opening = Opening::new(Wish { hostname, starttls, tls: None, keys, nonce });
    let mut place = vec![0; 2 << 10];
    let mut out = Vec::new();
    loop {
        let limit = REPLY_SECONDS_MAX.into();
        match replied(&mut *wire.stream, &mut place, opening, &mut out, limit).await? {
            Step::Stay(same) => opening = same,
            Step::Upgrade(upgrade) => {
                wire = secured(order, name, wire).await.map_err(Failure::Handshake)?;
                let facts = wire.tls.clone().unwrap_or_default();
                check_key(&order.identity, &facts).map_err(Failure::Handshake)?;
                opening = upgrade.secured(facts, &mut out);
            }
            Step::Open(peer_name) => return Ok(Opened { wire, peer_name }),
            Step::Over(why) => {
                // The connection is given up; whether the goodbye arrives does not matter.
                let _ = say(&mut wire, &mut out).await;
                return Err(Failure::Other(why));
            }
        }
        say(&mut wire, &mut out).await?;
    }
}

/// Reads until a reply is whole. The limit is for all of it: a host that lets it drip gains nothing. `out` is empty
/// before, and holds the next command behind a reply that is answered with one.
async fn replied(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    place: &mut [u8],
    mut opening: Opening,
    out: &mut Vec<u8>,
    limit: Duration,
) -> io::Result<Step> {
    let reading = async {
        loop {
            let octets = stream.read(place).await?;
            if octets == 0 {
                let what = "the server hung up";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
            match opening.advance(&place[..octets], out) {
                Step::Stay(same) if out.is_empty() => opening = same,
                step => return Ok(step),
            }
        }
    };
    let silent =
        || Err(io::Error::new(io::ErrorKind::TimedOut, "the server did not reply in time"));
    within(limit, reading).await.unwrap_or_else(silent)
}

async fn say(wire: &mut Wire, out: &mut Vec<u8>) -> io::Result<()> {
    let work = async {
        wire.stream.write_all(out).await?;
        wire.stream.flush().await
    };
    let written = within(REPLY_SECONDS_MAX.into(), work).await;
    out.clear();
    written.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

async fn secured(order: &Order<'_>, name: &str, wire: Wire) -> Result<Wire, String> {
    let trust = match order.identity {
        Identity::Name => Trust::System,
        // The key is compared when it is known.
        Identity::Any | Identity::Keys(_) => Trust::Anybody,
    };
    let tls = ClientTls::new(&trust, None)?;
    let shaken = within(HANDSHAKE, tls.connect(name, wire)).await;
    shaken.ok_or("the handshake took too long")?.map_err(|error| error.to_string())
}

fn check_key(identity: &Identity, facts: &TlsFacts) -> Result<(), String> {
    let Identity::Keys(keys) = identity else { return Ok(()) };
    let is_known = facts.peer_key.as_ref().is_some_and(|key| keys.contains(key));
    if is_known { Ok(()) } else { Err("the server's key is none of the pinned ones".into()) }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;

    // covers: T-08
    #[test]
    fn mail_exchangers_are_called_at_port_25_and_nowhere_else() {
        assert_eq!(Reach::default(), Reach { port: 25, local: false });
    }

    /// A reply without an end, in pieces that each come in good time.
    struct Dripping(Option<BoxFuture<'static, ()>>);

    impl AsyncRead for Dripping {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            place: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let soon = Duration::from_millis(1);
            let nap = self.0.get_or_insert_with(|| super::super::patience::pause(soon).boxed());
            std::task::ready!(nap.poll_unpin(context));
            self.0 = None;
            place[0] = b'2';
            Poll::Ready(Ok(1))
        }
    }

    #[test]
    fn a_reply_that_drips_is_not_waited_for_longer_than_a_silent_host() {
        let wish = Wish {
            hostname: Domain::parse("mx.provider.example").expect("valid"),
            starttls: StartTls::Never,
            tls: None,
            keys: None,
            nonce: [0; 24],
        };
        let (mut dripping, mut out) = (Dripping(None), Vec::new());
        let (mut place, limit) = ([0; 9], Duration::from_millis(50));
        let reply = replied(&mut dripping, &mut place, Opening::new(wish), &mut out, limit);
        let error = futures::executor::block_on(reply).expect_err("no reply");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn d10_a_name_that_points_into_our_machine_is_not_followed() {
        let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let far = [address("192.0.2.7:25"), address("[2001:db8::7]:25")];
        for near in ["127.0.0.1:25", "169.254.169.254:25", "0.0.0.0:25", "[::1]:25", "[fe80::1]:25"]
        {
            let near = address(near);
            assert!(usable("mail.customer.example", vec![near]).is_err(), "{near}");
            let some = usable("mail.customer.example", vec![near, far[0], far[1]]);
            assert_eq!(some.expect("some"), far, "{near}");
        }
        // Unless the operator says so: by the name, or by the number.
        let own = vec![address("127.0.0.1:25")];
        assert_eq!(usable("localhost", own.clone()).expect("local"), own);
        assert!(usable("localhost.customer.example", own.clone()).is_err());
        let number = futures::executor::block_on(addresses_of_host("127.0.0.1", 25));
        assert_eq!(number.expect("a number"), own);
    }
}
