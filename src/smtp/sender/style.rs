//! How the sender speaks: what of the server's offers it may use, and in which portions it writes.
//!
//! Chosen by the drain before the connection begins; it never changes during one.

use crate::mail::Domain;

/// How to speak to this customer's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// Our name in EHLO.
    pub hostname: Domain,
    /// Use PIPELINING where offered.
    pub pipelining: bool,
    /// Use CHUNKING where offered.
    pub chunking: bool,
    /// Each [`Action::Send`](super::Action::Send) is exactly one line: for clients that lose the rest of a TLS record.
    pub line_by_line: bool,
    /// The first transaction goes alone and by DATA: a client that loses the rest of a record stalls before any
    /// content is on its way, and nothing is in doubt.
    pub probes: bool,
}

impl Style {
    /// An ordinary server: everything that it offers is used.
    #[must_use]
    pub const fn standard(hostname: Domain) -> Self {
        Self { hostname, pipelining: true, chunking: true, line_by_line: false, probes: false }
    }

    /// As [`Style::standard`], towards a client of which nothing is known yet.
    #[must_use]
    pub fn probing(hostname: Domain) -> Self {
        Self { probes: true, ..Self::standard(hostname) }
    }

    /// fetchmail over TLS: one line, one record; no pipelining, no BDAT.
    #[must_use]
    pub const fn fetchmail_tls(hostname: Domain) -> Self {
        Self { hostname, pipelining: false, chunking: false, line_by_line: true, probes: false }
    }
}
