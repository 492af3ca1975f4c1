//! The listeners: bound sockets, and a task for every connection they accept.
//!
//! Started by the program. It counts sessions against the limits, keeps strangers from the ODMR door where the operator
//! lists networks, believes load balancers of ours, survives a shortage of descriptors without spinning, and hands
//! reversed wires on to the drain.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_std::net::{TcpListener, TcpStream};
use futures::channel::{mpsc, oneshot};
use futures::future::{Either, select};
use futures::io::AsyncWriteExt;

use super::deliver::deliver;
use super::descriptors::sessions_that_fit;
use super::dial::keep_alive;
use super::proxy;
use super::serve::{Host, converse, in_time, secure};
use super::socket::Socket;
use super::wire::Wire;
use crate::provider::Policy;
use crate::provider::board::Listener;
use crate::smtp::{Door, Refusal};

/// Waiting connections that the system keeps for us.
const BACKLOG: i32 = 1024;
/// Pause after a failed accept, which otherwise would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a load balancer may take to say who is behind it.
const PROXY_SECONDS_MAX: u64 = 10;

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

    /// Takes a socket that the service manager bound.
    #[must_use]
    pub fn over(place: Place, listener: std::net::TcpListener) -> Self {
        Self { place, listener: listener.into() }
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
        let fit = sessions_that_fit();
        let mut is_failing = false;
        let mut unseated = VecDeque::new();
        loop {
            let stop = Box::pin(host.stop.given());
            let accepted = match select(Box::pin(self.listener.accept()), stop).await {
                Either::Left((accepted, _)) => accepted,
                Either::Right(_) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    is_failing = false;
                    let (seated, told) = oneshot::channel();
                    let caller = Caller {
                        stream,
                        peer,
                        place: self.place.clone(),
                        fit,
                        seated: Some(seated),
                    };
                    let (host, alive) = (host.clone(), alive.clone());
                    async_std::task::spawn(async move {
                        let peer = caller.peer;
                        if let Err(error) = caller.serve(&host).await {
                            log::debug!("{peer}: the connection ended: {error}");
                        }
                        drop(alive);
                    });
                    // A flood that is turned away must not take the descriptors that are kept back.
                    unseated.push_back(told);
                    if unseated.len() >= UNSEATED_MAX
                        && let Some(oldest) = unseated.pop_front()
                    {
                        // Told or dropped: it has its place, or it is gone.
                        let _ = oldest.await;
                    }
                }
                Err(error) => {
                    // Said once, not with every try while it lasts.
                    if !std::mem::replace(&mut is_failing, true) {
                        let (name, error) = (self.place.name, error.to_string());
                        log::warn!(target: "restante", listener = name, error = error; "accept-failed");
                    }
                    host.office.world.wait(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Connections of a listener that were accepted and have no place yet, at most: fewer in all listeners than descriptors are kept back
/// ([`super::descriptors`]).
const UNSEATED_MAX: usize = 3;

/// A connection that was accepted and is not looked at yet.
struct Caller {
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    /// How many sessions the process has descriptors for.
    fit: usize,
    /// Dropped when it has a place, or was sent away.
    seated: Option<oneshot::Sender<()>>,
}

impl Caller {
    /// One connection: who it is, a place within the limits, TLS if it comes first, the talk, and the drain if the
    /// roles reverse.
    async fn serve(mut self, host: &Host) -> io::Result<()> {
        let policy = host.office.policy();
        // Each of these has memory of its own, which goes when it is over: what waits for hours is the talk or the drain, and
        // never has the room of both.
        Box::pin(self.unmask(&policy, host)).await?;
        let Place { door, implicit_tls, .. } = self.place;
        if !policy.admits(door, self.peer.ip()) {
            Box::pin(self.refuse(Refusal::NotAdmitted, host)).await;
            return Ok(());
        }
        let (all, each) = (policy.sessions_max.min(self.fit), policy.sessions_per_address);
        let Some(seat) = host.office.board.enter(door, self.peer.ip(), all, each) else {
            Box::pin(self.refuse(Refusal::TooManySessions, host)).await;
            return Ok(());
        };
        self.seated = None;
        keep_alive(&self.stream);
        let wire = Wire { stream: Box::new(Socket(self.stream)), peer: self.peer, tls: None };
        let wire = if implicit_tls { Box::pin(secure(wire, host)).await? } else { wire };
        if let Some(reversed) = Box::pin(converse(wire, door, host)).await? {
            drop(seat);
            Box::pin(deliver(reversed, &host.office, &host.stop)).await;
        }
        Ok(())
    }

    /// Behind a load balancer of ours the client is who the balancer says it is.
    async fn unmask(&mut self, policy: &Policy, host: &Host) -> io::Result<()> {
        if policy.is_balancer(self.peer.ip()) {
            // It is one of ours, and what it says may take a while.
            self.seated = None;
            let said = proxy::client(&mut self.stream);
            if let Some(client) = in_time(host, PROXY_SECONDS_MAX, said).await? {
                self.peer = client;
            }
        }
        Ok(())
    }

    /// Says no, unless TLS would have to come first, and closes.
    async fn refuse(&mut self, refusal: Refusal, host: &Host) {
        if self.place.implicit_tls {
            return;
        }
        let words = refusal.reply().to_bytes();
        // One try, on a fresh socket whose buffer is empty; the peer is not waited for.
        let work = Box::pin(self.stream.write_all(&words));
        let _ = select(work, host.office.world.wait(ACCEPT_PAUSE)).await;
    }
}
