//! Who drains which queue now: leases, their ends, and the overthrow of a holder that makes no progress.
//!
//! Called by the engines, which keep one table each in memory. It reads no clock: `now` is the engine's
//! monotonic one. It never waits and never touches mail.

use std::collections::HashMap;
use std::time::Duration;

use crate::mail::{Domain, Lease};

use super::{LeaseAnswer, LeaseRequest, StoreError};

#[derive(Debug)]
struct Holder {
    domains: Vec<Domain>,
    owner: String,
    lasts: Duration,
    ends: Duration,
    progress: Duration,
}

/// The table of leases.
#[derive(Debug)]
pub(crate) struct Leases {
    holders: HashMap<u64, Holder>,
    queues: HashMap<Domain, u64>,
    last_token: u64,
}

impl Leases {
    /// An empty table whose tokens are greater than any of an earlier epoch.
    pub(crate) fn new(epoch: u32) -> Self {
        Self { holders: HashMap::new(), queues: HashMap::new(), last_token: u64::from(epoch) << 32 }
    }

    /// Grants all queues or none.
    pub(crate) fn acquire(
        &mut self,
        request: LeaseRequest,
        now: Duration,
    ) -> Result<LeaseAnswer, StoreError> {
        let mut domains = request.domains;
        domains.sort_unstable();
        domains.dedup();
        if domains.is_empty() {
            return Err(StoreError::Missing);
        }
        let mut fallen = Vec::new();
        for domain in &domains {
            let Some(token) = self.queues.get(domain) else { continue };
            let Some(holder) = self.holders.get(token) else { continue };
            let idle = now.saturating_sub(holder.progress);
            if now < holder.ends && idle < request.overthrow_after {
                return Ok(LeaseAnswer::Busy { by: holder.owner.clone(), domain: domain.clone() });
            }
            fallen.push(*token);
        }
        for token in fallen {
            self.forget(token);
        }
        self.last_token += 1;
        let token = self.last_token;
        for domain in &domains {
            self.queues.insert(domain.clone(), token);
        }
        let holder = Holder {
            domains: domains.clone(),
            owner: request.owner,
            lasts: request.lasts,
            ends: now.saturating_add(request.lasts),
            progress: now,
        };
        self.holders.insert(token, holder);
        Ok(LeaseAnswer::Granted(Lease::granted(request.customer, domains, token)))
    }

    /// Whether one of these queues was given to somebody who did not hand it back, by right or no more.
    pub(crate) fn is_given(&self, domains: &[Domain]) -> bool {
        domains.iter().any(|domain| self.queues.contains_key(domain))
    }

    /// Whether the lease is still its holder's.
    pub(crate) fn is_held(&self, lease: &Lease, now: Duration) -> bool {
        self.is_valid(lease.token(), now)
    }

    /// The same for its fencing token.
    pub(crate) fn is_valid(&self, token: u64, now: Duration) -> bool {
        self.holders.get(&token).is_some_and(|h| now < h.ends)
    }

    /// Starts its clock anew; false if it is lost.
    pub(crate) fn renew(&mut self, lease: &Lease, now: Duration) -> bool {
        if !self.is_held(lease, now) {
            return false;
        }
        if let Some(holder) = self.holders.get_mut(&lease.token()) {
            holder.ends = now.saturating_add(holder.lasts);
            holder.progress = now;
        }
        true
    }

    /// Notes progress; false if the lease is lost.
    pub(crate) fn progress(&mut self, lease: &Lease, now: Duration) -> bool {
        if !self.is_held(lease, now) {
            return false;
        }
        if let Some(holder) = self.holders.get_mut(&lease.token()) {
            holder.progress = now;
        }
        true
    }

    /// Takes it back; a lost one is ignored.
    pub(crate) fn release(&mut self, lease: &Lease) {
        self.forget(lease.token());
    }

    fn forget(&mut self, token: u64) {
        let Some(holder) = self.holders.remove(&token) else { return };
        for domain in holder.domains {
            if self.queues.get(&domain) == Some(&token) {
                self.queues.remove(&domain);
            }
        }
    }
}
