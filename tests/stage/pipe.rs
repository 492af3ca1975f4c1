//! A connection in memory: what one end writes the other reads, at most `piece` octets at a time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::io::{AsyncRead, AsyncWrite};

#[derive(Default)]
struct Half {
    octets: VecDeque<u8>,
    is_closed: bool,
    reader: Option<Waker>,
}

impl Half {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

type Shared = Arc<Mutex<Half>>;

/// One end. Dropping it closes both directions.
pub(crate) struct End {
    inbound: Shared,
    outbound: Shared,
    piece: usize,
}

/// The two ends; the first reads at most `piece` octets at once.
pub(crate) fn pipe(piece: usize) -> (End, End) {
    let (there, back) = (Shared::default(), Shared::default());
    let near = End { inbound: there.clone(), outbound: back.clone(), piece };
    (near, End { inbound: back, outbound: there, piece: usize::MAX })
}

/// Looks at what an end would read.
pub(crate) struct Peek(Shared);

impl Peek {
    /// Octets that wait for the reader.
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().expect("no panic holds it").octets.len()
    }
}

impl End {
    /// A look at what waits for this end.
    pub(crate) fn peek(&self) -> Peek {
        Peek(self.inbound.clone())
    }

    fn close_outbound(&self) {
        let mut half = self.outbound.lock().expect("no panic holds it");
        half.is_closed = true;
        half.wake();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close_outbound();
        self.inbound.lock().expect("no panic holds it").is_closed = true;
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut half = self.inbound.lock().expect("no panic holds it");
        if half.octets.is_empty() {
            if half.is_closed {
                return Poll::Ready(Ok(0));
            }
            half.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        // Where very much waits, odd pieces do instead of single octets.
        let piece = if half.octets.len() < 4096 { self.piece } else { self.piece.max(61) };
        let count = half.octets.len().min(buffer.len()).min(piece);
        for (slot, octet) in buffer.iter_mut().zip(half.octets.drain(..count)) {
            *slot = octet;
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut half = self.outbound.lock().expect("no panic holds it");
        if half.is_closed {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        half.octets.extend(octets);
        half.wake();
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.close_outbound();
        Poll::Ready(Ok(()))
    }
}
