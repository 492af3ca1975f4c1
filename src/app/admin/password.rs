//! Passwords on their way in, and what is kept of them.
//!
//! A password is either read from its owner or made here, shown once, and forgotten: what is stored is the SCRAM
//! verifier and the two contexts of CRAM-MD5 (RFC 5802 §3, RFC 2195 §2).

use zeroize::Zeroizing;

use super::Refused;
use crate::mail::{Credential, Secret, Timestamp};
use crate::provider::World;

/// Letters and digits that nobody mistakes for one another: no `0 O o`, `1 I l i`.
const ALPHABET: &[u8; 55] = b"abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Characters of a generated password: over 138 bits.
const LENGTH: usize = 24;
/// Rounds of PBKDF2 for new verifiers; RFC 7677 §4 asks for 4096 at least and advises 15000.
const ITERATIONS: u32 = 15_000;
/// Octets of salt.
const SALT_BYTES: usize = 16;

/// A password in transit between command and provider; wiped when dropped, never in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// For the one who must see it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A new one.
    pub(super) fn generate(world: &dyn World) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        let mut chance = Zeroizing::new([0u8; 64]);
        while text.len() < LENGTH {
            world.chance(&mut chance[..]);
            // 220 is the largest multiple of 55 in an octet: above it some letters would come more often.
            let usable = chance.iter().filter(|octet| **octet < 220);
            for octet in usable.take(LENGTH - text.len()) {
                text.push(char::from(ALPHABET[usize::from(*octet) % ALPHABET.len()]));
            }
        }
        Self(text)
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl serde::Serialize for Password {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Password {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// What is kept for `password` under `label`. Computes for some milliseconds on a thread of its own.
pub(super) async fn credential(
    world: &dyn World,
    label: &str,
    password: &Password,
    created: Timestamp,
) -> Result<Credential, Refused> {
    let mut salt = vec![0u8; SALT_BYTES];
    world.chance(&mut salt);
    let secret = Secret::from(password.expose());
    let derived =
        blocking::unblock(move || crate::smtp::sasl::derive(&secret, salt, ITERATIONS)).await;
    let (scram, cram) = derived.map_err(|error| {
        Refused::new(format!("this password cannot be used: {error}"), "choose another")
    })?;
    Ok(Credential { label: label.into(), scram, cram, created })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_no_doubles_and_nothing_to_mistake() {
        let mut letters = ALPHABET.to_vec();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), ALPHABET.len());
        assert!(!ALPHABET.iter().any(|letter| b"0Oo1Ili".contains(letter)));
    }

    #[test]
    fn a_password_does_not_print_itself() {
        assert_eq!(format!("{:?}", Password::new("hunter2".into())), "Password(…)");
    }

    #[test]
    fn generated_passwords_are_long_and_differ() {
        let world = crate::net::clock::RealWorld::default();
        let (one, other) = (Password::generate(&world), Password::generate(&world));
        assert_eq!(one.expose().len(), LENGTH);
        assert_ne!(one, other);
    }
}
