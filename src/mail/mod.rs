//! The field's words as types. Floor 0: every other room builds on these, and they know nobody.
//!
//! Nothing in here waits, logs, reads a clock or touches a socket. A value of one of these types has been
//! checked at the door; inside the program no string carries protocol meaning.

pub mod customer;
pub mod domain;
pub mod envelope;
pub mod fact;
pub mod lease;
pub mod mailbox;
pub mod moment;
pub mod outcome;
pub mod queue_id;
pub mod secret;

pub use customer::{
    Account, ClientProfile, CramContexts, Credential, Customer, CustomerName, Durations, EtrnTls,
    Login, Network, RecipientPolicy, RejectPolicy, ScramVerifier, Settings,
};
pub use domain::{Domain, DomainError};
pub use envelope::{BodyKind, ContentFacts, DsnRequest, Envelope, Notify, Recipient, Ret};
pub use fact::{Fact, TlsFacts, VerifiedPeer};
pub use lease::Lease;
pub use mailbox::{ForwardPath, PathError, ReversePath};
pub use moment::{Seconds, Timestamp};
pub use outcome::{Outcome, RecipientState, ReplyText};
pub use queue_id::{QueueId, QueueIdError};
pub use secret::Secret;
