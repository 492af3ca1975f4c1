//! SCRAM-SHA-256 and its -PLUS form, the customer's half (RFC 5802, RFC 7677, RFC 9266).
//!
//! Called by the exchange. The password never leaves; the server must prove that it knows the verifier before its
//! 235 counts. Neither a short nor an endless key derivation can be forced on us.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{LoginFault, prepared};
use crate::mail::Secret;

/// RFC 7677 §4 wants at least 4096 iterations; more than a million would stall us for the server's pleasure.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;

/// What the exchange is tied to.
pub(super) enum Binding {
    /// The TLS connection itself (RFC 9266).
    Exporter([u8; 32]),
    /// Nothing, though we could: the server does not offer it.
    NotOffered,
    /// Nothing.
    Unused,
}

impl Binding {
    fn header(&self) -> &'static str {
        match self {
            Self::Exporter(_) => "p=tls-exporter,,",
            Self::NotOffered => "y,,",
            Self::Unused => "n,,",
        }
    }

    fn input(&self) -> String {
        let mut input = self.header().as_bytes().to_vec();
        if let Self::Exporter(data) = self {
            input.extend_from_slice(data);
        }
        BASE64.encode(input)
    }
}

pub(super) struct Scram {
    binding: Binding,
    bare: String,
    nonce: String,
    password: Zeroizing<String>,
    stage: Stage,
}

enum Stage {
    First,
    Final { expected: [u8; 32] },
    Proven,
    Spoilt,
}

impl Scram {
    pub(super) fn begin(
        login: &str,
        secret: &Secret,
        nonce: &[u8],
        binding: Binding,
    ) -> Result<Self, LoginFault> {
        let name = stringprep::saslprep(login).map_err(|_| LoginFault::Unpreparable)?;
        let name = name.replace('=', "=3D").replace(',', "=2C");
        let nonce = BASE64.encode(nonce);
        Ok(Self {
            binding,
            bare: format!("n={name},r={nonce}"),
            nonce,
            password: prepared(secret)?,
            stage: Stage::First,
        })
    }

    pub(super) fn initial(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(format!("{}{}", self.binding.header(), self.bare).into_bytes())
    }

    pub(super) fn respond(&mut self, challenge: &[u8]) -> Result<Zeroizing<Vec<u8>>, LoginFault> {
        let text = std::str::from_utf8(challenge).map_err(|_| LoginFault::Garbled)?;
        match std::mem::replace(&mut self.stage, Stage::Spoilt) {
            Stage::First => self.prove(text),
            Stage::Final { expected } => {
                let proof = text.split(',').next().and_then(|part| part.strip_prefix("v="));
                let proof = proof.and_then(|text| BASE64.decode(text).ok());
                if !proof.is_some_and(|given| bool::from(given.as_slice().ct_eq(&expected))) {
                    return Err(LoginFault::Unproven);
                }
                self.stage = Stage::Proven;
                Ok(Zeroizing::new(Vec::new()))
            }
            Stage::Proven | Stage::Spoilt => Err(LoginFault::Garbled),
        }
    }

    pub(super) fn is_proven(&self) -> bool {
        matches!(self.stage, Stage::Proven)
    }

    /// Reads the server's first message and makes our final one (RFC 5802 §3).
    fn prove(&mut self, server_first: &str) -> Result<Zeroizing<Vec<u8>>, LoginFault> {
        let mut parts = server_first.split(',');
        let mut part = |name: &str| parts.next().and_then(|part| part.strip_prefix(name));
        let nonce = part("r=").ok_or(LoginFault::Garbled)?;
        let salt = part("s=").and_then(|text| BASE64.decode(text).ok());
        let salt = salt.ok_or(LoginFault::Garbled)?;
        let count: Option<u32> = part("i=").and_then(|text| text.parse().ok());
        let count = count.ok_or(LoginFault::Garbled)?;
        // The server adds its own half to ours; otherwise an old exchange could be replayed (RFC 5802 §5.1).
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) || salt.is_empty() {
            return Err(LoginFault::Garbled);
        }
        if !ITERATIONS.contains(&count) {
            return Err(LoginFault::Iterations(count));
        }
        let mut salted = Zeroizing::new([0u8; 32]);
        pbkdf2::pbkdf2_hmac::<Sha256>(self.password.as_bytes(), &salt, count, salted.as_mut());
        let client_key = Zeroizing::new(keyed(salted.as_ref(), b"Client Key"));
        let stored_key: [u8; 32] = Sha256::digest(client_key.as_ref()).into();
        let without_proof = format!("c={},r={nonce}", self.binding.input());
        let auth_message = format!("{},{server_first},{without_proof}", self.bare);
        let signature = keyed(&stored_key, auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, s)| key ^ s).collect();
        let server_key = Zeroizing::new(keyed(salted.as_ref(), b"Server Key"));
        let expected = keyed(server_key.as_ref(), auth_message.as_bytes());
        self.stage = Stage::Final { expected };
        Ok(Zeroizing::new(format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes()))
    }

    /// The same with the nonce itself given, for the vector of RFC 7677 §3.
    #[cfg(test)]
    pub(super) fn with_nonce_text(login: &str, secret: &Secret, nonce: &str) -> Self {
        let mut scram = Self::begin(login, secret, b"", Binding::Unused).expect("preparable");
        nonce.clone_into(&mut scram.nonce);
        scram.bare = format!("n={login},r={nonce}");
        scram
    }
}

fn keyed(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length, so the error cannot occur; an empty digest would prove nothing anyway.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(message);
    mac.finalize().into_bytes().into()
}
