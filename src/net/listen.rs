//! The listeners: bound sockets, and a task for every connection they accept.
//!
//! Started by the program. It counts sessions against the limits, survives a shortage of descriptors without
//! spinning, and hands reversed wires on to the drain.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_std::net::{TcpListener, TcpStream};
use futures::channel::mpsc;
use futures::future::{Either, select};
use futures::io::AsyncWriteExt;

use super::deliver::deliver;
use super::dial::keep_alive;
use super::serve::{Host, converse, secure};
use super::wire::Wire;
use crate::provider::board::Listener;
use crate::smtp::{Door, Refusal};

/// Waiting connections that the system keeps for us.
const BACKLOG: i32 = 1024;
/// Pause after a failed accept, which otherwise would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name in `[listen]`.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// What is behind it.
    pub door: Door,
    /// Whether TLS comes first.
    pub implicit_tls: bool,
}

/// A bound listener, not yet accepting.
#[derive(Debug)]
pub struct Bound {
    place: Place,
    listener: TcpListener,
}

/// Binds an address; `[::]` takes IPv4 as well.
///
/// # Errors
/// The system's, with the address in it.
pub fn bind_address(address: SocketAddr) -> io::Result<TcpListener> {
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    let open = || {
        let domain = socket2::Domain::for_address(address);
        let socket =
            socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(std::net::TcpListener::from(socket))
    };
    open().map(TcpListener::from).map_err(explain)
}

impl Bound {
    /// Binds.
    ///
    /// # Errors
    /// As [`bind_address`].
    pub fn bind(place: Place) -> io::Result<Self> {
        let listener = bind_address(place.address)?;
        Ok(Self { place, listener })
    }

    /// Where it really is bound: the port, if zero was asked for.
    ///
    /// # Errors
    /// The system's.
    pub fn describe(&self) -> io::Result<Listener> {
        let address = self.listener.local_addr()?;
        Ok(Listener { name: self.place.name.to_owned(), address })
    }

    /// Accepts until the order to stop. Every task holds a clone of `alive`: when the last is gone, all
    /// sessions have ended.
    pub async fn accept(self, host: Arc<Host>, alive: mpsc::Sender<()>) {
        loop {
            let stop = Box::pin(host.stop.given());
            let accepted = match select(Box::pin(self.listener.accept()), stop).await {
                Either::Left((accepted, _)) => accepted,
                Either::Right(_) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (host, alive) = (host.clone(), alive.clone());
                    let (door, implicit_tls) = (self.place.door, self.place.implicit_tls);
                    async_std::task::spawn(async move {
                        welcome(stream, peer, door, implicit_tls, &host).await;
                        drop(alive);
                    });
                }
                Err(error) => {
                    let (name, error) = (self.place.name, error.to_string());
                    log::warn!(target: "restante", listener = name, error = error; "accept-failed");
                    host.office.world.wait(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One connection: a place within the limits, TLS if it comes first, the talk, and the drain if the roles reverse.
async fn welcome(
    mut stream: TcpStream,
    peer: SocketAddr,
    door: Door,
    implicit_tls: bool,
    host: &Host,
) {
    let policy = host.office.policy();
    let (all, each) = (policy.sessions_max, policy.sessions_per_address);
    let Some(place) = host.office.board.enter(door, peer.ip(), all, each) else {
        if !implicit_tls {
            let full = Refusal::TooManySessions.reply().to_bytes();
            // One try, on a fresh socket whose buffer is empty; the peer is not waited for.
            let _ = select(Box::pin(stream.write_all(&full)), host.office.world.wait(ACCEPT_PAUSE))
                .await;
        }
        return;
    };
    keep_alive(&stream);
    let wire = Wire { stream: Box::new(stream), peer, tls: None };
    let talk = async {
        let wire = if implicit_tls { secure(wire, host).await? } else { wire };
        converse(wire, door, host).await
    };
    match talk.await {
        Ok(None) => {}
        Ok(Some(reversed)) => {
            drop(place);
            deliver(reversed, &host.office, &host.stop).await;
        }
        Err(error) => log::debug!("{peer}: the connection ended: {error}"),
    }
}
