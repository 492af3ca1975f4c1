//! EXTERNAL: the certificate of the TLS layer is the proof (RFC 4422 appendix A).
//!
//! Called by the exchange. Which customer the certificate stands for is the account desk's knowledge.

use super::{Move, Verdict, prepared};
use crate::smtp::Proof;

/// The authorization identity; empty: the one that the certificate stands for.
pub(super) fn respond(message: &[u8]) -> Move {
    if message.is_empty() {
        return Move::Verdict(Verdict {
            name: String::new(),
            authzid: None,
            proof: Proof::Certificate,
        });
    }
    let identity = std::str::from_utf8(message).ok().filter(|text| !text.contains('\0'));
    match identity.and_then(prepared) {
        Some(name) => {
            Move::Verdict(Verdict { authzid: Some(name.clone()), name, proof: Proof::Certificate })
        }
        None => Verdict::wrong(""),
    }
}
