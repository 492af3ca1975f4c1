//! The customer's half of the login mechanisms: choosing one, and its answers to the server's challenges.
//!
//! Called by the caller, which frames them as RFC 4954 has it. It draws no chance (the nonce is given) and never
//! chooses a mechanism that the orders exclude. PLAIN's message comes from the `sasl` crate. SCRAM is our own:
//! that crate's client takes any nonce back, does not escape the name, sets no bounds to the iterations and draws
//! its nonce itself; CRAM-MD5 and EXTERNAL it does not have.
//!
//! Keeps RFC 4422 (the frame), RFC 5802 with RFC 7677 and RFC 9266 (SCRAM), RFC 2195 (CRAM-MD5), RFC 4616 (PLAIN).

mod cram;
mod scram;
#[cfg(test)]
mod tests;

use sasl::client::Mechanism as _;
use zeroize::Zeroizing;

use crate::mail::{Secret, TlsFacts};
use cram::Cram;
use scram::{Binding, Scram};

/// What a customer has to prove itself with.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The login name.
    pub login: String,
    /// The password, if there is one.
    pub secret: Option<Secret>,
    /// Whether the TLS layer shows a certificate of ours.
    pub has_certificate: bool,
}

/// Why an exchange cannot go on. None of these is the server's refusal, which is a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginFault {
    /// The server did not prove that it knows the password: perhaps it is another server (RFC 5802 §5).
    Unproven,
    /// The server's message is not of the mechanism's form.
    Garbled,
    /// The server wants fewer than 4096 iterations, or so many that the wait would be an attack (RFC 7677 §4).
    Iterations(u32),
    /// Name or password hold what RFC 4013 prohibits, or NUL.
    Unpreparable,
}

impl std::fmt::Display for LoginFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unproven => f.write_str("the server could not prove that it knows the password"),
            Self::Garbled => f.write_str("the server's challenge cannot be understood"),
            Self::Iterations(count) => write!(f, "the server asks for {count} iterations"),
            Self::Unpreparable => f.write_str("name or password hold prohibited characters"),
        }
    }
}

/// The strongest mechanism that the server offers, the orders allow and the keys serve. PLAIN is never chosen
/// without TLS, -PLUS never without a channel to bind to; a weaker one is never tried after a stronger one failed.
#[must_use]
pub fn choose(
    offered: &[String],
    allowed: &[&'static str],
    keys: &Keys,
    tls: Option<&TlsFacts>,
) -> Option<&'static str> {
    let serves = |mechanism: &str| match mechanism {
        "SCRAM-SHA-256-PLUS" => {
            keys.secret.is_some() && tls.is_some_and(|facts| facts.exporter.is_some())
        }
        "SCRAM-SHA-256" | "CRAM-MD5" => keys.secret.is_some(),
        "PLAIN" => keys.secret.is_some() && tls.is_some(),
        "EXTERNAL" => keys.has_certificate && tls.is_some(),
        _ => false,
    };
    crate::smtp::MECHANISMS.into_iter().find(|mechanism| {
        allowed.contains(mechanism)
            && serves(mechanism)
            && offered.iter().any(|name| name.eq_ignore_ascii_case(mechanism))
    })
}

/// One running exchange. It prints without what it holds.
pub struct Exchange(State);

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("is_satisfied", &self.is_satisfied())
            .finish_non_exhaustive()
    }
}

enum State {
    Scram(Scram),
    Cram(Cram),
    /// The only message, until it has been sent.
    Single(Option<Zeroizing<Vec<u8>>>),
}

impl Exchange {
    /// Begins `mechanism`, which [`choose`] chose. `nonce` is used once.
    ///
    /// # Errors
    /// [`LoginFault::Unpreparable`] for a name or password that the mechanism cannot carry.
    pub fn begin(
        mechanism: &'static str,
        offered: &[String],
        keys: &Keys,
        nonce: &[u8],
        tls: Option<&TlsFacts>,
    ) -> Result<Self, LoginFault> {
        let secret = || keys.secret.as_ref().ok_or(LoginFault::Unpreparable);
        let exporter = tls.and_then(|facts| facts.exporter);
        let plus_offered = offered.iter().any(|o| o.eq_ignore_ascii_case("SCRAM-SHA-256-PLUS"));
        Ok(Self(match mechanism {
            "SCRAM-SHA-256-PLUS" => {
                let data = exporter.ok_or(LoginFault::Unpreparable)?;
                let binding = Binding::Exporter(data);
                State::Scram(Scram::begin(&keys.login, secret()?, nonce, binding)?)
            }
            "SCRAM-SHA-256" => {
                // "y" tells a server that does offer -PLUS that somebody cut it out of its list (RFC 5802 §6).
                let binding = if exporter.is_some() && !plus_offered {
                    Binding::NotOffered
                } else {
                    Binding::Unused
                };
                State::Scram(Scram::begin(&keys.login, secret()?, nonce, binding)?)
            }
            "CRAM-MD5" => State::Cram(Cram::new(&keys.login, secret()?)?),
            "PLAIN" => State::Single(Some(plain(&keys.login, secret()?)?)),
            _ => State::Single(Some(Zeroizing::new(Vec::new()))),
        }))
    }

    /// The initial response, if the mechanism begins with the client (RFC 4954 §4).
    pub fn initial(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        match &mut self.0 {
            State::Scram(scram) => Some(scram.initial()),
            State::Cram(_) => None,
            State::Single(message) => message.take(),
        }
    }

    /// The answer to a decoded challenge.
    ///
    /// # Errors
    /// [`LoginFault`]; the exchange must then be abandoned.
    pub fn respond(&mut self, challenge: &[u8]) -> Result<Zeroizing<Vec<u8>>, LoginFault> {
        match &mut self.0 {
            State::Scram(scram) => scram.respond(challenge),
            State::Cram(cram) => cram.respond(challenge),
            State::Single(_) => Err(LoginFault::Garbled),
        }
    }

    /// Whether the server has proved what the mechanism lets it prove, so that its 235 may be believed.
    #[must_use]
    pub fn is_satisfied(&self) -> bool {
        match &self.0 {
            State::Scram(scram) => scram.is_proven(),
            State::Cram(cram) => cram.is_answered(),
            State::Single(message) => message.is_none(),
        }
    }
}

fn plain(login: &str, secret: &Secret) -> Result<Zeroizing<Vec<u8>>, LoginFault> {
    let password = prepared(secret)?;
    if login.contains('\0') || password.contains('\0') {
        return Err(LoginFault::Unpreparable);
    }
    let mut mechanism = sasl::client::mechanisms::Plain::new(login, password.as_str());
    Ok(Zeroizing::new(mechanism.initial()))
}

/// The password in the form of RFC 4013 (SASLprep).
fn prepared(secret: &Secret) -> Result<Zeroizing<String>, LoginFault> {
    let text = std::str::from_utf8(secret.expose()).map_err(|_| LoginFault::Unpreparable)?;
    let prepared = stringprep::saslprep(text).map_err(|_| LoginFault::Unpreparable)?;
    Ok(Zeroizing::new(prepared.into_owned()))
}
