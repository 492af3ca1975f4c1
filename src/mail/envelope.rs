//! The envelope of a message (RFC 5321 §2.3.1) and what one look at its content found.

use std::sync::Arc;

use super::mailbox::{ForwardPath, ReversePath};

/// What MAIL and RCPT said, for all recipients of one transaction or for those of one customer.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Envelope {
    /// Where reports go.
    pub reverse_path: ReversePath,
    /// The recipients, in the order of their RCPT commands.
    pub recipients: Vec<Recipient>,
    /// BODY= of MAIL (RFC 6152 §3).
    pub body: BodyKind,
    /// Whether MAIL carried SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// ENVID= and RET= of MAIL (RFC 3461 §4).
    pub dsn: DsnRequest,
}

/// BODY= of MAIL FROM (RFC 6152 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub enum BodyKind {
    /// `7BIT`, or no parameter.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
}

/// The DSN parameters of MAIL (RFC 3461 §4.3, §4.4).
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct DsnRequest {
    /// ENVID, still xtext-encoded as received; checked, so it may be sent on as it is.
    pub envid: Option<Box<str>>,
    /// RET.
    pub ret: Option<Ret>,
}

/// How much of the message a failure report returns (RFC 3461 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header section.
    Headers,
}

/// One RCPT command.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Recipient {
    /// The address.
    pub forward_path: ForwardPath,
    /// NOTIFY= (RFC 3461 §4.1); `None` when the parameter was absent.
    pub notify: Option<Notify>,
    /// ORCPT= (RFC 3461 §4.2), `type;xtext` as received; checked, so it may be sent on as it is.
    pub orcpt: Option<Box<str>>,
}

/// NOTIFY= of RCPT (RFC 3461 §4.1). All false means NEVER.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Notify {
    /// Report delivery.
    pub success: bool,
    /// Report failure.
    pub failure: bool,
    /// Report delay.
    pub delay: bool,
}

/// What one pass over the content found while it was spooled; decides later whether and how the message can be
/// handed to a server that lacks an extension (RFC 6152 §3, RFC 6531 §3.5, RFC 1870 §4).
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ContentFacts {
    /// Octets of the content with CRLFs, without stuffed dots and without the final dot (RFC 1870 §5), our own
    /// Received line included.
    pub size: u64,
    /// An octet above 127 below the first empty line.
    pub has_8bit_body: bool,
    /// An octet above 127 in the header section.
    pub has_8bit_header: bool,
    /// The longest line, without its CRLF.
    pub line_bytes_longest: u64,
    /// Header fields named Received, our own not counted (RFC 5321 §6.3).
    pub received_count: u32,
    /// The value of Message-ID, for the log; at most 250 octets, printable ASCII.
    pub message_id: Option<Arc<str>>,
}
