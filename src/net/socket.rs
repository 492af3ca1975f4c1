//! Sockets whose closing is seen by the other side.
//!
//! Made by the dialler and the Unix connector. The runtime's own sockets only flush when they are closed and end
//! the stream when they are dropped; these end their sending direction at once (half-close), so that the last
//! replies can still be read.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};

/// What can end its sending direction.
pub(super) trait EndSending {
    /// Ends it; the other side then reads the end of the stream.
    fn end_sending(&self) -> io::Result<()>;
}

impl EndSending for async_std::net::TcpStream {
    fn end_sending(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl EndSending for async_std::os::unix::net::UnixStream {
    fn end_sending(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// A socket that half-closes.
pub(super) struct Socket<S>(pub(super) S);

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        place: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, place)
    }
}

impl<S: AsyncWrite + EndSending + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        Poll::Ready(self.0.end_sending())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use futures::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn after_closing_the_other_side_sees_the_end_and_can_still_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let other = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a caller");
            let mut heard = String::new();
            socket.read_to_string(&mut heard).expect("the end of the stream");
            socket.write_all(b"still here").expect("said");
            heard
        });
        let answer = futures::executor::block_on(async {
            let stream = async_std::net::TcpStream::connect(address).await?;
            let mut socket = Socket(stream);
            socket.write_all(b"that is all").await?;
            socket.close().await?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await?;
            io::Result::Ok(answer)
        });
        assert_eq!(answer.expect("an answer"), "still here");
        assert_eq!(other.join().expect("no panic"), "that is all");
    }
}
