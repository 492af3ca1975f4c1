//! PLAIN: name and password as they are (RFC 4616), under TLS only.
//!
//! Called by the exchange; checks the form and leaves the password to the account desk, since holding it against
//! the verifier takes long.

use super::{Move, Verdict, is_own, prepared};
use crate::mail::Secret;
use crate::smtp::Proof;

/// `[authzid] NUL authcid NUL passwd`.
pub(super) fn respond(message: &[u8]) -> Move {
    match read(message) {
        Some(verdict) => Move::Verdict(verdict),
        None => Verdict::wrong(""),
    }
}

fn read(message: &[u8]) -> Option<Verdict> {
    let mut fields = message.split(|octet| *octet == 0);
    let (authzid, name, password) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() || password.is_empty() {
        return None;
    }
    let name = prepared(std::str::from_utf8(name).ok()?)?;
    let authzid = match std::str::from_utf8(authzid).ok()? {
        "" => None,
        text => Some(prepared(text)?),
    };
    let proof = if is_own(authzid.as_deref(), &name) {
        Proof::Password(Secret::new(password.to_vec()))
    } else {
        Proof::Wrong
    };
    Some(Verdict { name, authzid, proof })
}
