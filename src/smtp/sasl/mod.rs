//! SASL: how a customer proves who it is (RFC 4422), one file a mechanism.
//!
//! Called by the session, which frames the exchange as RFC 4954 has it, and by the account desk and the
//! administration for what is stored. It never looks anything up: credentials and chance come in as answers.
//!
//! A mechanism is a chain of small states. Each is used up by the answer or the response that it waits for and
//! gives a [`Move`]; a failed exchange leaves nothing behind.

pub mod client;
mod cram_md5;
pub mod credential;
mod external;
mod plain;
mod scram;

pub use credential::{
    ITERATIONS, PasswordError, SALT_BYTES, derive, dummy_credential, verify_password,
};

use super::{Proof, Terms};
use crate::mail::{Credential, Login, TlsFacts};

/// Longest name that is tried, in octets (RFC 4616 §2 asks for 255).
pub const NAME_BYTES_MAX: usize = 255;

/// A mechanism that this program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 7677 with the channel binding of RFC 9266.
    ScramSha256Plus,
    /// RFC 7677.
    ScramSha256,
    /// RFC 4422 appendix A, by the certificate of the TLS layer.
    External,
    /// RFC 2195.
    CramMd5,
    /// RFC 4616; only under TLS.
    Plain,
}

impl Mechanism {
    /// All, strongest first; the names are those of [`super::MECHANISMS`].
    pub const ALL: [Self; 5] =
        [Self::ScramSha256Plus, Self::ScramSha256, Self::External, Self::CramMd5, Self::Plain];

    /// Its registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::External => "EXTERNAL",
            Self::CramMd5 => "CRAM-MD5",
            Self::Plain => "PLAIN",
        }
    }

    /// The mechanism of this name, in any case.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// What can be used on this connection, in the operator's order.
    #[must_use]
    pub fn offered(terms: &Terms, tls: Option<&TlsFacts>) -> Vec<Self> {
        if terms.auth_requires_tls && tls.is_none() {
            return Vec::new();
        }
        let allowed = terms.mechanisms.iter().filter_map(|name| Self::find(name));
        allowed.filter(|mechanism| mechanism.fits(tls)).collect()
    }

    /// Whether the connection has what the mechanism needs.
    fn fits(self, tls: Option<&TlsFacts>) -> bool {
        match self {
            Self::ScramSha256Plus => tls.is_some_and(|tls| tls.exporter.is_some()),
            Self::External => tls.is_some_and(|tls| tls.peer_key.is_some()),
            Self::Plain => tls.is_some(),
            Self::ScramSha256 | Self::CramMd5 => true,
        }
    }

    /// Whether the client speaks first, so that an initial response makes sense (RFC 4954 §4).
    #[must_use]
    pub fn is_client_first(self) -> bool {
        self != Self::CramMd5
    }

    /// Begins an exchange.
    #[must_use]
    pub fn begin(self, terms: &Terms, tls: Option<&TlsFacts>) -> Move {
        let first = |waiting: Waiting| Move::Challenge(Vec::new(), Exchange(waiting));
        match self {
            Self::Plain => first(Waiting::Plain),
            Self::External => first(Waiting::External),
            Self::CramMd5 => Move::AskNonce(cram_md5::begin(terms.hostname.as_str())),
            Self::ScramSha256 => {
                let has_plus = Self::offered(terms, tls).contains(&Self::ScramSha256Plus);
                first(Waiting::ScramFirst(scram::Binding::None { plus_is_offered: has_plus }))
            }
            Self::ScramSha256Plus => {
                let exporter = tls.and_then(|tls| tls.exporter).unwrap_or_default();
                first(Waiting::ScramFirst(scram::Binding::Exporter(exporter)))
            }
        }
    }
}

/// What a mechanism wants next.
#[derive(Debug)]
pub enum Move {
    /// Send this challenge; the response belongs to the exchange.
    Challenge(Vec<u8>, Exchange),
    /// Fetch unpredictable octets.
    AskNonce(NonceWanted),
    /// Fetch what is stored for a login.
    AskCredential(CredentialWanted),
    /// The end.
    Verdict(Verdict),
}

