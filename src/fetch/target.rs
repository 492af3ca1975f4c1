//! Where the mail goes: a mail server that speaks SMTP or LMTP, a Maildir, or an mbox file.
//!
//! Parsed from the command line; opened by the call before it sends ATRN, so that a target that is down costs
//! nothing. A server counts as open once it has greeted with 220.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::AsyncReadExt as _;

use super::account::split_host;
use super::files::Mailbox;
use super::files::maildir::Maildir;
use super::files::mbox::Mbox;
use crate::net::patience::within;
use crate::net::wire::Stream;
use crate::net::{dial, unix};
use crate::smtp::bridge::Dialect;
use crate::smtp::sender::ReplyReader;

/// Patience for the greeting of a local server.
const GREETING_SECONDS_MAX: u64 = 60;

/// Where the mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `smtp://host:port`.
    Smtp(String, u16),
    /// `lmtp://host:port`.
    Lmtp(String, u16),
    /// `lmtp:///path`.
    LmtpSocket(PathBuf),
    /// `maildir:DIR`.
    Maildir(PathBuf),
    /// `mbox:FILE`.
    Mbox(PathBuf),
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetError(String);

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "target \"{}\": expected smtp://host:port, lmtp://host:port, lmtp:///path, maildir:DIR or mbox:FILE",
            self.0
        )
    }
}

impl std::error::Error for TargetError {}

impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::parse(text).ok_or_else(|| TargetError(text.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at =
            |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            Self::Smtp(host, port) => write!(f, "smtp://{}:{port}", at(host)),
            Self::Lmtp(host, port) => write!(f, "lmtp://{}:{port}", at(host)),
            Self::LmtpSocket(path) => write!(f, "lmtp://{}", path.display()),
            Self::Maildir(path) => write!(f, "maildir:{}", path.display()),
            Self::Mbox(path) => write!(f, "mbox:{}", path.display()),
        }
    }
}

impl Target {
    fn parse(text: &str) -> Option<Self> {
        let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        if let Some(dir) = text.strip_prefix("maildir:") {
            return path(dir).map(Self::Maildir);
        }
        if let Some(file) = text.strip_prefix("mbox:") {
            return path(file).map(Self::Mbox);
        }
        let (scheme, place) = text.split_once("://")?;
        if scheme == "lmtp" && place.len() > 1 && place.starts_with('/') {
            return path(place).map(Self::LmtpSocket);
        }
        let (host, port) = split_host(place.strip_suffix('/').unwrap_or(place))?;
        match scheme {
            "smtp" => Some(Self::Smtp(host, port.unwrap_or(25))),
            // LMTP has no port of its own, and must not use 25 (RFC 2033 §5).
            "lmtp" => port.map(|port| Self::Lmtp(host, port)),
            _ => None,
        }
    }

    /// The folder or file, if the mail goes to one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Maildir(path) | Self::Mbox(path) => Some(path),
            _ => None,
        }
    }
}

/// A target that takes mail now.
pub(super) enum Opened {
    /// A server has greeted.
    Server(Server),
    /// Files can be written.
    Files(Box<dyn Mailbox>),
}

/// A mail server that has greeted.
pub(super) struct Server {
    pub(super) stream: Box<dyn Stream>,
    pub(super) dialect: Dialect,
    /// What it has said so far: its greeting.
    pub(super) said: Vec<u8>,
    since: Instant,
}

impl Opened {
    /// Whether it has been idle for so long that it may have hung up.
    pub(super) fn is_stale(&self, reopen_after: Duration) -> bool {
        match self {
            Self::Server(server) => server.since.elapsed() >= reopen_after,
            Self::Files(_) => false,
        }
    }
}

/// Opens `target`: connects and reads the greeting, or opens the folder or file. `host` is our name.
///
/// # Errors
/// What the system or the server says; a greeting other than 220 is one.
pub(super) async fn open(target: &Target, host: &str) -> io::Result<Opened> {
    let host = host.to_owned();
    match target.clone() {
        Target::Maildir(path) => blocking::unblock(move || Maildir::open(&path, &host))
            .await
            .map(|maildir| Opened::Files(Box::new(maildir))),
        Target::Mbox(path) => blocking::unblock(move || Mbox::open(&path))
            .await
            .map(|mbox| Opened::Files(Box::new(mbox))),
        _ => {
            let patience = Duration::from_secs(GREETING_SECONDS_MAX);
            match within(patience, greeted(target)).await {
                Some(outcome) => outcome.map(Opened::Server),
                None => Err(io::Error::new(io::ErrorKind::TimedOut, "no greeting in time")),
            }
        }
    }
}

async fn greeted(target: &Target) -> io::Result<Server> {
    let (mut stream, dialect) = match target {
        Target::Smtp(host, port) => (dial::connect(host, *port).await?.stream, Dialect::Smtp),
        Target::Lmtp(host, port) => (dial::connect(host, *port).await?.stream, Dialect::Lmtp),
        Target::LmtpSocket(path) => (unix::connect(path).await?, Dialect::Lmtp),
        Target::Maildir(_) | Target::Mbox(_) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "not a server"));
        }
    };
    let mut said = Vec::new();
    let mut reader = ReplyReader::default();
    let mut buffer = [0u8; 1024];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a greeting"));
        }
        said.extend_from_slice(&buffer[..length]);
        match reader.read(&mut &buffer[..length]) {
            Ok(None) => {}
            Ok(Some(greeting)) if greeting.code == 220 => {
                return Ok(Server { stream, dialect, said, since: Instant::now() });
            }
            Ok(Some(greeting)) => return Err(io::Error::other(greeting.said().to_string())),
            Err(fault) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, fault.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_print_as_they_are_read() {
        for text in [
            "smtp://localhost:25",
            "smtp://[::1]:2525",
            "lmtp://127.0.0.1:24",
            "lmtp:///run/dovecot/lmtp",
            "maildir:/home/a/Maildir",
            "mbox:/var/mail/a",
        ] {
            let target: Target = text.parse().expect("a target");
            assert_eq!(target.to_string(), text);
        }
        assert_eq!("smtp://mx".parse(), Ok(Target::Smtp("mx".into(), 25)));
    }

    #[test]
    fn other_texts_are_no_targets() {
        for text in
            ["", "smtp:", "smtp://", "lmtp://host", "lmtp:///", "maildir:", "mbox:", "http://a:1"]
        {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
