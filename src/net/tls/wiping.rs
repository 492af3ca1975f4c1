//! The encrypted stream below TLS, read in a way that leaves no password behind.
//!
//! Put under each TLS stream of the server's side. The library decrypts a record where it was read, and offers the same
//! memory for the next read: all of it that a read does not fill is wiped here, so that what was decrypted there is gone as soon
//! as the session waits for more. It changes nothing that is read or written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};

use crate::net::wire::Stream;

/// See the head of this file.
pub(super) struct Wiping(pub(super) Box<dyn Stream>);

impl AsyncRead for Wiping {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        place: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.0).poll_read(cx, place);
        let filled = match &read {
            Poll::Ready(Ok(count)) => *count,
            _ => 0,
        };
        if let Some(rest) = place.get_mut(filled..) {
            rest.fill(0);
        }
        read
    }
}

impl AsyncWrite for Wiping {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, FutureExt};

    use super::*;

    #[test]
    fn what_a_read_does_not_fill_is_wiped() {
        let (near, mut far) = crate::net::pipe::pipe();
        let mut stream = Wiping(Box::new(near));
        let mut place = *b"a password that was decrypted here";
        assert!(stream.read(&mut place).now_or_never().is_none());
        assert!(place.iter().all(|octet| *octet == 0));
        place.fill(7);
        futures::executor::block_on(futures::AsyncWriteExt::write_all(&mut far, b"abc"))
            .expect("room");
        let count = futures::executor::block_on(stream.read(&mut place)).expect("read");
        assert_eq!((count, &place[..4]), (3, &b"abc\0"[..]));
    }
}