/// How an exchange ended, as far as the mechanism can tell.
#[derive(Debug)]
pub struct Verdict {
    /// The name that was tried, at most [`NAME_BYTES_MAX`] octets; empty if it could not be read, or if EXTERNAL
    /// left it to the certificate.
    pub name: String,
    /// The authorization identity, if one was given.
    pub authzid: Option<String>,
    /// What was proved.
    pub proof: Proof,
}

impl Verdict {
    /// It failed, before or after the name was known.
    fn wrong(name: &str) -> Move {
        Move::Verdict(Self { name: cut(name), authzid: None, proof: Proof::Wrong })
    }

    /// It was proved with the stored credential. A name that is nobody's login can prove nothing, and nobody acts
    /// for somebody else.
    fn proven(name: &str, authzid: Option<String>) -> Move {
        match Login::parse(name) {
            Ok(login) if is_own(authzid.as_deref(), name) => {
                Move::Verdict(Self { name: cut(name), authzid, proof: Proof::Proven(login) })
            }
            _ => Self::wrong(name),
        }
    }
}

/// Whether the authorization identity is the client's own: none, its login, or the customer it is a login of.
/// Customers do not act for each other (RFC 4616 §2).
fn is_own(authzid: Option<&str>, name: &str) -> bool {
    let customer = name.split('/').next();
    authzid.is_none_or(|authzid| authzid == name || Some(authzid) == customer)
}

/// An exchange that waits for a response of the client.
#[derive(Debug)]
#[must_use]
pub struct Exchange(Waiting);

#[derive(Debug)]
enum Waiting {
    Plain,
    External,
    CramMd5(cram_md5::Challenged),
    ScramFirst(scram::Binding),
    ScramFinal(scram::Challenged),
    ScramSigned(scram::Signed),
}

impl Exchange {
    /// Takes the client's response, decoded.
    #[must_use]
    pub fn respond(self, response: &[u8]) -> Move {
        match self.0 {
            Waiting::Plain => plain::respond(response),
            Waiting::External => external::respond(response),
            Waiting::CramMd5(state) => state.respond(response),
            Waiting::ScramFirst(binding) => scram::first(binding, response),
            Waiting::ScramFinal(state) => state.respond(response),
            Waiting::ScramSigned(state) => state.respond(response),
        }
    }
}

/// An exchange that waits for unpredictable octets.
#[derive(Debug)]
pub enum NonceWanted {
    /// For the challenge.
    CramMd5(cram_md5::Begun),
    /// For the server's half of the nonce.
    Scram(scram::Opened),
}

impl NonceWanted {
    /// Here they are.
    #[must_use]
    pub fn answer(self, nonce: [u8; 32]) -> Move {
        match self {
            Self::CramMd5(state) => state.nonce(nonce),
            Self::Scram(state) => state.nonce(nonce),
        }
    }
}

/// An exchange that waits for what is stored.
#[derive(Debug)]
pub enum CredentialWanted {
    /// To compute the one right digest.
    CramMd5(cram_md5::Answered),
    /// For salt and iterations.
    Scram(scram::Salted),
}

impl CredentialWanted {
    /// The login name that was given.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::CramMd5(state) => state.name(),
            Self::Scram(state) => state.name(),
        }
    }

    /// Here it is, or a dummy.
    #[must_use]
    pub fn answer(self, credential: &Credential) -> Move {
        match self {
            Self::CramMd5(state) => state.credential(&credential.cram),
            Self::Scram(state) => state.credential(&credential.scram),
        }
    }
}

/// A name prepared for comparing (RFC 4013, RFC 4954 §4), which may make it longer; `None` if nothing is left or it is
/// over its limit before or afterwards.
fn prepared(name: &str) -> Option<String> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    stringprep::saslprep(name)
        .ok()
        .map(std::borrow::Cow::into_owned)
        .filter(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX)
}

/// At most [`NAME_BYTES_MAX`] octets, ended at a character.
fn cut(name: &str) -> String {
    name.chars()
        .scan(0, |length, c| {
            *length += c.len_utf8();
            (*length <= NAME_BYTES_MAX).then_some(c)
        })
        .collect()
}

#[cfg(test)]
mod tests;
