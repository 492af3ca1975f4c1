//! The dialler: a TCP connection to a named host.
//!
//! Called by the ETRN path and by `restante fetch`. It tries every address of the name in turn and never falls
//! back to another port or host.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use async_std::net::TcpStream;

use super::socket::Socket;
use super::wire::Wire;

/// How long one address may take to answer.
const CONNECT_SECONDS_MAX: u64 = 30;

/// Connects to `host` (a name, or an address without brackets) at `port`.
///
/// # Errors
/// The last address's error, or that the name has no address.
pub async fn connect(host: &str, port: u16) -> io::Result<Wire> {
    let addresses = addresses(host, port).await?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in addresses {
        match connect_to(address).await {
            Ok(wire) => return Ok(wire),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The addresses of `host` by the system's resolver.
///
/// # Errors
/// The resolver's.
pub async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let target = (host.to_owned(), port);
    blocking::unblock(move || target.to_socket_addrs().map(Iterator::collect)).await
}

/// Connects to one address.
///
/// # Errors
/// The system's, or that nothing answered in time.
pub async fn connect_to(address: SocketAddr) -> io::Result<Wire> {
    let attempt = TcpStream::connect(address);
    let patience = Duration::from_secs(CONNECT_SECONDS_MAX);
    match async_std::future::timeout(patience, attempt).await {
        Ok(outcome) => outcome.map(|stream| tuned(stream, address)),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    }
}

fn tuned(stream: TcpStream, peer: SocketAddr) -> Wire {
    keep_alive(&stream);
    Wire { stream: Box::new(Socket(stream)), peer, tls: None }
}

/// Keep-alive after 30 s of silence and an end to unacknowledged data after 90 s, so that a dead NAT entry or
/// host is noticed (RFC 1122 §4.2.3.6, RFC 5482), and no delay for small writes. A system that refuses an option
/// goes without.
pub(super) fn keep_alive(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let pace = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    let refused = [
        socket.set_tcp_keepalive(&pace).err(),
        socket.set_tcp_user_timeout(Some(Duration::from_secs(90))).err(),
        stream.set_nodelay(true).err(),
    ];
    for error in refused.into_iter().flatten() {
        log::debug!("a socket option was refused: {error}");
    }
}
