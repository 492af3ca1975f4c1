//! The phases of a session, each with what only that phase has.
//!
//! Used by all files of `session`. A phase is used up by leaving it: "a recipient without MAIL", "logged in, but
//! nobody" or "two questions open" cannot be written down.

use crate::mail::{Account, Recipient, ReversePath};
use crate::smtp::data::{Content, Dots};
use crate::smtp::refusal::Refusal;
use crate::smtp::sasl::{CredentialWanted, Exchange, Mechanism, NonceWanted};
use crate::smtp::{MailParameters, Question};

/// EHLO or HELO was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// The name, as given.
    pub(super) name: String,
    /// Whether it was EHLO.
    pub(super) is_esmtp: bool,
}

/// MAIL was answered 250.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) hello: Hello,
    pub(super) reverse_path: ReversePath,
    pub(super) parameters: MailParameters,
    /// Those that were answered 250.
    pub(super) recipients: Vec<Recipient>,
    /// Whether RCPT was ever refused: then DATA without recipients is 554, not 503.
    pub(super) has_refused: bool,
    /// Who is logged in, if anybody; the mail is not told of it.
    pub(super) account: Option<Box<Account>>,
}

/// Where the content of a transaction stands when it comes in chunks.
#[derive(Debug)]
pub(super) struct Chunked {
    pub(super) transaction: Transaction,
    pub(super) content: Content,
}

/// A chunk was refused; RFC 3030 §2: only RSET helps.
#[derive(Debug)]
pub(super) struct Spoilt {
    pub(super) hello: Hello,
    pub(super) account: Option<Box<Account>>,
}

/// Where the octets of a chunk go.
#[derive(Debug)]
pub(super) enum Sink {
    /// Into the message.
    Body(Box<Chunked>),
    /// Nowhere; then this refusal, and on with this phase.
    Nowhere(Refusal, Box<Phase>),
}

/// A chunk on its way.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) sink: Sink,
    /// Octets still to come.
    pub(super) left: u64,
    /// Octets in all.
    pub(super) size: u64,
    pub(super) is_last: bool,
}

/// DATA was answered 354.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) transaction: Transaction,
    pub(super) dots: Dots,
    pub(super) content: Content,
}

/// Where a session stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// Greeted, or TLS just came up.
    Fresh,
    /// Between transactions, not logged in.
    Idle(Hello),
    /// Logged in.
    Authenticated(Hello, Box<Account>),
    /// Between MAIL and the content.
    Transaction(Box<Transaction>),
    /// Between chunks.
    Chunked(Box<Chunked>),
    /// Behind a refused chunk.
    Spoilt(Spoilt),
    /// A challenge is out; the client's next line is no command.
    Login(Box<Login>),
    /// Content up to the dot.
    Data(Box<Data>),
    /// Content of known length.
    Chunk(Chunk),
    /// A question is open.
    Parked(Box<Parked>),
}

/// See [`Phase::Login`].
#[derive(Debug)]
pub(super) struct Login {
    pub(super) hello: Hello,
    pub(super) mechanism: Mechanism,
    pub(super) exchange: Exchange,
}

/// Which question is open, and what it interrupted.
#[derive(Debug)]
pub(super) enum Parked {
    Mail(Transaction),
    Recipient(Transaction, Recipient),
    /// DATA.
    Data(Transaction),
    /// The first BDAT: size, and whether it is the last.
    Chunk(Transaction, u64, bool),
    Commit(Finished),
    Nonce(Hello, Mechanism, NonceWanted),
    Credential(Hello, Mechanism, CredentialWanted),
    /// The name that was tried.
    Login(Hello, Mechanism, String),
    Turn(Hello, Box<Account>),
    /// ETRN, with its argument for the reply.
    Etrn(Hello, Box<Account>, String),
}

/// What is told of a message once it is durable or refused.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) hello: Hello,
    pub(super) reverse_path: ReversePath,
    pub(super) recipients: Vec<crate::mail::ForwardPath>,
    pub(super) account: Option<Box<Account>>,
}

impl Phase {
    /// EHLO or HELO, wherever it is kept.
    pub(super) fn hello(&self) -> Option<&Hello> {
        match self {
            Self::Idle(hello) | Self::Authenticated(hello, _) => Some(hello),
            Self::Transaction(transaction) => Some(&transaction.hello),
            Self::Chunked(chunked) => Some(&chunked.transaction.hello),
            Self::Spoilt(spoilt) => Some(&spoilt.hello),
            Self::Login(login) => Some(&login.hello),
            Self::Fresh | Self::Data(_) | Self::Chunk(_) | Self::Parked(_) => None,
        }
    }

    /// Whether MAIL was answered 250 and its transaction has not ended.
    pub(super) fn is_in_transaction(&self) -> bool {
        matches!(self, Self::Transaction(_) | Self::Chunked(_) | Self::Spoilt(_))
    }

    /// Whether a body is open in the provider.
    pub(super) fn has_body(&self) -> bool {
        match self {
            Self::Chunked(_) | Self::Data(_) => true,
            Self::Chunk(chunk) => matches!(chunk.sink, Sink::Body(_)),
            _ => false,
        }
    }

    /// What RSET leaves: neither the hello nor the login is forgotten (RFC 5321 §4.1.1.5).
    pub(super) fn reset(self) -> Self {
        match self {
            Self::Transaction(transaction) => Self::between(transaction.hello, transaction.account),
            Self::Chunked(chunked) => {
                Self::between(chunked.transaction.hello, chunked.transaction.account)
            }
            Self::Spoilt(spoilt) => Self::between(spoilt.hello, spoilt.account),
            other => other,
        }
    }

    /// Between transactions, logged in or not.
    pub(super) fn between(hello: Hello, account: Option<Box<Account>>) -> Self {
        match account {
            Some(account) => Self::Authenticated(hello, account),
            None => Self::Idle(hello),
        }
    }
}

/// What a step of the session leads to.
#[derive(Debug)]
pub(super) enum Next {
    /// On with this phase.
    Go(Phase),
    /// TLS comes up.
    Upgrade,
    /// The roles reverse.
    Reverse(crate::mail::Lease),
    /// The end.
    Close,
}

impl Next {
    /// Parks behind a question.
    pub(super) fn park(
        parked: Parked,
        question: Question,
        talk: &mut super::talk::Talk<'_>,
    ) -> Self {
        talk.ask(question);
        Self::Go(Phase::Parked(Box::new(parked)))
    }
}
