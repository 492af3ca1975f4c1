//! Facts: what happened, for the log and the status board. The core states them; the shell writes them down.

use super::customer::CustomerName;
use super::domain::Domain;
use super::mailbox::ForwardPath;
use super::queue_id::QueueId;

/// What is known of the TLS layer of a wire, once it is up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: Box<str>,
    /// The suite's name.
    pub cipher: Box<str>,
    /// SHA-256 of the SubjectPublicKeyInfo of the peer's certificate, lower-case hex, if it sent one.
    pub peer_key: Option<Box<str>>,
    /// The tls-exporter channel binding (RFC 9266 §4), where TLS 1.3 gives one.
    pub exporter: Option<[u8; 32]>,
    /// Who the peer is by a certificate of the operator's own authority; `None` if there is no authority, or
    /// the certificate is not one of its, or is outside its dates.
    pub verified: Option<VerifiedPeer>,
}

/// The names in a certificate that the operator's own authority signed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifiedPeer {
    /// The subject's common name, if there is just one.
    pub common_name: Option<Box<str>>,
    /// The DNS names of the subjectAltName.
    pub dns_names: Vec<Box<str>>,
}

/// Something worth a line in the log (section 3 of the interface). It never holds a password, a challenge
/// response or a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// A message is durable.
    Accepted {
        /// Its id.
        id: QueueId,
        /// Its reverse-path.
        from: String,
        /// Its recipients.
        to: Vec<ForwardPath>,
        /// Its size as it is kept and goes out, our own `Received` line included; octets.
        size: u64,
    },
    /// A command or a message was refused.
    Refused {
        /// The verb, or `content`.
        at: &'static str,
        /// The reply line.
        reply: String,
        /// The reverse-path, if one was given.
        from: Option<String>,
        /// The address at issue, if any.
        to: Option<String>,
    },
    /// A customer logged in.
    LoggedIn {
        /// The login name.
        login: String,
        /// The SASL mechanism.
        mechanism: &'static str,
    },
    /// A login failed.
    LoginFailed {
        /// The name that was tried, cleaned.
        login: String,
        /// The SASL mechanism.
        mechanism: &'static str,
    },
    /// The roles are about to reverse.
    Turn {
        /// Who.
        customer: CustomerName,
        /// For which queues.
        domains: Vec<Domain>,
        /// Messages waiting.
        waiting: u64,
    },
    /// ATRN was refused.
    TurnRefused {
        /// Who.
        customer: CustomerName,
        /// The reply line.
        reply: String,
    },
    /// ETRN was answered.
    Etrn {
        /// Who.
        customer: CustomerName,
        /// The argument, as given.
        node: String,
        /// The reply line.
        reply: String,
    },
    /// A customer's client departs from a rule in a way that we tolerate; once a session.
    Tolerated(&'static str),
}
