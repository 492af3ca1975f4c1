//! The protocol without I/O: bytes and answers in, actions out.
//!
//! Called by the shell (`net`), which moves the bytes, and by `provider`, which answers the questions. Nothing in
//! this room waits, reads a clock, rolls dice, logs or knows a socket; it can be driven by hand, byte by byte.
//!
//! `session` is the provider as server (RFC 5321, RFC 2645, RFC 1985), `sender` the provider as client on a
//! reversed or dialed connection, `sasl` the login mechanisms of both sides.

pub mod bridge;
pub mod caller;
pub mod command;
pub mod data;
pub mod etrn;
pub mod extension;
pub mod inbox;
pub mod opening;
pub mod param;
pub mod refusal;
pub mod reply;
pub mod sasl;
pub mod sender;
pub mod session;
pub mod verbs;

use crate::mail::{
    Account, BodyKind, ContentFacts, Credential, Domain, DsnRequest, Envelope, Fact, ForwardPath,
    Lease, Login, QueueId, ReversePath, Secret,
};
pub use refusal::Refusal;
pub use reply::{EnhancedCode, Reply};
pub use session::{Reversal, Session, Step, Upgrade};

/// What the shell tells a session.
#[derive(Debug)]
pub enum Input<'a> {
    /// Octets from the wire, in order, any number of them.
    Bytes(&'a [u8]),
    /// The answer to the one open [`Question`].
    Answer(Answer),
    /// The patience of the session is over (`Session::patience`): nothing came in time.
    Expired,
    /// The provider is shutting down: 421 4.3.2 as soon as the protocol allows (RFC 5321 §3.8).
    ShuttingDown,
    /// The peer closed its side, or the wire broke. An unfinished message is never finished by this.
    Ended,
}

/// What a session wants done, in this order.
#[derive(Debug)]
pub enum Action {
    /// Write these octets. They must have left before the shell waits for input or an answer.
    Send(Vec<u8>),
    /// Answer this; until then the session is parked: bytes are kept, none is interpreted.
    Ask(Question),
    /// Append to the open body: the content without dot-stuffing, CRLF line ends.
    Store(Vec<u8>),
    /// Forget the open body, if there is one.
    Discard,
    /// Hand this lease back: it was granted, but the turn did not happen.
    Release(Lease),
    /// Write this down.
    Note(Fact),
}

/// What the protocol cannot decide alone.
#[derive(Debug)]
pub enum Question {
    /// MAIL: is mail taken now at all? → [`Answer::Verdict`].
    Mail(MailRequest),
    /// RCPT: is this recipient one of ours, and is there room? → [`Answer::Verdict`].
    Recipient(RecipientRequest),
    /// DATA or the first BDAT: open a body, write the trace line. → [`Answer::Verdict`].
    Content(ContentRequest),
    /// The whole content has been stored: make it durable. → [`Answer::Committed`].
    Commit(Box<CommitRequest>),
    /// Unpredictable octets for a challenge or nonce. → [`Answer::Nonce`].
    Nonce,
    /// What the store has for this login; for unknown ones a dummy that nobody can tell from a real one.
    /// → [`Answer::Credential`].
    Credential(String),
    /// The mechanism has come to its verdict; may this login proceed? Counts failures, delays, looks whether the
    /// customer is suspended. → [`Answer::Login`].
    Login(LoginRequest),
    /// ATRN: the sole right to drain these queues. → [`Answer::Turn`].
    Turn(TurnRequest),
    /// ETRN: is this allowed, and how much waits? Starts the delivery, which happens elsewhere and later.
    /// → [`Answer::Etrn`].
    Etrn(EtrnRequest),
}

/// MAIL as understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailRequest {
    /// Who.
    pub reverse_path: ReversePath,
    /// SIZE=, zero if absent (RFC 1870 §6).
    pub declared_size: u64,
}

/// RCPT as understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientRequest {
    /// The address; a bare `<Postmaster>` stands at the provider's own host name.
    pub forward_path: ForwardPath,
    /// SIZE= of MAIL, zero if absent.
    pub declared_size: u64,
    /// What the message announces to need: BODY= and SMTPUTF8 of MAIL.
    pub body: BodyKind,
    /// SMTPUTF8 of MAIL.
    pub smtputf8: bool,
}

