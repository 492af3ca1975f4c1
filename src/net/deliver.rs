//! The carrier: moves octets between a wire and an errand, in both directions at once.
//!
//! Called by the server after the turn, and by the ETRN path and the relay with a dialled wire. One task does all:
//! reading never waits for writing, so two full windows cannot block each other (RFC 2920 §3.1). It interprets
//! nothing and decides nothing; what is said, and how long anything may take, is the errand's business.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, poll_fn, select};
use futures::io::AsyncWriteExt;

use super::stop::Stop;
use super::wire::{Reversed, Stream, Wire};
use crate::mail::Lease;
use crate::provider::board::LastDrain;
use crate::provider::drain::Way;
use crate::provider::{Drain, Errand, Office};

/// Octets read at once, onto the stack: thousands of held connections would each have to keep such a place.
const READ_BYTES: usize = 4 << 10;
/// Rounds of work before other tasks get their turn.
const ROUNDS_MAX: usize = 32;
/// Octets written before other tasks get their turn: among many drains none gets far ahead, whatever the size of the
/// socket's buffer.
const TURN_BYTES_MAX: usize = 64 << 10;
/// The same for a large message, which loses time with each new turn.
const LARGE_TURN_BYTES_MAX: usize = 256 << 10;
/// How long closing in order may take; nothing depends on it any more.
const CLOSE_SECONDS_MAX: Duration = Duration::from_secs(5);

/// Drains a reversed connection (RFC 2645 §5.3), to its end, and hands the lease back.
pub async fn deliver(reversed: Reversed, office: &Arc<Office>, stop: &Stop) -> LastDrain {
    let (wire, lease) = reversed.into_parts();
    let drain = Box::pin(Drain::begin(office.clone(), lease, Way::Atrn, wire.tls.is_some())).await;
    carried(wire, drain, office, stop).await
}

/// Drains a connection that we opened and that has not been greeted yet, to its end, and hands the lease back.
pub async fn deliver_dialed(
    wire: Wire,
    lease: Lease,
    office: &Arc<Office>,
    stop: &Stop,
) -> LastDrain {
    let drain = Box::pin(Drain::begin(office.clone(), lease, Way::Etrn, wire.tls.is_some())).await;
    carried(wire, drain, office, stop).await
}

/// Drains a connection that we opened and that was greeted (RFC 1985 §5.1), to its end, and hands the lease back.
pub async fn deliver_opened(
    wire: Wire,
    lease: Lease,
    way: Way,
    peer_name: Option<String>,
    office: &Arc<Office>,
    stop: &Stop,
) -> LastDrain {
    let is_under_tls = wire.tls.is_some();
    let drain = Drain::begin_opened(office.clone(), lease, way, is_under_tls, peer_name);
    let drain = Box::pin(drain).await;
    carried(wire, drain, office, stop).await
}

async fn carried(
    mut wire: Wire,
    mut drain: Box<Drain>,
    office: &Arc<Office>,
    stop: &Stop,
) -> LastDrain {
    carry(&mut *wire.stream, &mut *drain, stop).await;
    let patience = office.world.wait(CLOSE_SECONDS_MAX);
    // The outcome is settled first: a peer that does not close must not hold the lease.
    let last = Box::pin(drain.finish()).await;
    office.watch.drained(&last, office.world.now());
    select(wire.stream.close(), patience).await;
    last
}

/// Carries an errand over a wire until it is over. The wire is left open.
pub async fn carry(wire: &mut dyn Stream, errand: &mut dyn Errand, stop: &Stop) {
    let mut carrier = Carrier {
        wire,
        errand,
        stop: Some(stop.given().boxed()),
        reads: true,
        writes: true,
        flushes: false,
        is_portion_over: false,
        written: 0,
    };
    poll_fn(|context| carrier.poll(context)).await;
}

struct Carrier<'a> {
    wire: &'a mut dyn Stream,
    errand: &'a mut dyn Errand,
    stop: Option<BoxFuture<'a, ()>>,
    reads: bool,
    writes: bool,
    /// Something was written that was not flushed.
    flushes: bool,
    /// The next portion must wait for that flush.
    is_portion_over: bool,
    /// Octets written in this turn.
    written: usize,
}

impl Carrier<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(stop) = self.stop.as_mut()
            && stop.poll_unpin(context).is_ready()
        {
            self.stop = None;
            self.errand.stop();
        }
        self.written = 0;
        for _ in 0..ROUNDS_MAX {
            let mut moved = self.read(context);
            moved |= self.errand.work(context);
            moved |= self.write(context);
            if self.errand.is_over() {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
            let is_large = self.errand.outbox().has_chunks();
            let most = if is_large { LARGE_TURN_BYTES_MAX } else { TURN_BYTES_MAX };
            if self.written >= most {
                break;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn read(&mut self, context: &mut Context<'_>) -> bool {
        if !self.reads {
            return false;
        }
        let mut place = [0; READ_BYTES];
        match Pin::new(&mut *self.wire).poll_read(context, &mut place) {
            Poll::Pending => false,
            Poll::Ready(Ok(octets)) if octets > 0 => {
                self.errand.received(&place[..octets]);
                true
            }
            // The end of the stream, and an error is one, too. What had come before was read before.
            Poll::Ready(_) => {
                self.reads = false;
                self.errand.ended();
                true
            }
        }
    }

    fn write(&mut self, context: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.writes && !self.is_portion_over {
            let Some(portion) = self.errand.outbox().first() else { break };
            match Pin::new(&mut *self.wire).poll_write(context, portion) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(octets)) if octets > 0 => {
                    self.is_portion_over = self.errand.outbox().advance(octets);
                    self.errand.left(octets);
                    self.written += octets;
                    self.flushes = true;
                    moved = true;
                }
                // Replies may still be there to be read; the end will be seen on that side.
                Poll::Ready(_) => self.writes = false,
            }
        }
        if !self.writes || !self.flushes {
            return moved;
        }
        match Pin::new(&mut *self.wire).poll_flush(context) {
            Poll::Pending => return moved,
            Poll::Ready(Ok(())) => {
                self.flushes = false;
                moved |= std::mem::take(&mut self.is_portion_over);
            }
            Poll::Ready(Err(_)) => self.writes = false,
        }
        moved
    }
}
