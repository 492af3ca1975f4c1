//! The sole right to drain.

use super::customer::CustomerName;
use super::domain::Domain;

/// The sole right to drain some queues of one customer, given by the store and checked by it at every
/// settlement. It cannot be cloned: there is one drain for it, and whoever ends the drain hands it back.
///
/// `token` is the fencing token: it only grows, also over restarts, so a drain that lost its lease to a newer
/// one can only fail.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped lease blocks its queues until its clock ends it; release it"]
pub struct Lease {
    customer: CustomerName,
    domains: Vec<Domain>,
    token: u64,
}

impl Lease {
    /// Made by the store alone, when it grants.
    pub(crate) fn granted(customer: CustomerName, domains: Vec<Domain>, token: u64) -> Self {
        Self { customer, domains, token }
    }

    /// Whose queues.
    #[must_use]
    pub fn customer(&self) -> &CustomerName {
        &self.customer
    }

    /// Which queues; sorted, without duplicates, at least one.
    #[must_use]
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// The fencing token.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.token
    }
}
