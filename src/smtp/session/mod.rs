//! The provider as server: intake at the MX door, RFC 2645's initial and authenticated states at the ODMR door.
//!
//! Called by the shell, which carries out the actions and brings octets and answers; or driven by hand. A session
//! is used up by each step and comes back only with [`Step::Stay`]. It waits for nothing and remembers no more than
//! its phase needs; a message is never whole in it.
//!
//! Keeps RFC 5321 §3, §4.1, §4.3; RFC 2645 §5.1, §5.2; RFC 2920 §3.2 (answers in order, no input lost), RFC 3207 §4.

mod auth;
mod chunk;
mod content;
mod dispatch;
mod etrn;
mod hello;
mod phase;
mod talk;
mod transaction;
mod turn;

use std::sync::Arc;

pub use turn::Reversal;

use self::phase::{Next, Parked, Phase};
use self::talk::{Common, Talk};
use super::refusal::Refusal;
use super::reply::Reply;
use super::{Action, Answer, Door, Input, Terms};
use crate::mail::{Seconds, TlsFacts};

/// How long we wait for a command (RFC 5321 §4.5.3.2.7).
pub const COMMAND_SECONDS_MAX: Seconds = Seconds(300);

/// How long we wait for the next octets of content (RFC 5321 §4.5.3.2.5).
pub const BLOCK_SECONDS_MAX: Seconds = Seconds(180);

/// Octets that are kept while a question is open; then the shell must not read on.
const PARKED_BYTES_MAX: usize = 64 * 1024;

/// A session between two steps.
#[derive(Debug)]
#[must_use = "a dropped session drops the connection"]
pub struct Session {
    common: Common,
    phase: Phase,
}

/// Where a step led to.
#[derive(Debug)]
#[must_use = "a dropped step drops the connection"]
pub enum Step {
    /// Same roles, same wire.
    Stay(Session),
    /// Become TLS before reading on; the 220 is among the actions.
    Upgrade(Upgrade),
    /// The roles reversed (RFC 2645 §5.3); the 250 is among the actions.
    Reverse(Reversal),
    /// Carry out the actions, then close.
    Close,
}

/// A session that waits for TLS. Nothing that was said before is left in it (RFC 3207 §4.2).
#[derive(Debug)]
#[must_use = "a dropped upgrade drops the connection"]
pub struct Upgrade {
    common: Common,
}

impl Upgrade {
    /// The handshake succeeded. There is no second greeting; the client begins with EHLO.
    pub fn secured(self, tls: TlsFacts, out: &mut Vec<Action>) -> Session {
        let _ = out;
        Session { common: self.common.secured(tls), phase: Phase::Fresh }
    }
}

impl Session {
    /// A connection came in through `door`; with `tls` if it is encrypted from the first octet on. Writes the
    /// greeting.
    pub fn open(
        door: Door,
        terms: Arc<Terms>,
        tls: Option<TlsFacts>,
        out: &mut Vec<Action>,
    ) -> Self {
        let service = match door {
            Door::Mx => "ESMTP Restante",
            Door::Odmr => "ESMTP Restante ODMR",
        };
        let greeting = format!("{} {service}", terms.hostname);
        let mut common = Common::new(door, terms, tls);
        Talk { common: &mut common, out }.say(&Reply::bare(220, vec![greeting]));
        Self { common, phase: Phase::Fresh }
    }

    /// Takes one input and goes as far as it leads. `out` receives what is to be done, in this order; actions that
    /// come with the last step still have to be carried out.
    ///
    /// An [`Input::Answer`] that was not asked for ends the session with 421: it is the shell's mistake.
    pub fn advance(self, input: Input<'_>, out: &mut Vec<Action>) -> Step {
        let Self { mut common, phase } = self;
        let mut talk = Talk { common: &mut common, out };
        let next = take(phase, input, &mut talk);
        let next = run(next, &mut talk);
        match next {
            Next::Go(phase) => Step::Stay(Self { common, phase }),
            Next::Upgrade => Step::Upgrade(Upgrade { common }),
            Next::Reverse(lease) => Step::Reverse(Reversal::new(lease, common.tls)),
            Next::Close => Step::Close,
        }
    }

    /// How long the shell waits for octets before it brings [`Input::Expired`]; `None` while a question is open:
    /// then we are the ones who are awaited. The clock starts anew when [`Session::round`] changes, and not with
    /// each octet of a command.
    #[must_use]
    pub fn patience(&self) -> Option<Seconds> {
        match self.phase {
            Phase::Parked(_) => None,
            Phase::Data(_) | Phase::Chunk(_) => Some(BLOCK_SECONDS_MAX),
            _ => Some(COMMAND_SECONDS_MAX),
        }
    }

    /// Whether content is what the session waits for: it has to come at some pace.
    #[must_use]
    pub fn is_taking_content(&self) -> bool {
        matches!(self.phase, Phase::Data(_) | Phase::Chunk(_))
    }

