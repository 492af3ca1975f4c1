//! EHLO, HELO, STARTTLS, and the verbs that change nothing: RSET, NOOP, HELP, VRFY, QUIT.
//!
//! Called by the dispatch. None of them asks the provider anything.
//!
//! Keeps RFC 5321 §4.1.1.1, §4.1.1.5 to §4.1.1.10, §3.5.3 (252), RFC 3207 §4.

use super::phase::{Hello, Next, Phase};
use super::talk::Talk;
use crate::smtp::Action;
use crate::smtp::extension;
use crate::smtp::refusal::Refusal;
use crate::smtp::reply::Reply;
use crate::smtp::verbs::VERBS;

/// Longest name in EHLO and HELO, in octets (RFC 5321 §4.5.3.1.2).
const HELLO_BYTES_MAX: usize = 255;

/// EHLO (RFC 5321 §4.1.1.1). In a transaction it works like RSET (§4.1.4); a login stays, since RFC 4954 has no
/// way back from it.
pub(super) fn ehlo(argument: &str, phase: Phase, talk: &mut Talk<'_>) -> Next {
    let hello = match check_name(argument) {
        Ok(name) => Hello { name, is_esmtp: true },
        Err(refusal) => return talk.refuse(refusal, phase),
    };
    let common = &talk.common;
    let mut lines = vec![common.terms.hostname.to_string()];
    lines.extend(extension::offered(common.door, &common.terms, common.tls.as_ref()));
    talk.say(&Reply::bare(250, lines));
    greeted(hello, phase, talk)
}

/// HELO.
pub(super) fn helo(argument: &str, phase: Phase, talk: &mut Talk<'_>) -> Next {
    let hello = match check_name(argument) {
        Ok(name) => Hello { name, is_esmtp: false },
        Err(refusal) => return talk.refuse(refusal, phase),
    };
    let hostname = talk.common.terms.hostname.to_string();
    talk.say(&Reply::bare(250, vec![hostname]));
    greeted(hello, phase, talk)
}

fn greeted(hello: Hello, phase: Phase, talk: &mut Talk<'_>) -> Next {
    forget_body(&phase, talk);
    Next::Go(match phase.reset() {
        Phase::Authenticated(_, account) => Phase::Authenticated(hello, account),
        _ => Phase::Idle(hello),
    })
}

/// One word of printable ASCII. Whether it is the client's own is nobody's business (RFC 5321 §4.1.4), and hosts
/// that call themselves `(null)` have mail to deliver too; the trace line takes what is no name out of it.
fn check_name(argument: &str) -> Result<String, Refusal> {
    let name = argument.trim_matches([' ', '\t']);
    let sound = name.bytes().all(|b| b.is_ascii_graphic());
    if sound && (1..=HELLO_BYTES_MAX).contains(&name.len()) {
        Ok(name.to_owned())
    } else {
        Err(Refusal::Syntax)
    }
}

/// STARTTLS (RFC 3207 §4).
pub(super) fn start_tls(phase: Phase, talk: &mut Talk<'_>) -> Next {
    if talk.common.tls.is_some() {
        return talk.refuse(Refusal::BadSequence, phase);
    }
    if !talk.common.terms.tls_available {
        return talk.refuse(Refusal::NotHere, phase);
    }
    if !talk.common.inbox.is_empty() {
        return talk.refuse(Refusal::BehindStartTls, phase);
    }
    forget_body(&phase, talk);
    talk.line(220, (2, 0, 0), "Ready to start TLS");
    Next::Upgrade
}

/// RSET (RFC 5321 §4.1.1.5).
pub(super) fn rset(phase: Phase, talk: &mut Talk<'_>) -> Next {
    forget_body(&phase, talk);
    talk.okay("Ok");
    Next::Go(phase.reset())
}

/// NOOP, with whatever behind it.
pub(super) fn noop(phase: Phase, talk: &mut Talk<'_>) -> Next {
    talk.okay("Ok");
    Next::Go(phase)
}

/// VRFY: the same for everybody, so that nobody is found out.
pub(super) fn vrfy(phase: Phase, talk: &mut Talk<'_>) -> Next {
    talk.line(252, (2, 0, 0), "Not verified; send mail and see");
    Next::Go(phase)
}

/// HELP: the verbs of this door.
pub(super) fn help(phase: Phase, talk: &mut Talk<'_>) -> Next {
    let door = talk.common.door;
    let words: Vec<_> = VERBS
        .iter()
        .filter(|row| row.doors.contains(&door) && !talk.common.is_off(row.verb))
        .map(|row| row.word)
        .collect();
    talk.line(214, (2, 0, 0), format!("Commands: {}", words.join(" ")));
    Next::Go(phase)
}

/// QUIT.
pub(super) fn quit(phase: &Phase, talk: &mut Talk<'_>) -> Next {
    forget_body(phase, talk);
    talk.line(221, (2, 0, 0), "Goodbye");
    Next::Close
}

/// A transaction ends without its message.
fn forget_body(phase: &Phase, talk: &mut Talk<'_>) {
    if phase.has_body() {
        talk.out.push(Action::Discard);
    }
}
