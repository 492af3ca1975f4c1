//! A connection in memory: what one end writes the other one reads, with a bounded buffer in between.
//!
//! For programs that keep both parties in one process, and for examples. Closing or dropping an end is seen by the
//! other one as the end of the stream.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::io::{AsyncRead, AsyncWrite};

/// Octets that one direction holds at most.
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Default)]
struct Half {
    octets: VecDeque<u8>,
    is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

type Shared = Arc<Mutex<Half>>;

/// One end of a pipe.
pub struct PipeEnd {
    inbound: Shared,
    outbound: Shared,
}

/// Two joined ends.
#[must_use]
pub fn pipe() -> (PipeEnd, PipeEnd) {
    let (there, back) = (Shared::default(), Shared::default());
    let near = PipeEnd { inbound: there.clone(), outbound: back.clone() };
    (near, PipeEnd { inbound: back, outbound: there })
}

fn with<T>(half: &Shared, work: impl FnOnce(&mut Half) -> T) -> T {
    // A panic of the other end leaves nothing half-done in here.
    work(&mut half.lock().unwrap_or_else(PoisonError::into_inner))
}

fn close(half: &Shared) {
    with(half, |half| {
        half.is_closed = true;
        half.reader.take().into_iter().chain(half.writer.take()).for_each(Waker::wake);
    });
}

impl AsyncRead for PipeEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        place: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        with(&self.inbound, |half| {
            if half.octets.is_empty() && !half.is_closed {
                half.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let length = io::Read::read(&mut half.octets, place)?;
            if let Some(writer) = half.writer.take() {
                writer.wake();
            }
            Poll::Ready(Ok(length))
        })
    }
}

impl AsyncWrite for PipeEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        with(&self.outbound, |half| {
            if half.is_closed {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let length = bytes.len().min(BUFFER_BYTES - half.octets.len());
            if length == 0 && !bytes.is_empty() {
                half.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            half.octets.extend(&bytes[..length]);
            if let Some(reader) = half.reader.take() {
                reader.wake();
            }
            Poll::Ready(Ok(length))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        close(&self.outbound);
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        close(&self.inbound);
        close(&self.outbound);
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::{AsyncReadExt as _, AsyncWriteExt as _, join};

    use super::*;

    #[test]
    fn more_than_the_buffer_passes_in_both_directions() {
        let (mut near, mut far) = pipe();
        let sent: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let received = block_on(async {
            let write = async {
                near.write_all(&sent).await.expect("written");
                near.close().await.expect("closed");
                let mut answer = Vec::new();
                near.read_to_end(&mut answer).await.expect("read");
                answer
            };
            let read = async {
                let mut heard = Vec::new();
                far.read_to_end(&mut heard).await.expect("read");
                far.write_all(b"thanks").await.expect("written");
                drop(far);
                heard
            };
            join!(write, read)
        });
        assert_eq!(received.0, b"thanks");
        assert!(received.1 == sent);
    }

    #[test]
    fn a_dropped_end_is_a_broken_pipe_and_the_end_of_the_stream() {
        let (mut near, far) = pipe();
        drop(far);
        block_on(async {
            assert_eq!(near.read(&mut [0; 8]).await.expect("the end"), 0);
            let error = near.write(b"x").await.expect_err("nobody reads");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        });
    }
}
