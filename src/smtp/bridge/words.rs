//! The bridge's words: what goes in, what comes out, and how it fails.

use crate::smtp::sender::Malformed;

/// What the target speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SMTP.
    Smtp,
    /// LMTP (RFC 2033).
    Lmtp,
}

/// A message that the target has answered for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The reverse-path as given, without brackets.
    pub from: String,
    /// The recipients that the target accepted, without brackets; at most 100 are remembered.
    pub to: Vec<String>,
    /// Octets of content on the wire.
    pub octets: u64,
    /// The reply to the whole message, for people.
    pub reply: String,
    /// Whether it was 2yz: the mail is the target's now.
    pub taken: bool,
}

/// Why the bridge cannot go on. Both connections must be closed; the provider keeps what was not answered 250.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeFault {
    /// The provider sends a line without end.
    EndlessLine,
    /// What the target sends is no reply.
    Target(Malformed),
    /// The target answered 2yz or 3yz before the content was over: the two disagree where it ends.
    OutOfStep,
}

impl std::fmt::Display for BridgeFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EndlessLine => f.write_str("the provider sends a line without end"),
            Self::Target(fault) => write!(f, "the target's reply cannot be understood: {fault}"),
            Self::OutOfStep => f.write_str("the target answered before the content was over"),
        }
    }
}

/// Where the bridge puts what it makes of its input.
#[derive(Debug, Default)]
pub struct Output {
    /// For the target.
    pub to_target: Vec<u8>,
    /// For the provider.
    pub to_provider: Vec<u8>,
    /// Messages that were answered for.
    pub passed: Vec<Passed>,
}
