//! What a provider stores of a password, and how a password is held against it.
//!
//! Called by the administration (a new password), by the account desk (PLAIN) and by the mechanisms. It never keeps
//! a password, and no comparison in it depends on where two values differ.
//!
//! Keeps RFC 5802 §3 and RFC 7677 (SCRAM-SHA-256), RFC 2195 §2 (the two contexts of CRAM-MD5), RFC 4013 (SASLprep).

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use md5::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::mail::{CramContexts, Credential, ScramVerifier, Secret, Timestamp};

/// Rounds of PBKDF2 for new credentials. RFC 7677 §4 asks for 4096 or more; the client computes them too, at each
/// login, so this is no place for hundreds of thousands.
pub const ITERATIONS: u32 = 15_000;

/// Octets of salt in new credentials.
pub const SALT_BYTES: usize = 16;

/// Most octets of a password that are looked at.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Octets of stack that the computing uses at most, generously.
const STACK_BYTES: usize = 32 * 1024;

/// Octets of a block of MD5, in which RFC 2104 pads the key.
const MD5_BLOCK: usize = 64;

/// Why a password cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// Nothing, or nothing left after preparation.
    Empty,
    /// Over [`PASSWORD_BYTES_MAX`] octets.
    TooLong,
    /// Not UTF-8, or with control and other characters that RFC 4013 prohibits.
    Characters,
    /// Fewer than 4096 rounds, or a salt under 16 octets.
    Weak,
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the password is empty",
            Self::TooLong => "the password is longer than 1024 octets",
            Self::Characters => "the password holds control characters or is not UTF-8",
            Self::Weak => "a verifier needs 4096 rounds and 16 octets of salt at least",
        })
    }
}

impl std::error::Error for PasswordError {}

/// What to store for a new password: the verifier of SCRAM-SHA-256 (PLAIN is checked against it as well) and the
/// contexts of CRAM-MD5. Takes some milliseconds of computing: not on the async threads.
///
/// # Errors
/// [`PasswordError`] if this cannot be a password.
pub fn derive(
    password: &Secret,
    salt: Vec<u8>,
    iterations: u32,
) -> Result<(ScramVerifier, CramContexts), PasswordError> {
    if iterations < 4096 || salt.len() < SALT_BYTES {
        return Err(PasswordError::Weak);
    }
    let prepared = prepare(password)?;
    let computed =
        leaving_nothing(|| (scram_keys(&prepared, &salt, iterations), cram_contexts(&prepared)));
    let ((stored_key, server_key), cram) = computed;
    Ok((ScramVerifier { salt, iterations, stored_key, server_key }, cram))
}

/// Whether this is the password. Takes as long for a wrong one as for the right one: not on the async threads.
#[must_use]
pub fn verify_password(password: &Secret, verifier: &ScramVerifier) -> bool {
    // What cannot be a password is computed all the same, so that the time tells nothing.
    let (prepared, sound) = match prepare(password) {
        Ok(prepared) => (prepared, true),
        Err(_) => (Secret::from("-"), false),
    };
    let (stored_key, _) =
        leaving_nothing(|| scram_keys(&prepared, &verifier.salt, verifier.iterations));
    bool::from(stored_key.ct_eq(&verifier.stored_key)) && sound
}

/// A credential that nobody can tell from a real one and nobody can log in with: for a login that does not exist
/// (RFC 4954 §6, RFC 5802 §5.1). The same login always gets the same salt.
#[must_use]
pub fn dummy_credential(server_key: &[u8; 32], login: &str) -> Credential {
    let part = |purpose: &str| -> [u8; 32] { hmac_sha256(server_key, &[purpose, "\0", login]) };
    let half = |purpose: &str| -> [u8; 16] { first_half(part(purpose)) };
    Credential {
        label: "".into(),
        scram: ScramVerifier {
            salt: half("salt").to_vec(),
            iterations: ITERATIONS,
            stored_key: part("stored"),
            server_key: part("server"),
        },
        cram: CramContexts { inner: half("inner"), outer: half("outer") },
        created: Timestamp::default(),
    }
}

/// The digest of RFC 2195 §2 from the stored contexts: HMAC-MD5 of `challenge` in lower-case hex.
#[must_use]
pub fn cram_digest(contexts: &CramContexts, challenge: &[u8]) -> String {
    let inner = resume(&contexts.inner).chain_update(challenge).finalize();
    let digest = resume(&contexts.outer).chain_update(inner).finalize();
    digest.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// HMAC-SHA-256 over the parts in a row.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&str]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of any length")
    };
    for part in parts {
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

/// The password after SASLprep.
fn prepare(password: &Secret) -> Result<Secret, PasswordError> {
    let octets = password.expose();
    if octets.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordError::TooLong);
    }
    let text = std::str::from_utf8(octets).map_err(|_| PasswordError::Characters)?;
    let prepared = stringprep::saslprep(text).map_err(|_| PasswordError::Characters)?;
    if prepared.is_empty() {
        return Err(PasswordError::Empty);
    }
    Ok(Secret::new(prepared.into_owned().into_bytes()))
}

