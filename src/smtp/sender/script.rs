//! Commands out, replies in: which reply belongs to which command, and what it means.
//!
//! The part of the sender that matches strictly in order. Keeps RFC 5321 §4.2 and §4.3.2 (codes by command),
//! RFC 2920 §3.1 (count the replies, check them all; a lone dot where nobody takes the content).

use std::borrow::Cow;

use super::reply_in::PeerReply;
use super::stuffing::Stuffer;
use super::writing::Writer;
use super::{Action, EndKind, Extensions, Input, Phase, Sender, Transaction};

/// Which command a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Greeting,
    Ehlo,
    Helo,
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    Chunk { last: bool },
    Dot,
    Noop,
    Quit,
}

impl What {
    /// RFC 5321 §4.5.3.2; what it does not name gets five minutes, QUIT ten seconds since nothing depends on it.
    pub(super) const fn seconds_max(self) -> u64 {
        match self {
            Self::Data => 120,
            Self::Chunk { .. } | Self::Dot => 600,
            Self::Quit => 10,
            _ => 300,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Greeting => "its greeting",
            Self::Ehlo | Self::Helo => "the reply to EHLO",
            Self::Reset => "the reply to RSET",
            Self::Mail => "the reply to MAIL",
            Self::Rcpt(_) => "the reply to RCPT",
            Self::Data => "the reply to DATA",
            Self::Chunk { .. } | Self::Dot => "the reply to the end of a message",
            Self::Noop => "the reply to NOOP",
            Self::Quit => "the reply to QUIT",
        }
    }
}

/// A reply due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) what: What,
    /// Where the command ends in all that was emitted: before that much has left, no reply can answer it.
    pub(super) end: u64,
}

/// A command not yet emitted.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) text: Cow<'static, [u8]>,
    pub(super) what: What,
}

impl Sender {
    pub(super) fn say(&mut self, text: impl Into<Cow<'static, str>>, what: What) {
        let text = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        self.script.push_back(Line { text, what });
    }

    pub(super) fn take_bytes(&mut self, mut bytes: &[u8], out: &mut Vec<Action>) {
        while self.phase != Phase::Over {
            match self.replies.read(&mut bytes) {
                Ok(None) => return,
                Ok(Some(reply)) => self.take_reply(&reply, out),
                Err(why) => {
                    let place = self.awaits();
                    self.end(
                        EndKind::Garbled,
                        format!(
                            "the customer's side sent {why} while we waited for {place}; look at what \
                             answers there"
                        ),
                        out,
                    );
                }
            }
        }
    }

    fn take_reply(&mut self, reply: &PeerReply, out: &mut Vec<Action>) {
        self.replied += 1;
        if reply.code == 421 && !matches!(self.phase, Phase::Quitting | Phase::Greeting) {
            return self.take_closing(reply, out);
        }
        let due = match self.expected.front() {
            Some(due) if due.end <= self.left => *due,
            // We are leaving; what else it says concerns no mail.
            _ if self.phase == Phase::Quitting => return,
            Some(_) => return self.surprise("before the command was sent", reply, out),
            None => return self.surprise("that nothing asked for", reply, out),
        };
        self.expected.pop_front();
        match due.what {
            What::Greeting => self.greeted(reply),
            What::Ehlo => self.ehlo_reply(reply, out),
            What::Helo if reply.class() == 2 => self.open(Extensions::default(), out),
            What::Helo => self.refuse(EndKind::Hello, hello_refused(reply)),
            What::Reset if reply.class() == 2 => {}
            What::Reset => self.surprise("to RSET", reply, out),
            What::Noop if reply.class() != 3 => {}
            What::Noop => self.surprise("to NOOP", reply, out),
            What::Quit => self.over(self.ending.clone(), out),
            _ => self.transaction_reply(due.what, reply, out),
        }
    }

    /// 421: the server closes now. If the content of a message had fully left, this refuses it for now.
    fn take_closing(&mut self, reply: &PeerReply, out: &mut Vec<Action>) {
        let answers_content = self.expected.front().is_some_and(|due| {
            due.end <= self.left && matches!(due.what, What::Dot | What::Chunk { last: true })
        });
        if answers_content && let Some(mut first) = self.transactions.pop_front() {
            first.content_reply(reply, true);
            first.finish(out);
        }
        let detail = format!("the customer's server closed the connection: {}", reply.said());
        self.end(EndKind::Closing, detail, out);
    }

    fn surprise(&mut self, place: &str, reply: &PeerReply, out: &mut Vec<Action>) {
        let detail = format!(
            "the customer's side sent a reply {place}: {}; if a proxy stands between, it must pass every \
             line as it is",
            reply.said()
        );
        self.end(EndKind::Garbled, detail, out);
    }

