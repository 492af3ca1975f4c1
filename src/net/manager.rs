//! The service manager: sockets that it bound for us, and word that we are ready.
//!
//! Called by `serve` at start and at the end. With sockets from systemd the program needs no capability at all; without a
//! service manager nothing here does anything.

use std::io;
use std::net::{SocketAddr, TcpListener};

/// Sockets that were handed over (`sd_listen_fds(3)`), by the address they are bound to.
#[derive(Debug, Default)]
pub struct Adopted(Vec<(SocketAddr, TcpListener)>);

impl Adopted {
    /// Takes them over. To be called once, and before there are other threads: the environment is changed, so
    /// that nobody takes them twice.
    ///
    /// # Errors
    /// A descriptor that is no listening TCP socket.
    pub fn from_manager() -> io::Result<Self> {
        let mut handed = listenfd::ListenFd::from_env();
        let mut all = Vec::new();
        for index in 0..handed.len() {
            if let Some(listener) = handed.take_tcp_listener(index)? {
                listener.set_nonblocking(true)?;
                all.push((listener.local_addr()?, listener));
            }
        }
        Ok(Self(all))
    }

    /// The socket for a configured address: the same port, and the same IP address or both for all addresses.
    pub fn take(&mut self, wanted: SocketAddr) -> Option<TcpListener> {
        let fits = |have: &SocketAddr| {
            let both_all = have.ip().is_unspecified() && wanted.ip().is_unspecified();
            have.port() == wanted.port() && (both_all || have.ip() == wanted.ip())
        };
        let place = self.0.iter().position(|(have, _)| fits(have))?;
        Some(self.0.swap_remove(place).1)
    }

    /// Sockets that no listener of the configuration asked for.
    pub fn left(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.iter().map(|(address, _)| *address)
    }
}

/// Says that everything is open and served.
pub fn ready() {
    tell(&[sd_notify::NotifyState::Ready]);
}

/// Says that we stop.
pub fn stopping() {
    tell(&[sd_notify::NotifyState::Stopping]);
}

fn tell(state: &[sd_notify::NotifyState<'_>]) {
    // Without a manager this is no error.
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("the service manager cannot be told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_goes_to_the_address_it_is_bound_to() {
        let bind = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
            (listener.local_addr().expect("an address"), listener)
        };
        let (one, two) = (bind(), bind());
        let (first, second) = (one.0, two.0);
        let mut adopted = Adopted(vec![one, two]);
        let wild = SocketAddr::from(([0, 0, 0, 0], second.port()));
        assert!(adopted.take(wild).is_none());
        assert_eq!(adopted.take(second).expect("ours").local_addr().expect("bound"), second);
        assert!(adopted.take(second).is_none());
        assert_eq!(adopted.left().collect::<Vec<_>>(), [first]);
    }
}
