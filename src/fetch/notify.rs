//! What systemd is told: ready, status, stopping (sd_notify(3)), if it listens.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The way to the service manager; deaf where there is none.
#[derive(Debug)]
pub(super) struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// From `$NOTIFY_SOCKET`: a path, or a name in the abstract space behind `@`.
    pub(super) fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self(None) };
        let address = match name.as_bytes().split_first() {
            Some((b'@', rest)) => SocketAddr::from_abstract_name(rest),
            _ => SocketAddr::from_pathname(&name),
        };
        Self(UnixDatagram::unbound().and_then(|socket| Ok((socket, address?))).ok())
    }

    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    pub(super) fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, line: &str) {
        if let Some((socket, address)) = &self.0 {
            // A manager that does not listen is not our trouble.
            let _ = socket.send_to_addr(line.as_bytes(), address);
        }
    }
}
