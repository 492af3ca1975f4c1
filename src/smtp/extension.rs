//! What we offer: the lines of the answer to EHLO.
//!
//! Called by the session; keeps nothing. A keyword stands here only if it is honoured.
//!
//! Keeps RFC 5321 §4.1.1.1; RFC 1870 §3, 2034, 2920, 3030, 3207 §4.2, 3461, 4954 §3, 6152, 6531, 9422; for the ODMR
//! door RFC 2645 §5.1.1 (AUTH and ATRN).
//!
//! Not offered, on purpose: BINARYMIME (nearly no receiver has it, and the mail would come back), REQUIRETLS (on a
//! reversed connection the next hop is the TLS client). At the MX door AUTH and ETRN stand only where they can be used:
//! under TLS.

use super::sasl::Mechanism;
use super::{Door, Terms};
use crate::mail::TlsFacts;

/// The keyword lines of an answer to EHLO, without the first line, which is our name.
#[must_use]
pub fn offered(door: Door, terms: &Terms, tls: Option<&TlsFacts>) -> Vec<String> {
    let mut lines = match door {
        Door::Mx => intake(terms),
        Door::Odmr => vec!["ENHANCEDSTATUSCODES".to_owned()],
    };
    if tls.is_none() && terms.tls_available {
        lines.push("STARTTLS".to_owned());
    }
    if door == Door::Odmr || (terms.etrn && tls.is_some()) {
        let mechanisms = Mechanism::offered(terms, tls);
        // Deviation: RFC 2645 §5.1.1 wants AUTH in every answer to EHLO; where the operator demands TLS first, it
        // comes only with TLS (RFC 4954 §4 and §9).
        if !mechanisms.is_empty() {
            let names: Vec<_> = mechanisms.iter().map(|mechanism| mechanism.name()).collect();
            lines.push(format!("AUTH {}", names.join(" ")));
        }
        lines.push(if door == Door::Odmr { "ATRN" } else { "ETRN" }.to_owned());
    }
    lines
}

fn intake(terms: &Terms) -> Vec<String> {
    vec![
        "PIPELINING".to_owned(),
        format!("SIZE {}", terms.message_bytes_max),
        "8BITMIME".to_owned(),
        "SMTPUTF8".to_owned(),
        "CHUNKING".to_owned(),
        "DSN".to_owned(),
        "ENHANCEDSTATUSCODES".to_owned(),
        format!("LIMITS RCPTMAX={}", terms.recipients_max),
    ]
}
