//! CRAM-MD5: a challenge, and a digest over it with the password as key (RFC 2195).
//!
//! Called by the exchange. It computes with the two stored contexts and never sees the password.

use subtle::ConstantTimeEq;

use super::credential::cram_digest;
use super::{CredentialWanted, Exchange, Move, NonceWanted, Verdict, Waiting, prepared};
use crate::mail::CramContexts;

/// Begun: the challenge needs chance.
#[derive(Debug)]
pub struct Begun {
    hostname: String,
}

/// The challenge is out.
#[derive(Debug)]
pub(super) struct Challenged {
    challenge: String,
}

/// The response is in; it must be held against what is stored.
#[derive(Debug)]
pub struct Answered {
    challenge: String,
    name: String,
    digest: String,
}

pub(super) fn begin(hostname: &str) -> NonceWanted {
    NonceWanted::CramMd5(Begun { hostname: hostname.to_owned() })
}

impl Begun {
    /// A challenge in the form of a msg-id, with 192 unpredictable bits.
    pub(super) fn nonce(self, nonce: [u8; 32]) -> Move {
        let hex = |octets: &[u8]| -> String { octets.iter().map(|o| format!("{o:02x}")).collect() };
        let challenge =
            format!("<{}.{}@{}>", hex(&nonce[..16]), hex(&nonce[16..24]), self.hostname);
        let octets = challenge.clone().into_bytes();
        Move::Challenge(octets, Exchange(Waiting::CramMd5(Challenged { challenge })))
    }
}

impl Challenged {
    /// `name SP digest`; the name may hold spaces.
    pub(super) fn respond(self, response: &[u8]) -> Move {
        let text = std::str::from_utf8(response).ok();
        let Some((name, digest)) = text.and_then(|text| text.rsplit_once(' ')) else {
            return Verdict::wrong("");
        };
        let Some(name) = prepared(name) else { return Verdict::wrong("") };
        let digest = digest.to_owned();
        let challenge = self.challenge;
        Move::AskCredential(CredentialWanted::CramMd5(Answered { challenge, name, digest }))
    }
}

impl Answered {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn credential(self, contexts: &CramContexts) -> Move {
        let right = cram_digest(contexts, self.challenge.as_bytes());
        if right.as_bytes().ct_eq(self.digest.as_bytes()).into() {
            Verdict::proven(&self.name, None)
        } else {
            Verdict::wrong(&self.name)
        }
    }
}
