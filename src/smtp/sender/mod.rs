//! The sender: the provider as client, on a reversed or dialed connection (RFC 2645 §5.3).
//!
//! A machine without I/O: [`Sender::advance`] takes what came in and says what goes out and what became of each
//! recipient. Called by the drain, which feeds it messages and bodies as [`Sender::wants`] asks, and tells it by
//! [`Sender::left`] how much has gone. It sends as early as the protocol allows: whole groups of commands where
//! PIPELINING is offered, the next MAIL behind the final dot, and with CHUNKING any number of messages before the
//! first reply; how many that may be is the caller's window. It reads no clock, knows no store, and never retries.
//!
//! Every reply must answer a command that has left, in order; anything else ends the connection with all mail
//! kept. Each recipient of each message that was taken gets exactly one [`Fate`].
//!
//! Keeps RFC 5321 §3.1 to §3.3, §4.1.1.4, §4.2, §4.5.3.2; RFC 2920 §3.1; RFC 3030 §2; RFC 9422 §4.

mod extensions;
mod outgoing;
mod reply_in;
mod script;
mod stuffing;
mod style;
mod transaction;
mod writing;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::mail::Outcome;
pub use extensions::Extensions;
pub use outgoing::{Outgoing, Unfit, rcpt_line};
pub use reply_in::{Malformed, PeerReply, REPLY_BYTES_MAX, REPLY_LINES_MAX, ReplyReader};
use script::{Expected, Line, What};
pub use stuffing::{BareLineEnd, Stuffer};
pub use style::Style;
use transaction::Transaction;
use writing::Writer;

/// What the caller tells the sender.
#[derive(Debug)]
pub enum Input<'a> {
    /// Octets from the wire.
    Bytes(&'a [u8]),
    /// A message; only when [`Sender::wants`] asks for one.
    Message(Box<Outgoing>),
    /// The next octets of its content; only when asked for. `last` with the octets that complete it.
    Body {
        /// CRLF line ends, no dot-stuffing.
        octets: Bytes,
        /// No more will come.
        last: bool,
    },
    /// The content cannot be had to its end; it must not be finished towards anybody.
    BodyLost,
    /// Ask for a sign of life; only when the sender is idle.
    Noop,
    /// Leave in order; only when the sender is idle.
    Quit,
    /// [`Sender::patience`] is over.
    Expired,
    /// The peer closed, or the wire broke.
    Ended,
    /// The caller gives up: nothing more is sent.
    Abandon(EndKind, String),
}

/// What the sender wants done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write these octets.
    Send(Bytes),
    /// EHLO or HELO is through; messages may come.
    Ready,
    /// What became of one recipient.
    Fate {
        /// [`Outgoing::tag`].
        tag: u64,
        /// Its place in the envelope.
        recipient: usize,
        /// What became of it.
        fate: Fate,
    },
    /// All recipients of this message have had their fate.
    Finished(u64),
    /// The rest of the body that was being fed is not wanted.
    DropBody,
    /// It is over; the connection is to be closed once everything is written.
    Over(End),
}

/// What became of one recipient in this attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server said so.
    Said(Outcome),
    /// The whole content left, and no reply came: it may have been taken.
    InDoubt,
    /// The line broke inside the content: it was surely not taken (RFC 5321 §4.1.1.4).
    Interrupted,
    /// Nothing happened to it.
    Untouched,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The class.
    pub kind: EndKind,
    /// What was said or what to do about it; for people.
    pub detail: Option<String>,
}

/// The classes of ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndKind {
    /// By QUIT, in order.
    Quit,
    /// The line broke or the peer closed it.
    Lost,
    /// The peer was silent for too long.
    Timeout,
    /// The peer greeted with something else than 220.
    Greeting,
    /// EHLO and HELO were refused.
    Hello,
    /// The server wants a login from us.
    Login,
    /// 421: the server closes.
    Closing,
    /// A reply that is malformed, surprising, early or surplus.
    Garbled,
    /// A body of ours could not be sent to its end.
    Body,
    /// The right to drain was lost to another connection.
    LeaseLost,
    /// Our store failed.
    Store,
}

