//! Moves bytes through the bridge, both ways at once, with bounded memory.
//!
//! Called by the call after the turn. Each direction has one buffer; while it is full its source is not read, so
//! a slow side slows the other one by TCP's own means. When one side closes, what was taken from it is still
//! delivered to the other. Content that was cut is never ended for the target: it sees the connection close
//! before the final dot and keeps nothing.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::io::{AsyncRead as _, AsyncWrite as _};

use super::call::Event;
use crate::net::patience::pause;
use crate::net::stop::Stop;
use crate::net::wire::Stream;
use crate::smtp::bridge::{Bridge, BridgeFault, Output};

/// Octets that one direction holds at most, beside what TLS and the kernel hold.
const BUFFER_BYTES: usize = 64 * 1024;
/// Without a byte in either direction for so long the connections are given up. It is longer than the ten minutes
/// that a server may take for the final dot (RFC 5321 §4.5.3.2.6).
const IDLE_SECONDS_MAX: u64 = 15 * 60;
/// Rounds of moving bytes before other work in the thread gets its turn.
const ROUNDS_MAX: u32 = 64;
/// How long the provider may take to close after us.
const FAREWELL_SECONDS_MAX: u64 = 5;

/// How the pump stopped.
#[derive(Debug)]
pub(super) enum PumpEnd {
    /// QUIT was said and answered.
    Quit,
    /// A stop was ordered; no message was under way.
    Stopped,
    /// A stop was ordered and the message under way took too long: it was cut, and the provider keeps it.
    StoppedInMessage,
    /// The provider's side closed or broke without QUIT.
    ProviderGone,
    /// The target's side closed or broke without QUIT.
    TargetGone,
    /// Nothing moved.
    Idle,
    /// The two cannot be understood any more.
    Fault(BridgeFault),
}

/// Bytes on their way: a buffer that is filled at one end and emptied at the other.
#[derive(Default)]
struct Way {
    bytes: Vec<u8>,
    start: usize,
}

impl Way {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    fn has_room(&self) -> bool {
        self.rest().len() < BUFFER_BYTES
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start >= BUFFER_BYTES {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes all of `bytes` over, without copying where nothing waits.
    fn take_over(&mut self, bytes: &mut Vec<u8>) {
        if self.is_empty() {
            std::mem::swap(&mut self.bytes, bytes);
            self.start = 0;
        } else {
            self.push(bytes);
        }
        bytes.clear();
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
    }
}

/// One connection with what waits to be written to it.
struct Side {
    stream: Box<dyn Stream>,
    out: Way,
    needs_flush: bool,
    /// Nothing more comes from it.
    has_ended: bool,
    /// Nothing more can be written to it.
    is_deaf: bool,
    is_closed: bool,
}

impl Side {
    fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            out: Way::default(),
            needs_flush: false,
            has_ended: false,
            is_deaf: false,
            is_closed: false,
        }
    }

    /// Writes what waits; true if something moved.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.out.is_empty() && !self.is_deaf {
            match Pin::new(&mut self.stream).poll_write(cx, self.out.rest()) {
                Poll::Ready(Ok(length)) if length > 0 => {
                    self.out.consume(length);
                    self.needs_flush = true;
                    moved = true;
                }
                Poll::Ready(_) => self.is_deaf = true,
                Poll::Pending => return moved,
            }
        }
        if self.needs_flush && !self.is_deaf {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.needs_flush = false,
                Poll::Ready(Err(_)) => self.is_deaf = true,
                Poll::Pending => {}
            }
        }
        moved
    }

    /// Reads once; `None` when nothing can come now.
    fn poll_in(&mut self, cx: &mut Context<'_>, place: &mut [u8]) -> Option<usize> {
        if self.has_ended {
            return None;
        }
        match Pin::new(&mut self.stream).poll_read(cx, place) {
            Poll::Ready(Ok(0) | Err(_)) => {
                self.has_ended = true;
                Some(0)
            }
            Poll::Ready(Ok(length)) => Some(length),
            Poll::Pending => None,
        }
    }

    /// Whether everything has left, or never will.
    fn is_drained(&self) -> bool {
        self.is_deaf || (self.out.is_empty() && !self.needs_flush)
    }

    /// Ends our direction, so that the other sees the end of the stream; true once that is done.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.is_closed && !self.is_deaf {
            match Pin::new(&mut self.stream).poll_close(cx) {
                Poll::Ready(Ok(())) => self.is_closed = true,
                Poll::Ready(Err(_)) => self.is_deaf = true,
                Poll::Pending => return false,
            }
        }
        true
    }
}