/// What the trace line of the content says (RFC 5321 §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRequest {
    /// The name in EHLO or HELO, as given.
    pub helo: String,
    /// Whether it was EHLO.
    pub is_esmtp: bool,
    /// SMTPUTF8 of MAIL: `with UTF8SMTP…` (RFC 6531 §4.3).
    pub smtputf8: bool,
    /// The only recipient, if there is just one: `for <…>`. With several it is left out, so that no customer
    /// learns of another.
    pub only_recipient: Option<ForwardPath>,
    /// SIZE= of MAIL, zero if absent: a hint.
    pub declared_size: u64,
}

/// A finished transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// All recipients that got 250.
    pub envelope: Envelope,
    /// What was found in the content as received; the trace line is not in it.
    pub facts: ContentFacts,
}

/// The end of a SASL exchange.
#[derive(Debug)]
pub struct LoginRequest {
    /// The name that was tried, as given, at most 255 octets.
    pub name: String,
    /// The authorization identity, if the client gave one.
    pub authzid: Option<String>,
    /// The mechanism.
    pub mechanism: &'static str,
    /// How far the mechanism got by itself.
    pub proof: Proof,
}

/// What a mechanism proved.
#[derive(Debug)]
pub enum Proof {
    /// The response was computed with the credential that [`Answer::Credential`] gave.
    Proven(Login),
    /// It was not; the login fails whatever the account is.
    Wrong,
    /// PLAIN: this password is to be checked, off the async threads.
    Password(Secret),
    /// EXTERNAL: the certificate of the TLS layer is the proof.
    Certificate,
}

/// ATRN as understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnRequest {
    /// Who is logged in.
    pub account: Account,
    /// The domains listed; empty for ATRN without argument: all of the customer's (RFC 2645 §5.2.1).
    pub domains: Vec<Domain>,
}

/// ETRN as understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtrnRequest {
    /// Who is logged in.
    pub account: Account,
    /// What is asked for.
    pub node: etrn::Node,
}

/// A message that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Under which id.
    pub id: QueueId,
    /// Its size as it is kept and goes out: octets of content, with the lines that were put on top of it.
    pub size: u64,
}

/// The answer to a [`Question`], of the kind that its docstring names. A refusal inside is the peer's matter, not
/// an error of ours.
#[derive(Debug)]
pub enum Answer {
    /// Yes, or why not.
    Verdict(Result<(), Refusal>),
    /// Durable, or why not.
    Committed(Result<Receipt, Refusal>),
    /// 32 unpredictable octets.
    Nonce([u8; 32]),
    /// The stored credential or a dummy; an error if the directory cannot be read now.
    Credential(Result<Box<Credential>, Refusal>),
    /// Logged in, or why not.
    Login(Result<Box<Account>, Refusal>),
    /// The lease and the number of messages waiting, or why not.
    Turn(Result<(Lease, u64), Refusal>),
    /// The number of messages whose delivery was started, or why not.
    Etrn(Result<u64, Refusal>),
}

/// Behind which listener a session sits (section 2 of the interface).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// `listen.mx` and `listen.mxs`: mail for customers' domains.
    Mx,
    /// `listen.odmr` and `listen.odmrs`: RFC 2645 §4.
    Odmr,
}

/// What a session offers and where it stops; the same for all sessions of a listener until the configuration is
/// loaded again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Our name in the greeting, EHLO and challenges.
    pub hostname: Domain,
    /// SIZE, in octets (RFC 1870).
    pub message_bytes_max: u64,
    /// Recipients in a transaction; 100 or more (RFC 5321 §4.5.3.1.8); then 452.
    pub recipients_max: usize,
    /// Hops; then 554 5.4.6 (RFC 5321 §6.3).
    pub received_max: u32,
    /// Whether STARTTLS can be offered at all.
    pub tls_available: bool,
    /// Whether ETRN, and the login for it, is offered at the MX door under TLS.
    pub etrn: bool,
    /// Logins only on encrypted connections.
    pub auth_requires_tls: bool,
    /// SASL mechanisms that the operator allows, strongest first, from [`MECHANISMS`].
    pub mechanisms: Vec<&'static str>,
    /// Failed logins in one session, then 421 (RFC 4954 §9: not before the third).
    pub auth_failures_max: u32,
    /// Commands refused with 5yz in one session since the last message that was taken; then 421.
    pub errors_max: u32,
}

/// All mechanisms that this program has, strongest first.
pub const MECHANISMS: [&str; 5] =
    ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "EXTERNAL", "CRAM-MD5", "PLAIN"];

/// DSN parameters and body kind of MAIL gathered until RCPT completes the envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// SIZE=.
    pub size: u64,
    /// BODY=.
    pub body: BodyKind,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// ENVID= and RET=.
    pub dsn: DsnRequest,
}