impl EndKind {
    /// The word in the log (`ended=`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Lost => "lost",
            Self::Timeout => "timeout",
            Self::Greeting => "greeting-refused",
            Self::Hello => "hello-refused",
            Self::Login => "login-wanted",
            Self::Closing => "closed-by-customer",
            Self::Garbled => "garbled",
            Self::Body => "body-lost",
            Self::LeaseLost => "lease-lost",
            Self::Store => "store-trouble",
        }
    }
}

/// What the sender could use now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing: it waits for replies.
    Nothing,
    /// A message, NOOP or QUIT.
    Message,
    /// The next octets of the body of the message given last.
    Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Hello,
    Open,
    Quitting,
    Over,
}

/// The client side of one connection.
#[derive(Debug)]
pub struct Sender {
    style: Style,
    phase: Phase,
    offers: Extensions,
    peer_name: Option<String>,
    replies: ReplyReader,
    /// Replies due, in order.
    expected: VecDeque<Expected>,
    /// Lines not yet emitted.
    script: VecDeque<Line>,
    /// In flight, oldest first; the last one may still be open.
    transactions: VecDeque<Transaction>,
    writer: Writer,
    /// In line-by-line style: the begun last line of the content.
    begun_line: Vec<u8>,
    /// Octets put into [`Action::Send`] so far, and of these, octets that have left.
    emitted: u64,
    left: u64,
    /// RSET must go before the next MAIL.
    is_dirty: bool,
    /// A transaction was answered to its end.
    has_proof: bool,
    begun: u64,
    replied: u64,
    /// How it will have ended once QUIT is through.
    ending: End,
}

impl Sender {
    /// Waits for the customer's greeting (RFC 2645 §5.3).
    #[must_use]
    pub fn new(style: Style) -> Self {
        let greeting = Expected { what: What::Greeting, end: 0 };
        Self {
            style,
            phase: Phase::Greeting,
            offers: Extensions::default(),
            peer_name: None,
            replies: ReplyReader::default(),
            expected: VecDeque::from([greeting]),
            script: VecDeque::new(),
            transactions: VecDeque::new(),
            writer: Writer::Idle,
            begun_line: Vec::new(),
            emitted: 0,
            left: 0,
            is_dirty: false,
            has_proof: false,
            begun: 0,
            replied: 0,
            ending: End { kind: EndKind::Quit, detail: None },
        }
    }

    /// Goes on where an opening has ended: the greeting is over, and EHLO comes next. `peer_name` is the name in
    /// the greeting.
    #[must_use]
    pub fn opened(style: Style, peer_name: Option<String>) -> Self {
        let mut sender = Self { peer_name, phase: Phase::Hello, ..Self::new(style) };
        sender.expected.clear();
        let hello = format!("EHLO {}\r\n", sender.style.hostname);
        sender.say(hello, What::Ehlo);
        sender
    }

    /// One step. After [`Action::Over`] all further input is ignored.
    pub fn advance(&mut self, input: Input<'_>, out: &mut Vec<Action>) {
        if self.phase == Phase::Over {
            return;
        }
        match input {
            Input::Bytes(bytes) => self.take_bytes(bytes, out),
            Input::Message(message) => self.begin(&message),
            Input::Body { octets, last } => self.take_body(octets, last, out),
            Input::BodyLost => self.lose_body(out),
            Input::Noop => self.say("NOOP\r\n", What::Noop),
            Input::Quit => self.quit(),
            Input::Expired => self.expire(out),
            Input::Ended if self.phase == Phase::Quitting => self.over(self.ending.clone(), out),
            Input::Ended => self.end(EndKind::Lost, self.loss(), out),
            Input::Abandon(kind, detail) => self.end(kind, detail, out),
        }
        self.pump(out);
    }

    /// How it speaks.
    #[must_use]
    pub const fn style(&self) -> &Style {
        &self.style
    }

    /// Gives back the room of what is over.
    pub fn rest(&mut self) {
        self.expected.shrink_to_fit();
        self.script.shrink_to_fit();
        self.transactions.shrink_to_fit();
    }

