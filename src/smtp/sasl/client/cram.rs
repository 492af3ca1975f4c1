//! CRAM-MD5, the customer's half: the name and a keyed digest of the server's challenge (RFC 2195).
//!
//! Called by the exchange. The only mechanism that RFC 2645 §5.1.2 demands; it does not prove the server.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use zeroize::Zeroizing;

use super::{LoginFault, prepared};
use crate::mail::Secret;

pub(super) struct Cram {
    login: String,
    secret: Secret,
    answered: bool,
}

impl Cram {
    pub(super) fn new(login: &str, secret: &Secret) -> Result<Self, LoginFault> {
        if login.contains(['\0', '\r', '\n']) {
            return Err(LoginFault::Unpreparable);
        }
        // RFC 2195 knows no preparation; where the password has one, servers that keep a prepared form expect it.
        let secret = match prepared(secret) {
            Ok(prepared) => Secret::from(prepared.as_str()),
            Err(_) => secret.clone(),
        };
        Ok(Self { login: login.to_owned(), secret, answered: false })
    }

    pub(super) fn respond(&mut self, challenge: &[u8]) -> Result<Zeroizing<Vec<u8>>, LoginFault> {
        // A second challenge would be a second digest of the server's choice.
        if self.answered || challenge.is_empty() {
            return Err(LoginFault::Garbled);
        }
        self.answered = true;
        let mut digest = Hmac::<Md5>::new_from_slice(self.secret.expose())
            .map_err(|_| LoginFault::Unpreparable)?;
        digest.update(challenge);
        let mut answer = format!("{} ", self.login);
        for byte in digest.finalize().into_bytes() {
            answer.push_str(&format!("{byte:02x}"));
        }
        Ok(Zeroizing::new(answer.into_bytes()))
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }
}