struct Pump<'a> {
    bridge: Bridge,
    provider: Side,
    target: Side,
    inbox: Way,
    scratch: Vec<u8>,
    output: Output,
    tell: &'a mut dyn FnMut(Event<'_>),
    octets: u64,
}

/// Runs the bridge between `provider` and `target` until one of them or the user ends it. `early` are bytes that
/// came from the provider already, `said` those of the target.
pub(super) async fn pump(
    provider: Box<dyn Stream>,
    early: &[u8],
    target: (Box<dyn Stream>, &[u8]),
    bridge: Bridge,
    stop: (&Stop, Duration),
    tell: &mut dyn FnMut(Event<'_>),
) -> PumpEnd {
    let mut pump = Pump {
        bridge,
        provider: Side::new(provider),
        target: Side::new(target.0),
        inbox: Way::default(),
        scratch: vec![0; BUFFER_BYTES / 2],
        output: Output::default(),
        tell,
        octets: 0,
    };
    pump.inbox.push(early);
    if let Err(fault) = pump.target_said(target.1) {
        return PumpEnd::Fault(fault);
    }
    let end = pump.run(stop.0, stop.1).await;
    pump.farewell(matches!(end, PumpEnd::Quit | PumpEnd::Stopped | PumpEnd::TargetGone)).await;
    end
}

impl Pump<'_> {
    async fn run(&mut self, stop: &Stop, stop_patience: Duration) -> PumpEnd {
        let stop = stop.clone();
        let mut order: BoxFuture<'static, ()> = Box::pin(async move { stop.given().await });
        let mut stopping = false;
        let mut moved_at = Instant::now();
        let mut patience = Duration::from_secs(IDLE_SECONDS_MAX);
        let mut alarm: BoxFuture<'static, ()> = Box::pin(pause(patience));
        futures::future::poll_fn(|cx| {
            if !stopping && order.as_mut().poll(cx).is_ready() {
                stopping = true;
                self.bridge.stop(&mut self.output);
                self.hand_over();
                patience = stop_patience;
                moved_at = Instant::now();
                alarm = Box::pin(pause(patience));
            }
            match self.turn_over(cx) {
                Ok(moved) => {
                    // While stopping the span counts from the order, whatever moves.
                    if moved && !stopping {
                        moved_at = Instant::now();
                    }
                }
                Err(end) => return Poll::Ready(end),
            }
            while alarm.as_mut().poll(cx).is_ready() {
                let left = patience.saturating_sub(moved_at.elapsed());
                if left.is_zero() {
                    let end = if stopping { PumpEnd::StoppedInMessage } else { PumpEnd::Idle };
                    return Poll::Ready(end);
                }
                alarm = Box::pin(pause(left));
            }
            Poll::Pending
        })
        .await
    }

    /// Moves whatever can move, until nothing can.
    fn turn_over(&mut self, cx: &mut Context<'_>) -> Result<bool, PumpEnd> {
        let mut moved = false;
        for round in 0.. {
            if round == ROUNDS_MAX {
                // Others in this thread have their turn.
                cx.waker().wake_by_ref();
                break;
            }
            let mut again = self.bridge_inbox()?;
            again |= self.target.poll_out(cx);
            again |= self.provider.poll_out(cx);
            if self.inbox.has_room()
                && let Some(length) = self.provider.poll_in(cx, &mut self.scratch)
            {
                self.inbox.push(&self.scratch[..length]);
                again = true;
            }
            if self.provider.out.has_room()
                && let Some(length) = self.target.poll_in(cx, &mut self.scratch)
            {
                let said = std::mem::take(&mut self.scratch);
                let outcome = self.target_said(&said[..length]);
                self.scratch = said;
                outcome.map_err(PumpEnd::Fault)?;
                again = true;
            }
            if !again {
                break;
            }
            moved = true;
        }
        self.look_for_the_end(cx).map_or(Ok(moved), Err)
    }

    /// Gives the bridge what came from the provider, as far as it takes it and the target's buffer has room.
    fn bridge_inbox(&mut self) -> Result<bool, PumpEnd> {
        if self.inbox.is_empty() || !self.target.out.has_room() {
            return Ok(false);
        }
        let taken = self
            .bridge
            .provider_bytes(self.inbox.rest(), &mut self.output)
            .map_err(PumpEnd::Fault)?;
        self.inbox.consume(taken);
        self.octets += taken as u64;
        self.hand_over();
        if taken > 0 {
            (self.tell)(Event::Moved { octets: self.octets });
        }
        Ok(taken > 0)
    }

    fn target_said(&mut self, bytes: &[u8]) -> Result<(), BridgeFault> {
        let outcome = self.bridge.target_bytes(bytes, &mut self.output);
        self.hand_over();
        outcome
    }

    /// Takes what the bridge has made to the two sides.
    fn hand_over(&mut self) {
        self.target.out.take_over(&mut self.output.to_target);
        self.provider.out.take_over(&mut self.output.to_provider);
        for passed in self.output.passed.drain(..) {
            (self.tell)(Event::Passed(&passed));
        }
    }

    fn look_for_the_end(&mut self, cx: &mut Context<'_>) -> Option<PumpEnd> {
        if self.bridge.is_stopped() && self.provider.is_drained() {
            return Some(PumpEnd::Stopped);
        }
        if self.bridge.is_finished() && self.provider.is_drained() {
            return Some(PumpEnd::Quit);
        }
        // A reply that cannot reach the provider: no use going on. A target that hears nothing any more may still
        // have said why, so it is read to its end.
        if self.provider.is_deaf || (self.target.has_ended && self.provider.is_drained()) {
            return Some(match (self.bridge.has_quit(), self.provider.has_ended) {
                (true, _) => PumpEnd::Quit,
                (false, true) => PumpEnd::ProviderGone,
                (false, false) if self.provider.is_deaf => PumpEnd::ProviderGone,
                (false, false) => PumpEnd::TargetGone,
            });
        }
        let was_all =
            self.provider.has_ended && (self.inbox.is_empty() || self.bridge.is_listening());
        if was_all && self.target.is_drained() {
            if self.bridge.is_in_content() {
                return Some(PumpEnd::ProviderGone);
            }
            // Half-closed: what the target still has to say goes back.
            self.target.poll_close(cx);
        }
        None
    }

    /// Closes both sides: in order where everything was said, else abruptly.
    async fn farewell(mut self, is_orderly: bool) {
        if !is_orderly {
            return;
        }
        let closing = futures::future::poll_fn(|cx| {
            self.target.poll_out(cx);
            self.provider.poll_out(cx);
            let target_closed = self.target.is_drained() && self.target.poll_close(cx);
            let provider_closed = self.provider.is_drained() && self.provider.poll_close(cx);
            // Unread bytes would make the kernel reset the connection and could destroy our last reply.
            while self.provider.poll_in(cx, &mut self.scratch).is_some() {}
            let is_over = self.provider.has_ended || self.provider.is_deaf;
            if target_closed && provider_closed && is_over {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        crate::net::patience::within(Duration::from_secs(FAREWELL_SECONDS_MAX), closing).await;
    }
}

#[cfg(test)]
mod tests;
