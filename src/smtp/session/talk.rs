//! What a session has in every phase, and its voice: replies, refusals, facts.
//!
//! Used by all files of `session`. It counts what was refused and ends the session when the budget is used up. It
//! knows no verb's meaning.
//!
//! Keeps RFC 5321 §3.8 (421 before we close), §7.8 (a limit for abuse), RFC 4954 §9 (three tries at least).

use std::sync::Arc;

use super::phase::{Next, Phase};
use crate::mail::{Fact, TlsFacts};
use crate::smtp::inbox::Inbox;
use crate::smtp::refusal::Refusal;
use crate::smtp::reply::{EnhancedCode, Reply};
use crate::smtp::verbs::Verb;
use crate::smtp::{Action, Door, Question, Terms};

/// Failed logins that a session has at least (RFC 4954 §9).
const AUTH_FAILURES_FLOOR: u32 = 3;

/// What a session has in every phase.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) door: Door,
    pub(super) terms: Arc<Terms>,
    pub(super) tls: Option<TlsFacts>,
    pub(super) inbox: Inbox,
    /// Commands refused with 5yz since the last message that was taken.
    errors: u32,
    auth_failures: u32,
    /// Departures that were noted already.
    tolerated: Vec<&'static str>,
    /// The provider shuts down: 421 at the next command.
    pub(super) is_stopping: bool,
    /// Grows whenever the clock of the session starts anew.
    pub(super) round: u64,
}

impl Common {
    pub(super) fn new(door: Door, terms: Arc<Terms>, tls: Option<TlsFacts>) -> Self {
        Self {
            door,
            terms,
            tls,
            inbox: Inbox::default(),
            errors: 0,
            auth_failures: 0,
            tolerated: Vec::new(),
            is_stopping: false,
            round: 0,
        }
    }

    /// Whether the operator has switched this verb off: ETRN, and the login that is there for it alone.
    pub(super) fn is_off(&self, verb: Verb) -> bool {
        self.door == Door::Mx && !self.terms.etrn && matches!(verb, Verb::Auth | Verb::Etrn)
    }

    /// TLS is up: nothing that was learnt in clear text remains (RFC 3207 §4.2). What the peer did wrong is not
    /// knowledge that it could have given us, and stays counted.
    pub(super) fn secured(self, tls: TlsFacts) -> Self {
        Self { tls: Some(tls), inbox: Inbox::default(), tolerated: Vec::new(), ..self }
    }
}

/// A session at work: what it has, and where its actions go.
pub(super) struct Talk<'a> {
    pub(super) common: &'a mut Common,
    pub(super) out: &'a mut Vec<Action>,
}

impl Talk<'_> {
    /// Sends a reply, in one piece with replies just before it.
    pub(super) fn say(&mut self, reply: &Reply) {
        let octets = reply.to_bytes();
        match self.out.last_mut() {
            Some(Action::Send(earlier)) => earlier.extend_from_slice(&octets),
            _ => self.out.push(Action::Send(octets)),
        }
        self.common.round += 1;
    }

    /// A message was taken: whoever sends real mail may err again (a list with many dead addresses is no attack).
    pub(super) fn forgive(&mut self) {
        self.common.errors = 0;
    }

    /// `code enhanced text`.
    pub(super) fn line(&mut self, code: u16, enhanced: (u8, u16, u16), text: impl Into<String>) {
        let enhanced = EnhancedCode(enhanced.0, enhanced.1, enhanced.2);
        self.say(&Reply::line(code, enhanced, text));
    }

    /// 250 2.0.0.
    pub(super) fn okay(&mut self, text: impl Into<String>) {
        self.line(250, (2, 0, 0), text);
    }

    /// Refuses a command and goes on with `phase`, or ends the session where that is due.
    pub(super) fn refuse(&mut self, refusal: Refusal, phase: Phase) -> Next {
        let mut refusal = refusal;
        if refusal.is_permanent() {
            self.common.errors += 1;
            if self.common.errors > self.common.terms.errors_max {
                refusal = Refusal::TooManyErrors;
            }
        }
        self.say(&refusal.reply());
        if !refusal.ends_session() {
            return Next::Go(phase);
        }
        if phase.has_body() {
            self.out.push(Action::Discard);
        }
        Next::Close
    }

    /// As [`Talk::refuse`], for a command that costs us something and counts as an error whatever its code.
    pub(super) fn refuse_counted(&mut self, refusal: Refusal, phase: Phase) -> Next {
        if !refusal.is_permanent() {
            self.common.errors += 1;
            if self.common.errors > self.common.terms.errors_max {
                return self.refuse(Refusal::TooManyErrors, phase);
            }
        }
        self.refuse(refusal, phase)
    }

    /// As [`Talk::refuse`], with a line in the log for a command of a transaction.
    pub(super) fn refuse_noted(
        &mut self,
        refusal: Refusal,
        at: &'static str,
        from: Option<String>,
        to: Option<String>,
        phase: Phase,
    ) -> Next {
        self.note(Fact::Refused { at, reply: refusal.reply().summary(), from, to });
        self.refuse(refusal, phase)
    }

    /// A login failed: 535, and 421 behind it when that was the last try.
    pub(super) fn refuse_login(&mut self, refusal: Refusal, phase: Phase) -> Next {
        self.common.auth_failures += 1;
        let tries = self.common.terms.auth_failures_max.max(AUTH_FAILURES_FLOOR);
        if self.common.auth_failures < tries {
            return self.refuse(refusal, phase);
        }
        self.say(&refusal.reply());
        self.say(&Refusal::LoginFailures.reply());
        Next::Close
    }

    /// Ends the session with 421.
    pub(super) fn end(&mut self, refusal: Refusal, phase: &Phase) -> Next {
        if phase.has_body() {
            self.out.push(Action::Discard);
        }
        self.say(&refusal.reply());
        Next::Close
    }

    /// Asks what the protocol cannot decide.
    pub(super) fn ask(&mut self, question: Question) {
        self.out.push(Action::Ask(question));
    }

    /// For the log.
    pub(super) fn note(&mut self, fact: Fact) {
        self.out.push(Action::Note(fact));
    }

    /// A departure from a rule; noted once a session.
    pub(super) fn tolerate(&mut self, what: &'static str) {
        if !self.common.tolerated.contains(&what) {
            self.common.tolerated.push(what);
            self.note(Fact::Tolerated(what));
        }
    }
}