    /// What it could use now.
    #[must_use]
    pub fn wants(&self) -> Want {
        let goes_ahead = self.is_pipelining() && !self.is_probing();
        let free = goes_ahead || self.expected.is_empty();
        match self.writer {
            _ if self.phase != Phase::Open || !self.script.is_empty() => Want::Nothing,
            Writer::Idle if free => Want::Message,
            Writer::Data(_) => Want::Body,
            Writer::Chunks if free => Want::Body,
            _ => Want::Nothing,
        }
    }

    /// So many octets more have been handed to the wire.
    pub fn left(&mut self, octets: usize) {
        self.left += octets as u64;
    }

    /// What the server offers; meaningful from [`Action::Ready`] on.
    #[must_use]
    pub fn offers(&self) -> &Extensions {
        &self.offers
    }

    /// The name in the customer's greeting.
    #[must_use]
    pub fn peer_name(&self) -> Option<&str> {
        self.peer_name.as_deref()
    }

    /// Whether no transaction and no command is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.transactions.is_empty() && self.expected.is_empty() && self.script.is_empty()
    }

    /// Whether the server takes no more transactions on this connection (LIMITS MAILMAX).
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.offers.mails_max.is_some_and(|max| self.begun >= max)
    }

    /// Whether [`Action::Over`] was given.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether QUIT was said; nothing can be lost any more by not waiting.
    #[must_use]
    pub fn is_quitting(&self) -> bool {
        self.phase == Phase::Quitting
    }

    /// Replies taken so far; it only grows.
    #[must_use]
    pub fn replied(&self) -> u64 {
        self.replied
    }

    /// Whether a transaction is in flight.
    #[must_use]
    pub fn is_in_transaction(&self) -> bool {
        !self.transactions.is_empty()
    }

    /// Whether a group of commands was answered in part: RCPT or DATA is due, MAIL was answered.
    #[must_use]
    pub fn is_stuck_in_group(&self) -> bool {
        let due = self.expected.front().map(|due| due.what);
        self.is_pipelining() && matches!(due, Some(What::Rcpt(_) | What::Data))
    }

    /// How long the next reply may take (RFC 5321 §4.5.3.2), counted from the last reply or from the moment
    /// when the command left, whichever is later. `None` when none is due.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        self.expected.front().map(|due| Duration::from_secs(due.what.seconds_max()))
    }

    /// Bundles and BDAT are used only where offered, and only if the style allows it.
    fn is_pipelining(&self) -> bool {
        self.style.pipelining && self.offers.pipelining
    }

    fn is_chunking(&self) -> bool {
        self.style.chunking && self.offers.chunking && !self.is_probing()
    }

    fn is_probing(&self) -> bool {
        self.style.probes && !self.has_proof
    }

    fn awaits(&self) -> &'static str {
        match self.expected.front() {
            Some(due) => due.what.name(),
            None => match self.writer {
                Writer::Data(_) | Writer::Chunks => "the content to be taken",
                _ => "nothing",
            },
        }
    }

    fn loss(&self) -> String {
        if self.phase == Phase::Greeting {
            return "the customer's side closed before any greeting; is its local mail server up?"
                .into();
        }
        format!("the connection was lost while we waited for {}", self.awaits())
    }

    fn expire(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::Quitting {
            return self.over(self.ending.clone(), out);
        }
        let detail =
            format!("the customer's server was silent while we waited for {}", self.awaits());
        self.end(EndKind::Timeout, detail, out);
    }

    fn quit(&mut self) {
        self.phase = Phase::Quitting;
        self.say("QUIT\r\n", What::Quit);
    }

    /// Leaves politely, because of something that concerns the whole connection.
    fn refuse(&mut self, kind: EndKind, detail: String) {
        self.ending = End { kind, detail: Some(detail) };
        self.quit();
    }

    /// Ends at once: whatever is in flight gets its fate from what is known now.
    fn end(&mut self, kind: EndKind, detail: String, out: &mut Vec<Action>) {
        for transaction in std::mem::take(&mut self.transactions) {
            transaction.cut(self.left, kind == EndKind::Closing, out);
        }
        self.over(End { kind, detail: Some(detail) }, out);
    }

    fn over(&mut self, end: End, out: &mut Vec<Action>) {
        self.phase = Phase::Over;
        self.script.clear();
        self.expected.clear();
        out.push(Action::Over(end));
    }
}
