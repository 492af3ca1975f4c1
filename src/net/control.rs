//! The control socket: a Unix socket that only its owner may open, one task a connection.
//!
//! Bound by the program beside the queue. It hands each connection to an [`Attend`] and knows nothing of what is
//! said there. It never listens on a network.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_std::os::unix::net::{UnixListener, UnixStream};
use futures::future::{BoxFuture, Either, select};

use super::stop::Stop;
use super::wire::Stream;
use crate::provider::ledger::TARGET;

/// Connections at once; more are closed unheard.
const CONNECTIONS_MAX: usize = 64;

/// Who opened a connection, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// The process, when it connected.
    pub pid: i32,
}

/// Talks on one connection until its end.
pub trait Attend: Send + Sync {
    /// Talks.
    fn attend(self: Arc<Self>, stream: Box<dyn Stream>, peer: Peer) -> BoxFuture<'static, ()>;
}

/// The bound socket; its file goes away with it.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Binds `path` with mode 0600, in place of a socket that an earlier process left there. The caller holds
    /// the store's lock, so that the earlier one is gone for sure.
    ///
    /// # Errors
    /// The system's, as when the folder is missing or the path is too long for a socket.
    pub async fn bind(path: &Path) -> io::Result<Self> {
        // Under another name first: a socket of this name is never there with open permissions.
        let fresh = path.with_extension("new");
        remove_old(&fresh)?;
        let listener = UnixListener::bind(&fresh).await?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&fresh, path)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Takes connections until `stop` is given.
    pub async fn serve(self, attend: Arc<dyn Attend>, stop: Stop) {
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            let accepted = {
                let (order, accept) = (Box::pin(stop.given()), Box::pin(self.listener.accept()));
                match select(order, accept).await {
                    Either::Left(_) => return,
                    Either::Right((accepted, _)) => accepted,
                }
            };
            match accepted {
                Ok((stream, _)) => admit(stream, &attend, &open),
                Err(error) => {
                    let error = error.to_string();
                    log::warn!(target: TARGET, listener = "control", error = error; "accept-failed");
                    // Out of descriptors: the next try needs somebody to close one first.
                    async_std::task::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn admit(stream: UnixStream, attend: &Arc<dyn Attend>, open: &Arc<AtomicUsize>) {
    let Ok(credentials) = rustix::net::sockopt::socket_peercred(&stream) else { return };
    let peer = Peer {
        uid: credentials.uid.as_raw(),
        pid: rustix::process::Pid::as_raw(Some(credentials.pid)),
    };
    if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
        open.fetch_sub(1, Ordering::Relaxed);
        log::warn!(target: TARGET, connections = CONNECTIONS_MAX; "control-crowded");
        return;
    }
    let (attend, open) = (attend.clone(), open.clone());
    async_std::task::spawn(async move {
        attend.attend(Box::new(stream), peer).await;
        open.fetch_sub(1, Ordering::Relaxed);
    });
}

fn remove_old(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
