//! From a line to what it does: the verb's row says whether it may stand here, then its `check`, then its `proceed`.
//!
//! Called by the session for every line outside a login and outside content.

use super::phase::{Next, Phase};
use super::talk::Talk;
use super::{auth, chunk, content, etrn, hello, transaction, turn};
use crate::smtp::Door;
use crate::smtp::command::{self, Command};
use crate::smtp::inbox::Line;
use crate::smtp::refusal::Refusal;
use crate::smtp::verbs::{self, Verb, When};

/// Takes the next line; gives the phase back if there is none yet.
pub(super) fn take(phase: Phase, talk: &mut Talk<'_>) -> Result<Next, Phase> {
    let limit = match talk.common.door {
        Door::Mx => verbs::LINE_BYTES_MAX,
        Door::Odmr => verbs::ATRN_BYTES_MAX,
    };
    match talk.common.inbox.line(limit) {
        Line::None => Err(phase),
        Line::TooLong => Ok(talk.refuse(Refusal::LineTooLong, phase)),
        Line::Whole(line) => {
            let line = zeroize::Zeroizing::new(line);
            Ok(obey(&line, phase, talk))
        }
    }
}

fn obey(line: &[u8], phase: Phase, talk: &mut Talk<'_>) -> Next {
    let checked = command::read(line, talk.common.door)
        .and_then(|command| match talk.common.is_off(command.row.verb) {
            true => Err(Refusal::NotHere),
            false => Ok(command),
        })
        .and_then(|command| may_stand(command.row.when, &phase).map(|()| command));
    match checked {
        Ok(command) => proceed(command, phase, talk),
        Err(refusal) => talk.refuse(refusal, phase),
    }
}

/// Whether a verb makes sense in this phase (RFC 5321 §4.1.4).
fn may_stand(when: When, phase: &Phase) -> Result<(), Refusal> {
    let has_hello = phase.hello().is_some();
    match when {
        When::Always => Ok(()),
        _ if !has_hello => Err(Refusal::HelloFirst),
        When::AfterHello => Ok(()),
        When::OutsideTransaction if !phase.is_in_transaction() => Ok(()),
        When::InTransaction if phase.is_in_transaction() => Ok(()),
        When::OutsideTransaction | When::InTransaction => Err(Refusal::BadSequence),
    }
}

fn proceed(command: Command<'_>, phase: Phase, talk: &mut Talk<'_>) -> Next {
    let argument = command.argument;
    match command.row.verb {
        Verb::Ehlo => hello::ehlo(argument, phase, talk),
        Verb::Helo => hello::helo(argument, phase, talk),
        Verb::StartTls => hello::start_tls(phase, talk),
        Verb::Auth => auth::auth(argument, phase, talk),
        Verb::Atrn => turn::atrn(argument, phase, talk),
        Verb::Mail => transaction::mail(argument, phase, talk),
        Verb::Rcpt => transaction::rcpt(argument, phase, talk),
        Verb::Data => content::data(phase, talk),
        Verb::Bdat => chunk::bdat(argument, phase, talk),
        Verb::Rset => hello::rset(phase, talk),
        Verb::Vrfy => hello::vrfy(phase, talk),
        Verb::Help => hello::help(phase, talk),
        Verb::Noop => hello::noop(phase, talk),
        Verb::Quit => hello::quit(&phase, talk),
        Verb::Etrn => etrn::etrn(argument, phase, talk),
        Verb::Expn | Verb::Turn | Verb::Send | Verb::Soml | Verb::Saml | Verb::Burl => {
            talk.refuse(Refusal::NotHere, phase)
        }
    }
}
