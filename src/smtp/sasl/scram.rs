//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side (RFC 5802, RFC 7677; binding by RFC 9266).
//!
//! Called by the exchange. It never sees the password; proof and stored key are compared in constant time.
//!
//! Deviation: SCRAM-SHA-1, which RFC 5802 §4 asks every implementation to have, is left out: no customer has
//! stored verifiers from before.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::credential::hmac_sha256;
use super::{CredentialWanted, Exchange, Move, NonceWanted, Verdict, Waiting, prepared};
use crate::mail::ScramVerifier;

/// Longest nonce of a client that is taken, in octets.
const NONCE_BYTES_MAX: usize = 512;

/// What the mechanism that was chosen says about channel binding.
#[derive(Clone, Copy, Debug)]
pub(super) enum Binding {
    /// SCRAM-SHA-256.
    None {
        /// The client could have had SCRAM-SHA-256-PLUS.
        plus_is_offered: bool,
    },
    /// SCRAM-SHA-256-PLUS, with the value of this connection.
    Exporter([u8; 32]),
}

/// client-first-message, understood.
#[derive(Debug)]
pub struct Opened {
    /// What `c=` must be: the GS2 header and the binding.
    bound: Vec<u8>,
    name: String,
    authzid: Option<String>,
    first_bare: String,
    client_nonce: String,
}

/// The nonce is whole; salt and iterations are missing.
#[derive(Debug)]
pub struct Salted {
    opened: Opened,
    nonce: String,
}

/// server-first-message is out.
#[derive(Debug)]
pub(super) struct Challenged {
    salted: Salted,
    server_first: String,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

/// The proof was right and server-final-message is out, in a challenge of its own, since SMTP has no place for it
/// in the success reply (RFC 4954 §4).
#[derive(Debug)]
pub(super) struct Signed {
    name: String,
    authzid: Option<String>,
}

/// Reads client-first-message.
pub(super) fn first(binding: Binding, message: &[u8]) -> Move {
    match std::str::from_utf8(message).ok().and_then(|text| open(binding, text)) {
        Some(opened) => Move::AskNonce(NonceWanted::Scram(opened)),
        None => Verdict::wrong(""),
    }
}

fn open(binding: Binding, message: &str) -> Option<Opened> {
    let (flag, rest) = message.split_once(',')?;
    let (authzid, first_bare) = rest.split_once(',')?;
    let header = &message[..message.len() - first_bare.len()];
    let mut bound = header.as_bytes().to_vec();
    match (binding, flag) {
        (Binding::None { .. }, "n") | (Binding::None { plus_is_offered: false }, "y") => {}
        (Binding::Exporter(exporter), "p=tls-exporter") => bound.extend_from_slice(&exporter),
        // Also `y` while PLUS is offered: somebody took it out of the list on the way (RFC 5802 §6).
        _ => return None,
    }
    let authzid = match authzid.strip_prefix("a=") {
        Some(name) => Some(prepared(&unescape(name)?)?),
        None if authzid.is_empty() => None,
        None => return None,
    };
    let mut attributes = first_bare.split(',');
    let name = prepared(&unescape(attributes.next()?.strip_prefix("n=")?)?)?;
    let client_nonce = attributes.next()?.strip_prefix("r=")?;
    let sound = client_nonce.bytes().all(|b| b.is_ascii_graphic())
        && (1..=NONCE_BYTES_MAX).contains(&client_nonce.len())
        && attributes.all(is_optional);
    sound.then(|| Opened {
        bound,
        name,
        authzid,
        first_bare: first_bare.to_owned(),
        client_nonce: client_nonce.to_owned(),
    })
}

/// Whether this attribute may be ignored: well-formed, and not the mandatory `m`.
fn is_optional(attribute: &str) -> bool {
    let bytes = attribute.as_bytes();
    bytes.len() > 2 && bytes[0].is_ascii_alphabetic() && bytes[0] != b'm' && bytes[1] == b'='
}

/// `=2C` and `=3D` of saslname; any other `=` is a fault.
fn unescape(name: &str) -> Option<String> {
    let mut pieces = name.split('=');
    let mut plain = pieces.next()?.to_owned();
    for piece in pieces {
        let (c, rest) = match piece.get(..2)? {
            "2C" => (',', &piece[2..]),
            "3D" => ('=', &piece[2..]),
            _ => return None,
        };
        plain.push(c);
        plain.push_str(rest);
    }
    Some(plain)
}

impl Opened {
    pub(super) fn nonce(self, chance: [u8; 32]) -> Move {
        let nonce = format!("{}{}", self.client_nonce, BASE64.encode(&chance[..24]));
        Move::AskCredential(CredentialWanted::Scram(Salted { opened: self, nonce }))
    }
}

impl Salted {
    pub(super) fn name(&self) -> &str {
        &self.opened.name
    }

    pub(super) fn credential(self, verifier: &ScramVerifier) -> Move {
        let salt = BASE64.encode(&verifier.salt);
        let server_first = format!("r={},s={salt},i={}", self.nonce, verifier.iterations);
        let challenge = server_first.clone().into_bytes();
        let state = Challenged {
            salted: self,
            server_first,
            stored_key: verifier.stored_key,
            server_key: verifier.server_key,
        };
        Move::Challenge(challenge, Exchange(Waiting::ScramFinal(state)))
    }
}

impl Challenged {
    /// Reads client-final-message.
    pub(super) fn respond(self, message: &[u8]) -> Move {
        let Opened { name, authzid, .. } = &self.salted.opened;
        match std::str::from_utf8(message).ok().and_then(|text| self.signature(text)) {
            Some(signature) => {
                let state = Signed { name: name.clone(), authzid: authzid.clone() };
                let challenge = format!("v={}", BASE64.encode(signature)).into_bytes();
                Move::Challenge(challenge, Exchange(Waiting::ScramSigned(state)))
            }
            None => Verdict::wrong(name),
        }
    }

    /// The server's signature, if the client's proof is right.
    fn signature(&self, message: &str) -> Option<[u8; 32]> {
        let (unproven, proof) = message.rsplit_once(",p=")?;
        let proof: [u8; 32] = BASE64.decode(proof).ok()?.try_into().ok()?;
        let mut attributes = unproven.split(',');
        let bound = BASE64.decode(attributes.next()?.strip_prefix("c=")?).ok()?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let in_order = bound == self.salted.opened.bound
            && nonce == self.salted.nonce
            && attributes.all(is_optional);
        let first_bare = self.salted.opened.first_bare.as_str();
        let whole = [first_bare, ",", &self.server_first, ",", unproven];
        let client_signature = hmac_sha256(&self.stored_key, &whole);
        let mut client_key = proof;
        for (octet, signed) in client_key.iter_mut().zip(client_signature) {
            *octet ^= signed;
        }
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        let is_right = bool::from(stored_key.ct_eq(&self.stored_key));
        (is_right && in_order).then(|| hmac_sha256(&self.server_key, &whole))
    }
}

impl Signed {
    /// The client has nothing more to say.
    pub(super) fn respond(self, message: &[u8]) -> Move {
        if message.is_empty() {
            Verdict::proven(&self.name, self.authzid)
        } else {
            Verdict::wrong(&self.name)
        }
    }
}

/// Enters the exchange with a nonce that was chosen elsewhere: the examples of RFC 7677.
#[cfg(test)]
pub(super) fn example(opened: Opened, nonce: &str) -> Salted {
    Salted { opened, nonce: nonce.to_owned() }
}