    /// Changes whenever the clock of [`Session::patience`] starts anew: with each reply, each answered question
    /// and each piece of content.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.common.round
    }

    /// Whether the shell may read on. While a question is open it may, up to a limit, so that it notices a peer
    /// that is gone; the octets are kept and not interpreted.
    #[must_use]
    pub fn may_read(&self) -> bool {
        !self.is_parked() || self.common.inbox.waiting().len() < PARKED_BYTES_MAX
    }

    /// Whether a question is open.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        matches!(self.phase, Phase::Parked(_))
    }
}

/// Brings an input into the phase.
fn take(phase: Phase, input: Input<'_>, talk: &mut Talk<'_>) -> Next {
    match input {
        Input::Bytes(octets) => {
            talk.common.inbox.push(octets);
            if matches!(phase, Phase::Data(_) | Phase::Chunk(_)) {
                talk.common.round += 1;
            }
            Next::Go(phase)
        }
        Input::Answer(answer) => {
            talk.common.round += 1;
            match phase {
                Phase::Parked(parked) => answered(*parked, answer, talk),
                _ => unexpected(answer, talk),
            }
        }
        // Nobody expects anything of the peer while a question is open.
        Input::Expired if matches!(phase, Phase::Parked(_)) => Next::Go(phase),
        Input::Expired => talk.end(Refusal::Idle, &phase),
        Input::ShuttingDown => {
            talk.common.is_stopping = true;
            Next::Go(phase)
        }
        Input::Ended => {
            if phase.has_body() {
                talk.out.push(Action::Discard);
            }
            Next::Close
        }
    }
}

/// Goes on until more octets or an answer are needed.
fn run(mut next: Next, talk: &mut Talk<'_>) -> Next {
    loop {
        let phase = match next {
            Next::Go(phase) => phase,
            end => return end,
        };
        let is_at_rest = !matches!(phase, Phase::Data(_) | Phase::Chunk(_) | Phase::Parked(_));
        if talk.common.is_stopping && is_at_rest {
            return talk.end(Refusal::ShuttingDown, &phase);
        }
        next = match phase {
            Phase::Parked(_) => return Next::Go(phase),
            Phase::Data(data) => match content::take(data, talk) {
                Ok(next) => next,
                Err(data) => return Next::Go(Phase::Data(data)),
            },
            Phase::Chunk(chunk) => match chunk::take(chunk, talk) {
                Ok(next) => next,
                Err(chunk) => return Next::Go(Phase::Chunk(chunk)),
            },
            Phase::Login(login) => match auth::take(login, talk) {
                Ok(next) => next,
                Err(login) => return Next::Go(Phase::Login(login)),
            },
            phase => match dispatch::take(phase, talk) {
                Ok(next) => next,
                Err(phase) => return Next::Go(phase),
            },
        };
    }
}

/// Brings an answer to the question that is open.
fn answered(parked: Parked, answer: Answer, talk: &mut Talk<'_>) -> Next {
    match (parked, answer) {
        (Parked::Mail(transaction), Answer::Verdict(verdict)) => {
            transaction::mail_judged(transaction, verdict, talk)
        }
        (Parked::Recipient(transaction, recipient), Answer::Verdict(verdict)) => {
            transaction::rcpt_judged(transaction, recipient, verdict, talk)
        }
        (Parked::Data(transaction), Answer::Verdict(verdict)) => {
            content::opened(transaction, verdict, talk)
        }
        (Parked::Chunk(transaction, size, is_last), Answer::Verdict(verdict)) => {
            chunk::opened(transaction, size, is_last, verdict, talk)
        }
        (Parked::Commit(finished), Answer::Committed(outcome)) => {
            content::committed(finished, outcome, talk)
        }
        (Parked::Nonce(hello, mechanism, wanted), Answer::Nonce(nonce)) => {
            auth::go(hello, mechanism, wanted.answer(nonce), talk)
        }
        (Parked::Credential(hello, mechanism, wanted), Answer::Credential(credential)) => {
            auth::credential(hello, mechanism, wanted, credential, talk)
        }
        (Parked::Login(hello, mechanism, name), Answer::Login(outcome)) => {
            auth::judged(hello, mechanism, name, outcome, talk)
        }
        (Parked::Turn(hello, account), Answer::Turn(outcome)) => {
            turn::judged(hello, account, outcome, talk)
        }
        (Parked::Etrn(hello, account, node), Answer::Etrn(outcome)) => {
            etrn::judged(hello, account, &node, outcome, talk)
        }
        (_, answer) => unexpected(answer, talk),
    }
}

/// An answer to another question: a mistake of the shell. Nothing may be left behind.
fn unexpected(answer: Answer, talk: &mut Talk<'_>) -> Next {
    if let Answer::Turn(Ok((lease, _))) = answer {
        talk.out.push(Action::Release(lease));
    }
    talk.out.push(Action::Discard);
    talk.say(&Refusal::Internal.reply());
    Next::Close
}

#[cfg(test)]
mod tests;
