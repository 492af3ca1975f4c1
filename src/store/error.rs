//! What can go wrong in a store and in a directory, in the classes that callers treat differently.
//!
//! Made by the engines; the provider turns each class into a refusal.

use std::fmt;

use crate::mail::{CustomerName, Domain, QueueId};

/// What went wrong, in the classes that callers treat differently.
#[derive(Debug)]
pub enum StoreError {
    /// Try again later with the same id (451).
    Transient(String),
    /// The lease was taken over or ran out; nothing was changed except that deliveries were recorded.
    LostLease,
    /// No room: the disk or a quota (452).
    Full(String),
    /// This message is damaged; it was set aside and reported, the others are served.
    Corrupt(QueueId),
    /// There is no such message, customer or domain.
    Missing,
    /// It cannot be opened as it is, and this says why and what to do: it is newer than this program, or
    /// something was begun with it and not finished.
    Unready(String),
    /// The engine cannot be trusted any more; intake and drains stop until it is opened again (451).
    Broken(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transient(why) => write!(f, "the store cannot do this now: {why}"),
            Self::LostLease => f.write_str("the lease was lost"),
            Self::Full(why) => write!(f, "the store is full: {why}"),
            Self::Corrupt(id) => write!(f, "message {id} is damaged and was set aside"),
            Self::Missing => f.write_str("there is no such thing in the store"),
            Self::Unready(why) => f.write_str(why),
            Self::Broken(why) => write!(f, "the store is broken: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Why the directory refuses a change.
#[derive(Debug)]
pub enum DirectoryError {
    /// A customer of this name exists.
    Exists,
    /// The domain belongs to another customer.
    DomainTaken(Domain, CustomerName),
    /// The record was changed meanwhile; read it again.
    Outdated,
    /// There is no such customer.
    Missing,
    /// The engine's trouble.
    Store(StoreError),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("a customer of this name exists"),
            Self::DomainTaken(domain, owner) => {
                write!(f, "domain {domain} belongs to customer {owner}")
            }
            Self::Outdated => f.write_str("the customer was changed meanwhile; try again"),
            Self::Missing => f.write_str("there is no such customer"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DirectoryError {}

impl From<StoreError> for DirectoryError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
