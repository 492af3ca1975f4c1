//! Watching sessions as they run: who said what, secrets masked.
//!
//! Told by the shell for each connection, and asked by the administration for `trace`. Nobody is ever held up by a
//! watcher: one that does not keep up misses events and is told how many. What may be a secret or a part of a
//! message is never shown, only its length: challenges and responses, the argument of AUTH, contents, and every
//! line that does not begin with a verb.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::mpsc;

use super::board::LastDrain;
use super::office::Office;
use crate::mail::{CustomerName, Fact, Timestamp};
use crate::smtp::verbs::{self, Verb};
use crate::smtp::{Door, MECHANISMS};

/// Events that wait for a watcher at most.
const WAITING_MAX: usize = 1000;
/// Longest text of an event, in characters.
const TEXT_CHARS_MAX: usize = 500;
/// Lines of one piece that are shown at most.
const LINES_MAX: usize = 100;

/// Which sessions somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Want {
    /// Those of this customer, from its login on.
    pub customer: Option<CustomerName>,
    /// Those from this address.
    pub address: Option<IpAddr>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The connection is there.
    Open,
    /// The peer said something.
    Heard,
    /// We said something.
    Said,
    /// The connection is encrypted, somebody is logged in, the roles are reversed.
    Event,
    /// The session is over.
    Close,
    /// A drain is over.
    Drained,
}

/// One event of a session.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    /// When, RFC 3339.
    pub at: String,
    /// A number for the session; 0 for a drain's end.
    pub session: u64,
    /// Where the peer is.
    pub client: String,
    /// `mx` or `odmr`; `drain`.
    pub door: String,
    /// Who is logged in.
    pub customer: Option<CustomerName>,
    /// What happened.
    pub kind: Kind,
    /// In words.
    pub text: String,
    /// Events before this one that the watcher was too slow for.
    pub missed: u64,
}

struct Watcher {
    want: Want,
    sender: mpsc::Sender<Seen>,
    missed: u64,
}

/// All watchers. It costs an idle provider one load of a number for each event.
#[derive(Default)]
pub struct Watch {
    count: AtomicUsize,
    sessions: AtomicU64,
    watchers: Mutex<Vec<Watcher>>,
}

impl Watch {
    fn locked(&self) -> MutexGuard<'_, Vec<Watcher>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody watches until the receiver is dropped.
    #[must_use]
    pub fn join(&self, want: Want) -> mpsc::Receiver<Seen> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let mut watchers = self.locked();
        watchers.push(Watcher { want, sender, missed: 0 });
        self.count.store(watchers.len(), Ordering::Relaxed);
        receiver
    }

    /// Whether anybody watches.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Tells everybody who wants to know. Never waits.
    fn tell(&self, address: Option<IpAddr>, seen: &Seen) {
        let mut watchers = self.locked();
        watchers.retain_mut(|watcher| {
            let want = &watcher.want;
            let wanted = (want.address.is_none() || want.address == address)
                && (want.customer.is_none() || want.customer == seen.customer);
            if !wanted {
                return !watcher.sender.is_closed();
            }
            let event = Seen { missed: watcher.missed, ..seen.clone() };
            match watcher.sender.try_send(event) {
                Ok(()) => watcher.missed = 0,
                Err(error) if error.is_full() => watcher.missed += 1,
                Err(_) => return false,
            }
            true
        });
        self.count.store(watchers.len(), Ordering::Relaxed);
    }

    /// A drain is over.
    pub fn drained(&self, last: &LastDrain, now: Timestamp) {
        if !self.is_on() {
            return;
        }
        let text = format!(
            "{} delivered, {} deferred, {} failed by {}, ended {}",
            last.delivered, last.deferred, last.failed, last.path, last.ended
        );
        let seen = Seen {
            at: now.rfc3339(),
            session: 0,
            client: String::new(),
            door: "drain".into(),
            customer: Some(last.customer.clone()),
            kind: Kind::Drained,
            text,
            missed: 0,
        };
        self.tell(None, &seen);
    }
}

/// One session's place among those that may be watched.
pub struct Spy {
    office: Arc<Office>,
    session: u64,
    client: SocketAddr,
    door: Door,
    customer: Option<CustomerName>,
    /// We asked for a response that must not be seen.
    is_asked: bool,
    /// What the peer said last was no whole line.
    is_partial: bool,
}

impl Spy {
    /// For a connection that is just there.
    #[must_use]
    pub fn new(office: Arc<Office>, client: SocketAddr, door: Door) -> Self {
        let session = office.watch.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let (customer, is_asked, is_partial) = (None, false, false);
        let spy = Self { office, session, client, door, customer, is_asked, is_partial };
        spy.tell(Kind::Open, || "connected".into());
        spy
    }

    fn tell(&self, kind: Kind, text: impl FnOnce() -> String) {
        let watch = &self.office.watch;
        if !watch.is_on() {
            return;
        }
        let address = self.client.ip().to_canonical();
        let seen = Seen {
            at: self.office.world.now().rfc3339(),
            session: self.session,
            client: address.to_string(),
            door: match self.door {
                Door::Mx => "mx".into(),
                Door::Odmr => "odmr".into(),
            },
            customer: self.customer.clone(),
            kind,
            text: clean(&text()),
            missed: 0,
        };
        watch.tell(Some(address), &seen);
    }

