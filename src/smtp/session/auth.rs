//! AUTH: the frame of a SASL exchange.
//!
//! Called by the dispatch for AUTH and by the session for the lines that follow it. The mechanisms compute, the
//! provider decides; here are base64, cancelling, limits and replies. Nothing of a failed exchange is kept
//! (CVE-2011-1720).
//!
//! Keeps RFC 4954 §4, §6, §9; RFC 2645 §5.1.2. Deviation: without TLS, where the operator demands it, AUTH is
//! refused with 530 as RFC 3207 §4 has it; 538 is left to PLAIN.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::phase::{Hello, Login, Next, Parked, Phase};
use super::talk::Talk;
use crate::mail::{Account, Credential, Fact};
use crate::smtp::inbox::Line;
use crate::smtp::refusal::Refusal;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::{CredentialWanted, Mechanism, Move};
use crate::smtp::{Door, LoginRequest, Question};

/// Longest line of an exchange, in octets; RFC 4954 §4 names 12288 as enough for any mechanism.
const LINE_BYTES_MAX: usize = 12_288;

/// AUTH.
pub(super) fn auth(argument: &str, phase: Phase, talk: &mut Talk<'_>) -> Next {
    let Phase::Idle(hello) = phase else { return talk.refuse(Refusal::BadSequence, phase) };
    match check(argument, talk) {
        Ok((mechanism, None)) => {
            let begun = mechanism.begin(&talk.common.terms, talk.common.tls.as_ref());
            go(hello, mechanism, begun, talk)
        }
        Ok((mechanism, Some(response))) => {
            match mechanism.begin(&talk.common.terms, talk.common.tls.as_ref()) {
                Move::Challenge(_, exchange) => {
                    go(hello, mechanism, exchange.respond(&response), talk)
                }
                _ => talk.refuse(Refusal::NoInitialResponse, Phase::Idle(hello)),
            }
        }
        Err(refusal) => talk.refuse(refusal, Phase::Idle(hello)),
    }
}

/// What a client said, decoded: it may be a password.
type Response = Zeroizing<Vec<u8>>;

/// The mechanism, and the initial response if there is one.
fn check(argument: &str, talk: &Talk<'_>) -> Result<(Mechanism, Option<Response>), Refusal> {
    let mut words = argument.split(' ');
    let (name, response) = (words.next().unwrap_or_default(), words.next());
    if words.next().is_some() || name.is_empty() {
        return Err(Refusal::Syntax);
    }
    let common = &talk.common;
    if common.door == Door::Mx && common.tls.is_none() {
        // Customers log in here for ETRN only, and never in clear text.
        return Err(Refusal::TlsFirst);
    }
    if common.terms.auth_requires_tls && common.tls.is_none() {
        return Err(Refusal::TlsFirst);
    }
    let mechanism = Mechanism::find(name).ok_or(Refusal::UnknownMechanism)?;
    let is_allowed = common.terms.mechanisms.contains(&mechanism.name());
    if is_allowed && mechanism == Mechanism::Plain && common.tls.is_none() {
        return Err(Refusal::MechanismNeedsTls);
    }
    if !Mechanism::offered(&common.terms, common.tls.as_ref()).contains(&mechanism) {
        return Err(Refusal::UnknownMechanism);
    }
    match response {
        None => Ok((mechanism, None)),
        Some(_) if !mechanism.is_client_first() => Err(Refusal::NoInitialResponse),
        Some("=") => Ok((mechanism, Some(Zeroizing::default()))),
        Some(text) => Ok((mechanism, Some(decode(text.as_bytes())?))),
    }
}

/// Base64, strictly: nothing foreign, no missing padding (RFC 4954 §4).
fn decode(text: &[u8]) -> Result<Response, Refusal> {
    BASE64.decode(text).map(Zeroizing::new).map_err(|_| Refusal::Base64)
}

/// Takes the client's next line; gives the phase back if there is none yet.
pub(super) fn take(login: Box<Login>, talk: &mut Talk<'_>) -> Result<Next, Box<Login>> {
    let line = match talk.common.inbox.line(LINE_BYTES_MAX) {
        Line::None => return Err(login),
        Line::TooLong => {
            return Ok(talk.refuse(Refusal::AuthLineTooLong, Phase::Idle(login.hello)));
        }
        Line::Whole(line) => Zeroizing::new(line),
    };
    let Login { hello, mechanism, exchange } = *login;
    if line.as_slice() == b"*" {
        return Ok(talk.refuse(Refusal::LoginCancelled, Phase::Idle(hello)));
    }
    Ok(match decode(&line) {
        Ok(response) => go(hello, mechanism, exchange.respond(&response), talk),
        Err(refusal) => talk.refuse(refusal, Phase::Idle(hello)),
    })
}

/// Does what the mechanism wants next.
pub(super) fn go(hello: Hello, mechanism: Mechanism, step: Move, talk: &mut Talk<'_>) -> Next {
    match step {
        Move::Challenge(octets, exchange) => {
            talk.say(&Reply::bare(334, vec![BASE64.encode(octets)]));
            Next::Go(Phase::Login(Box::new(Login { hello, mechanism, exchange })))
        }
        Move::AskNonce(wanted) => {
            Next::park(Parked::Nonce(hello, mechanism, wanted), Question::Nonce, talk)
        }
        Move::AskCredential(wanted) => {
            let question = Question::Credential(wanted.name().to_owned());
            Next::park(Parked::Credential(hello, mechanism, wanted), question, talk)
        }
        Move::Verdict(verdict) => {
            let request = LoginRequest {
                name: verdict.name.clone(),
                authzid: verdict.authzid,
                mechanism: mechanism.name(),
                proof: verdict.proof,
            };
            let parked = Parked::Login(hello, mechanism, verdict.name);
            Next::park(parked, Question::Login(request), talk)
        }
    }
}

/// The provider has looked the login up, or could not.
pub(super) fn credential(
    hello: Hello,
    mechanism: Mechanism,
    wanted: CredentialWanted,
    answer: Result<Box<Credential>, Refusal>,
    talk: &mut Talk<'_>,
) -> Next {
    match answer {
        Ok(credential) => go(hello, mechanism, wanted.answer(&credential), talk),
        Err(refusal) => talk.refuse(refusal, Phase::Idle(hello)),
    }
}

/// The provider has decided on the login.
pub(super) fn judged(
    hello: Hello,
    mechanism: Mechanism,
    name: String,
    outcome: Result<Box<Account>, Refusal>,
    talk: &mut Talk<'_>,
) -> Next {
    let mechanism = mechanism.name();
    match outcome {
        Ok(account) => {
            talk.line(235, (2, 7, 0), "Authentication successful");
            talk.note(Fact::LoggedIn { login: account.login.to_string(), mechanism });
            Next::Go(Phase::Authenticated(hello, account))
        }
        Err(refusal) => {
            if refusal != Refusal::LoginTrouble {
                talk.note(Fact::LoginFailed { login: clean(&name), mechanism });
            }
            if refusal == Refusal::LoginFailed {
                return talk.refuse_login(refusal, Phase::Idle(hello));
            }
            talk.refuse(refusal, Phase::Idle(hello))
        }
    }
}

/// A name that somebody tried, fit for the log.
fn clean(name: &str) -> String {
    crate::mail::ReplyText::clean(name).as_str().to_owned()
}
