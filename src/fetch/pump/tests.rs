//! The pump with sides that stall: what it holds has an end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt as _;

use super::*;
use crate::smtp::bridge::Dialect;

/// One side: gives its lines one at a time, then its filler without end, and takes so many octets.
struct Fake {
    lines: &'static [u8],
    filler: Option<u8>,
    room: usize,
    given: Arc<AtomicUsize>,
}

impl futures::AsyncRead for Fake {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        place: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let length = match (memchr::memchr(b'\n', self.lines), self.filler) {
            (Some(end), _) => {
                let (line, rest) = self.lines.split_at(end + 1);
                place[..line.len()].copy_from_slice(line);
                self.lines = rest;
                line.len()
            }
            (None, Some(filler)) => {
                place.fill(filler);
                place.len()
            }
            (None, None) => return Poll::Pending,
        };
        self.given.fetch_add(length, Ordering::Relaxed);
        Poll::Ready(Ok(length))
    }
}

impl futures::AsyncWrite for Fake {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = bytes.len().min(self.room);
        self.room -= length;
        if length == 0 { Poll::Pending } else { Poll::Ready(Ok(length)) }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls a pump between two such sides until it waits; gives the octets that it took from each.
fn stall(
    provider: (&'static [u8], Option<u8>, usize),
    target: (&'static [u8], Option<u8>, usize),
) -> (usize, usize) {
    let fake = |(lines, filler, room)| {
        let given = Arc::new(AtomicUsize::new(0));
        (Box::new(Fake { lines, filler, room, given: given.clone() }), given)
    };
    let (provider, from_provider) = fake(provider);
    let (target, from_target) = fake(target);
    let (_giver, stop) = Stop::new();
    let mut tell = |_: Event<'_>| {};
    let bridge = Bridge::new(Dialect::Smtp, true);
    let patience = Duration::from_secs(1);
    let mut running =
        Box::pin(pump(provider, b"", (target, b""), bridge, (&stop, patience), &mut tell));
    // Each poll may end early to let others run; without progress the counts stand still.
    let counts = || (from_provider.load(Ordering::Relaxed), from_target.load(Ordering::Relaxed));
    for _ in 0..10_000 {
        let before = counts();
        assert!(running.as_mut().now_or_never().is_none(), "ended");
        if counts() == before {
            return before;
        }
    }
    panic!("never comes to rest: {:?}", counts());
}

const COMMANDS: &[u8] = b"EHLO p\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n";

#[test]
fn a_target_that_stops_reading_stops_the_provider() {
    let answers = b"220 t\r\n250 t\r\n250 ok\r\n250 ok\r\n354 go\r\n";
    let (taken, _) = stall((COMMANDS, Some(b'x'), usize::MAX), (answers, None, 1000));
    assert!(taken > 64 * 1024, "moved {taken}");
    assert!(taken < 256 * 1024, "holds {taken} octets");
}

#[test]
fn a_provider_that_stops_reading_stops_the_target() {
    // Replies that nobody asked for go to the provider as they come.
    let replies: &'static [u8] = Box::leak(b"421 closing\r\n".repeat(100_000).into_boxed_slice());
    let (_, taken) = stall((b"", None, 1000), (replies, None, usize::MAX));
    assert!(taken > 64 * 1024, "moved {taken}");
    assert!(taken < 256 * 1024, "holds {taken} octets");
}

#[test]
fn commands_wait_for_a_target_that_does_not_answer() {
    let (taken, _) = stall((COMMANDS, Some(b'x'), usize::MAX), (b"220 t\r\n", None, usize::MAX));
    assert!(taken < 256 * 1024, "holds {taken} octets");
}