    /// The connection is encrypted.
    pub fn secured(&mut self) {
        self.is_partial = false;
        self.tell(Kind::Event, || "encrypted".into());
    }

    /// We say this.
    pub fn said(&mut self, octets: &[u8]) {
        self.is_asked = lines(octets).last().is_some_and(|line| line.starts_with(b"334"));
        if !self.office.watch.is_on() {
            return;
        }
        for line in lines(octets) {
            match line.starts_with(b"334") {
                true => self.tell(Kind::Said, || "334 [challenge]".into()),
                false => self.tell(Kind::Said, || String::from_utf8_lossy(line).into_owned()),
            }
        }
    }

    /// The peer said this; `is_content` if it belongs to a message.
    pub fn heard(&mut self, octets: &[u8], is_content: bool) {
        let was_partial = std::mem::replace(&mut self.is_partial, !octets.ends_with(b"\n"));
        if is_content {
            self.is_partial = false;
        }
        if !self.office.watch.is_on() {
            return;
        }
        let hidden = |what: &str, octets: &[u8]| format!("[{} octets{what}]", octets.len());
        if is_content {
            return self.tell(Kind::Heard, || hidden(" of content", octets));
        }
        if self.is_asked {
            return self.tell(Kind::Heard, || hidden(", a response", octets));
        }
        let (mut rest, mut is_hidden) = (octets, was_partial);
        for _ in 0..LINES_MAX {
            let Some(end) = memchr::memchr(b'\n', rest).filter(|_| !is_hidden) else { break };
            let (line, behind) = rest.split_at(end + 1);
            let text = shown(line.trim_ascii_end());
            // What comes behind these is not for us to read as commands.
            is_hidden = text.as_ref().is_none_or(|(_, ends)| *ends);
            self.tell(Kind::Heard, || match text {
                Some((text, _)) => text,
                None => hidden("", line),
            });
            rest = behind;
        }
        if !rest.is_empty() {
            self.tell(Kind::Heard, || hidden("", rest));
        }
    }

    /// The session states a fact.
    pub fn fact(&mut self, fact: &Fact) {
        match fact {
            Fact::LoggedIn { login, mechanism } => {
                let name = login.split('/').next().unwrap_or_default();
                self.customer = CustomerName::parse(name).ok();
                self.tell(Kind::Event, || format!("logged in as {login} by {mechanism}"));
            }
            Fact::Turn { waiting, .. } => {
                self.tell(Kind::Event, || format!("the roles reverse; {waiting} messages wait"));
            }
            Fact::Accepted { id, .. } => self.tell(Kind::Event, || format!("{id} is durable")),
            _ => {}
        }
    }
}

impl Drop for Spy {
    fn drop(&mut self) {
        self.tell(Kind::Close, || "the session is over".into());
    }
}

/// A command as it may be seen, and whether what follows it in the same breath may not. `None`: no command.
fn shown(line: &[u8]) -> Option<(String, bool)> {
    let text = std::str::from_utf8(line).ok()?;
    let word = text.split(' ').next().unwrap_or_default();
    let row = Verb::find(word)?;
    if verbs::is_secret(line) {
        let mechanism = text.split(' ').nth(1).unwrap_or_default();
        // Anything else may be a secret that came without the mechanism in front of it.
        let known = MECHANISMS.iter().any(|known| known.eq_ignore_ascii_case(mechanism));
        let has_more = text.split(' ').nth(2).is_some();
        let mechanism = if known { mechanism } else { "[hidden]" };
        return Some((
            format!("{word} {mechanism}{}", if has_more { " [hidden]" } else { "" }),
            true,
        ));
    }
    Some((text.to_owned(), matches!(row.verb, Verb::Data | Verb::Bdat | Verb::StartTls)))
}

fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    octets
        .split(|octet| *octet == b'\n')
        .map(<[u8]>::trim_ascii_end)
        .filter(|line| !line.is_empty())
}

/// One line that plays no tricks.
fn clean(text: &str) -> String {
    let all = text.chars().map(|c| if c.is_control() { '?' } else { c });
    all.take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let text = |line: &str| shown(line.as_bytes()).map(|(text, _)| text);
        assert_eq!(text("AUTH PLAIN AGFjbWUAc2VjcmV0").as_deref(), Some("AUTH PLAIN [hidden]"));
        assert_eq!(text("auth scram-sha-256").as_deref(), Some("auth scram-sha-256"));
        assert_eq!(text("AUTH AGFjbWUAc2VjcmV0AGFjbWUAc2VjcmV0").as_deref(), Some("AUTH [hidden]"));
        assert_eq!(text("AUTH s3cret").as_deref(), Some("AUTH [hidden]"), "no mechanism");
        assert_eq!(text("MAIL FROM:<a@b.example>").as_deref(), Some("MAIL FROM:<a@b.example>"));
        assert_eq!(text("AGFjbWUAc2VjcmV0"), None);
        assert_eq!(text(""), None);
    }
}