    fn greeted(&mut self, reply: &PeerReply) {
        if reply.code != 220 {
            let detail = format!(
                "the customer's server greeted with `{}`; it must accept mail from the program that sent \
                 ATRN",
                reply.said()
            );
            return self.refuse(EndKind::Greeting, detail);
        }
        self.peer_name = reply.text.split_ascii_whitespace().next().map(str::to_owned);
        self.phase = Phase::Hello;
        self.say(format!("EHLO {}\r\n", self.style.hostname), What::Ehlo);
    }

    fn ehlo_reply(&mut self, reply: &PeerReply, out: &mut Vec<Action>) {
        match reply.class() {
            2 => self.open(Extensions::parse(&reply.text), out),
            5 => self.say(format!("HELO {}\r\n", self.style.hostname), What::Helo),
            _ => self.refuse(EndKind::Hello, hello_refused(reply)),
        }
    }

    fn open(&mut self, offers: Extensions, out: &mut Vec<Action>) {
        self.offers = offers;
        self.phase = Phase::Open;
        out.push(Action::Ready);
    }

    /// A reply within a transaction always concerns the oldest one in flight.
    fn transaction_reply(&mut self, what: What, reply: &PeerReply, out: &mut Vec<Action>) {
        let is_go = what == What::Data && reply.code == 354;
        let odd = match reply.class() {
            2 => what == What::Data,
            3 => !is_go,
            _ => false,
        };
        if odd {
            return self.surprise(&format!("that does not fit, to {}", verb(what)), reply, out);
        }
        if what == What::Mail && reply.code == 530 {
            let detail = format!(
                "the customer's server wants a login before MAIL: {}; let it accept mail from the program \
                 that sent ATRN",
                reply.said()
            );
            return self.end(EndKind::Login, detail, out);
        }
        let is_only = self.transactions.len() == 1;
        let Some(oldest) = self.transactions.front_mut() else {
            return self.surprise("outside a transaction", reply, out);
        };
        oldest.awaited -= 1;
        match what {
            What::Mail => oldest.mail_reply(reply),
            What::Rcpt(recipient) => oldest.rcpt_reply(recipient, reply),
            // Its content, be it a lone dot, is still to be answered.
            What::Data if is_go => return self.go_ahead(out),
            What::Data => {
                oldest.content_reply(reply, false);
                oldest.is_open = false;
                self.writer = Writer::Idle;
            }
            What::Chunk { last } => oldest.content_reply(reply, last),
            _ => oldest.content_reply(reply, true),
        }
        if is_only && matches!(self.writer, Writer::Chunks) {
            self.stop_if_hopeless(out);
        }
        self.finish_oldest(out);
    }

    /// 354: the content may go; a lone dot if all recipients were refused (RFC 2920 §3.1).
    fn go_ahead(&mut self, out: &mut Vec<Action>) {
        if self.transactions.front().is_some_and(Transaction::has_takers) {
            self.writer = Writer::Data(Stuffer::default());
        } else {
            self.end_data(b".\r\n", out);
        }
    }

    /// RFC 3030 §2: no further chunk after a refused one.
    fn stop_if_hopeless(&mut self, out: &mut Vec<Action>) {
        if let Some(last) = self.transactions.back_mut()
            && last.is_hopeless()
        {
            last.is_open = false;
            self.writer = Writer::Idle;
            out.push(Action::DropBody);
        }
    }

    pub(super) fn finish_oldest(&mut self, out: &mut Vec<Action>) {
        let by_chunks = self.is_chunking();
        if !self.transactions.front().is_some_and(Transaction::is_finished) {
            return;
        }
        if let Some(oldest) = self.transactions.pop_front() {
            if self.transactions.is_empty() {
                self.is_dirty = !oldest.is_cleared(by_chunks);
            }
            self.has_proof = true;
            oldest.finish(out);
        }
    }

    /// The content of the open message broke off on our side.
    pub(super) fn lose_body(&mut self, out: &mut Vec<Action>) {
        match self.writer {
            // What was not LAST is forgotten by RSET, which goes before the next MAIL.
            Writer::Chunks => {
                if let Some(last) = self.transactions.back_mut() {
                    last.is_open = false;
                    last.is_withdrawn = true;
                }
                self.writer = Writer::Idle;
                self.finish_oldest(out);
                self.is_dirty = true;
            }
            Writer::Data(_) => self.advance(
                Input::Abandon(
                    EndKind::Body,
                    "a message could not be read to its end; it was not finished".into(),
                ),
                out,
            ),
            _ => {}
        }
    }
}

fn hello_refused(reply: &PeerReply) -> String {
    format!("the customer's server refused EHLO: {}", reply.said())
}

const fn verb(what: What) -> &'static str {
    match what {
        What::Mail => "MAIL",
        What::Rcpt(_) => "RCPT",
        What::Data => "DATA",
        _ => "the end of a message",
    }
}
