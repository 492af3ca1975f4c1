//! One transaction in flight: what was said about each recipient, and what that makes of it.
//!
//! Held by the sender, oldest first. It keeps the refusals back until the transaction has ended, so that a cut
//! before the content marks nobody. Keeps RFC 5321 §3.3, §4.2.1 (the first digit decides) and §3.8 (a lost
//! connection is no refusal).

use std::collections::BTreeMap;

use super::reply_in::PeerReply;
use super::{Action, Fate};
use crate::mail::Outcome;

/// From MAIL to the last reply.
#[derive(Debug)]
pub(super) struct Transaction {
    /// The caller's name for it.
    tag: u64,
    /// Replies that commands already emitted will bring.
    pub(super) awaited: usize,
    /// Commands or content may follow.
    pub(super) is_open: bool,
    /// RCPT commands accepted.
    accepted: usize,
    /// RCPT commands answered.
    answered: usize,
    /// A refusal of MAIL, which is one of everybody.
    mail_refused: Option<Outcome>,
    recipients: usize,
    /// Refusals of RCPT, by place; most transactions have none.
    refused: BTreeMap<usize, Outcome>,
    /// What was said of the content: a refusal of DATA or of a chunk, or the final reply.
    content: Option<Outcome>,
    /// Where the first octet of the content stands in all that was emitted.
    pub(super) content_begun: Option<u64>,
    /// Where the end of the content stands.
    pub(super) content_end: Option<u64>,
    /// The content cannot be had any more; nobody is to blame.
    pub(super) is_withdrawn: bool,
}

/// A negative reply as an outcome.
fn refusal(reply: &PeerReply) -> Outcome {
    if reply.class() == 4 { Outcome::Later(reply.said()) } else { Outcome::Failed(reply.said()) }
}

/// RFC 5321 §4.5.3.1.10: 552 to a further RCPT is an old way to say "too many recipients", which is temporary.
/// It is told from "mailbox full" and "too big" by its enhanced code.
fn is_too_many(reply: &PeerReply, accepted: usize) -> bool {
    let other = ["5.2.", "5.3."].iter().any(|code| reply.text.starts_with(code));
    reply.code == 552 && accepted > 0 && !other
}

impl Transaction {
    pub(super) fn new(tag: u64, recipients: usize) -> Self {
        Self {
            tag,
            awaited: 0,
            is_open: true,
            accepted: 0,
            answered: 0,
            mail_refused: None,
            recipients,
            refused: BTreeMap::new(),
            content: None,
            content_begun: None,
            content_end: None,
            is_withdrawn: false,
        }
    }

    pub(super) fn mail_reply(&mut self, reply: &PeerReply) {
        if reply.class() != 2 {
            self.mail_refused = Some(refusal(reply));
        }
    }

    pub(super) fn rcpt_reply(&mut self, recipient: usize, reply: &PeerReply) {
        self.answered += 1;
        if reply.class() == 2 {
            self.accepted += 1;
        } else {
            let is_too_many = is_too_many(reply, self.accepted);
            let outcome = if is_too_many { Outcome::Later(reply.said()) } else { refusal(reply) };
            self.refused.insert(recipient, outcome);
        }
    }

    /// A reply to DATA other than 354, to a chunk, or to the end of the data. The first refusal stands.
    pub(super) fn content_reply(&mut self, reply: &PeerReply, is_final: bool) {
        if reply.class() != 2 {
            self.content.get_or_insert_with(|| refusal(reply));
        } else if is_final {
            self.content.get_or_insert_with(|| Outcome::Delivered(reply.said()));
        }
    }

    /// Whether MAIL was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.mail_refused.is_some()
    }

    /// Whether at least one recipient waits for the content.
    pub(super) fn has_takers(&self) -> bool {
        self.mail_refused.is_none() && self.accepted > 0
    }

    /// Whether more content would be in vain.
    pub(super) fn is_hopeless(&self) -> bool {
        let nobody = self.answered == self.recipients && self.accepted == 0;
        self.mail_refused.is_some() || self.content.is_some() || nobody
    }

    /// Whether its last reply has come.
    pub(super) fn is_finished(&self) -> bool {
        self.awaited == 0 && !self.is_open
    }

    /// Whether the server has surely forgotten it: the end of the data clears it whatever the reply
    /// (RFC 5321 §4.1.1.4), a refused MAIL never made it. After BDAT only a success is that sure (RFC 3030 §2).
    pub(super) fn is_cleared(&self, by_chunks: bool) -> bool {
        let delivered = matches!(self.content, Some(Outcome::Delivered(_)));
        self.mail_refused.is_some() || delivered || (self.content_end.is_some() && !by_chunks)
    }

    fn said(&self, recipient: usize) -> Option<Outcome> {
        self.mail_refused.as_ref().or_else(|| self.refused.get(&recipient)).cloned()
    }

    /// Its orderly end.
    pub(super) fn finish(self, out: &mut Vec<Action>) {
        for recipient in 0..self.recipients {
            let fate = match self.said(recipient).or_else(|| self.content.clone()) {
                Some(outcome) if !self.is_withdrawn => Fate::Said(outcome),
                _ => Fate::Untouched,
            };
            out.push(Action::Fate { tag: self.tag, recipient, fate });
        }
        out.push(Action::Finished(self.tag));
    }

    /// The wire is gone after `left` octets. `in_order`: the peer said that it closes, so nothing that it did
    /// not answer was taken.
    pub(super) fn cut(self, left: u64, in_order: bool, out: &mut Vec<Action>) {
        let has_ended = self.content_end.is_some_and(|end| end <= left);
        let has_begun = self.content_begun.is_some_and(|begun| begun < left);
        for recipient in 0..self.recipients {
            let fate = match self.said(recipient).or_else(|| self.content.clone()) {
                _ if in_order => Fate::Untouched,
                Some(outcome) if has_ended => Fate::Said(outcome),
                None if has_ended => Fate::InDoubt,
                _ if has_begun => Fate::Interrupted,
                _ => Fate::Untouched,
            };
            out.push(Action::Fate { tag: self.tag, recipient, fate });
        }
        out.push(Action::Finished(self.tag));
    }
}