/// Computes, and wipes the part of this thread's stack that was used for it: HMAC pads its key in a place of its
/// own, which nobody else can reach.
fn leaving_nothing<T>(work: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn deeper<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    #[inline(never)]
    fn wipe() {
        let mut stack = [0u8; STACK_BYTES];
        stack.zeroize();
        std::hint::black_box(&stack);
    }
    let outcome = deeper(work);
    wipe();
    outcome
}

/// StoredKey and ServerKey (RFC 5802 §3).
fn scram_keys(password: &Secret, salt: &[u8], iterations: u32) -> ([u8; 32], [u8; 32]) {
    let mut salted = zeroize::Zeroizing::new([0u8; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password.expose(), salt, iterations, salted.as_mut_slice());
    let client_key = zeroize::Zeroizing::new(hmac_sha256(salted.as_slice(), &["Client Key"]));
    let server_key = hmac_sha256(salted.as_slice(), &["Server Key"]);
    (Sha256::digest(client_key.as_slice()).into(), server_key)
}

/// The states of MD5 after `key ^ ipad` and `key ^ opad` (RFC 2104 §2).
fn cram_contexts(password: &Secret) -> CramContexts {
    let mut key = zeroize::Zeroizing::new([0u8; MD5_BLOCK]);
    let octets = password.expose();
    if octets.len() > MD5_BLOCK {
        key[..16].copy_from_slice(&Md5::digest(octets));
    } else {
        key[..octets.len()].copy_from_slice(octets);
    }
    let state = |pad: u8| -> [u8; 16] {
        let mut block = zeroize::Zeroizing::new([pad; MD5_BLOCK]);
        block.iter_mut().zip(key.iter()).for_each(|(octet, own)| *octet ^= own);
        let state = Md5::new_with_prefix(block.as_slice()).serialize();
        let mut chaining = [0u8; 16];
        chaining.copy_from_slice(&state[..16]);
        chaining
    };
    CramContexts { inner: state(0x36), outer: state(0x5c) }
}

/// MD5 after exactly one block that left this chaining value.
fn resume(chaining: &[u8; 16]) -> Md5 {
    let mut state = SerializedState::<Md5>::default();
    state[..16].copy_from_slice(chaining);
    state[16..24].copy_from_slice(&1u64.to_le_bytes());
    let Ok(hasher) = Md5::deserialize(&state) else {
        unreachable!("a state with an empty buffer is always sound")
    };
    hasher
}

fn first_half(whole: [u8; 32]) -> [u8; 16] {
    let mut half = [0u8; 16];
    half.copy_from_slice(&whole[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(password: &str) -> (ScramVerifier, CramContexts) {
        derive(&password.into(), vec![7; 16], 4096).expect("a password")
    }

    // covers: C-03
    #[test]
    fn the_example_of_rfc_2195() {
        let (_, contexts) = stored("tanstaaftanstaaf");
        let challenge = b"<1896.697170952@postoffice.reston.mci.net>";
        assert_eq!(cram_digest(&contexts, challenge), "b913a602c7eda7a495b4e6e7334d3890");
    }

    #[test]
    fn contexts_equal_plain_hmac_for_keys_of_every_length() {
        for length in [1, 16, 63, 64, 65, 80, 200] {
            let password = "x".repeat(length);
            let mut mac = Hmac::<Md5>::new_from_slice(password.as_bytes()).expect("any length");
            mac.update(b"<challenge@mx.provider.example>");
            let plain: String =
                mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
            let (_, contexts) = stored(&password);
            assert_eq!(cram_digest(&contexts, b"<challenge@mx.provider.example>"), plain);
        }
    }

    // covers: SC-03
    #[test]
    fn passwords_are_checked_and_weak_parameters_refused() {
        let (verifier, _) = stored("correct horse");
        assert!(verify_password(&"correct horse".into(), &verifier));
        for wrong in ["correct hors", "correct horse ", "", "Correct horse", "a\0b"] {
            assert!(!verify_password(&wrong.into(), &verifier), "{wrong:?}");
        }
        assert_eq!(derive(&"x".into(), vec![7; 16], 4095), Err(PasswordError::Weak));
        assert_eq!(derive(&"x".into(), vec![7; 8], 4096), Err(PasswordError::Weak));
        assert_eq!(derive(&"".into(), vec![7; 16], 4096), Err(PasswordError::Empty));
        assert_eq!(derive(&"a\nb".into(), vec![7; 16], 4096), Err(PasswordError::Characters));
        let long = Secret::new(vec![b'x'; PASSWORD_BYTES_MAX + 1]);
        assert_eq!(derive(&long, vec![7; 16], 4096), Err(PasswordError::TooLong));
    }

    //
    #[test]
    fn passwords_are_prepared() {
        let (verifier, _) = stored("I\u{ad}X \u{fb01}");
        assert!(verify_password(&"IX fi".into(), &verifier));
    }

    // covers: SC-07
    #[test]
    fn dummies_are_stable_and_differ_by_login() {
        let one = dummy_credential(&[1; 32], "nobody");
        assert_eq!(one, dummy_credential(&[1; 32], "nobody"));
        assert_ne!(one.scram, dummy_credential(&[1; 32], "noone").scram);
        assert_ne!(one.scram, dummy_credential(&[2; 32], "nobody").scram);
        assert_eq!((one.scram.salt.len(), one.scram.iterations), (SALT_BYTES, ITERATIONS));
        assert!(!verify_password(&"nobody".into(), &one.scram));
    }
}
