//! A connection: a stream of bytes and what is known of it; and the same connection after the roles reversed.
//!
//! Made by the listener and the dialler, used up by the turn. It never interprets a byte.

use std::net::SocketAddr;

use futures::io::{AsyncRead, AsyncWrite};

use crate::mail::{Lease, TlsFacts};
use crate::smtp::session::Reversal;

/// A stream in both directions: TCP, TLS over it, or a pipe in memory.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One connection.
pub struct Wire {
    /// The bytes.
    pub stream: Box<dyn Stream>,
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// Facts of the TLS layer, if there is one.
    pub tls: Option<TlsFacts>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("peer", &self.peer).field("tls", &self.tls).finish()
    }
}

/// A wire after the turn: we are the client now, with the sole right to drain some queues (RFC 2645 §5.3). No
/// command of the customer can be read from it any more, and it can be drained once.
#[derive(Debug)]
#[must_use = "a reversed wire that is dropped leaves its lease to the clock"]
pub struct Reversed {
    wire: Wire,
    lease: Lease,
}

impl Wire {
    /// The roles reverse: the wire is used up, and with it every way to read another command from it.
    pub fn reverse(self, reversal: Reversal) -> Reversed {
        let (lease, _) = reversal.into_parts();
        Reversed { wire: self, lease }
    }
}

impl Reversed {
    /// For the drain.
    pub(in crate::net) fn into_parts(self) -> (Wire, Lease) {
        (self.wire, self.lease)
    }
}
