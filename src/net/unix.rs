//! Connections to a socket in the file system: a mail server on the same machine.
//!
//! Called by `restante fetch` for `lmtp:///path`.

use std::io;
use std::path::Path;

use super::socket::Socket;
use super::wire::Stream;

/// Connects to the socket at `path`.
///
/// # Errors
/// The system's error.
pub async fn connect(path: &Path) -> io::Result<Box<dyn Stream>> {
    let stream = async_std::os::unix::net::UnixStream::connect(path).await?;
    Ok(Box::new(Socket(stream)))
}
