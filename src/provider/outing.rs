//! One call that the provider makes by itself: is there a way and mail, whose lease, and how did it end.
//!
//! Called by the rounds, and by `flush` without a running provider. When to call is not decided here.
//!
//! Keeps RFC 1985 §5.1 (another connection), RFC 7505 (no way, for good).

use futures::FutureExt;

use super::bell::Call as Ring;
use super::board::LastDrain;
use super::call::{Call, CallError, Caller};
use super::drain::Way;
use super::office::Office;
use super::turn::{LEASE_LASTS, OVERTHROW_AFTER};
use super::{etrn, relay};
use crate::mail::{CustomerName, Domain, Lease};
use crate::store::{LeaseAnswer, LeaseRequest, StoreError};

/// On whose behalf.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    Etrn,
    Relay,
}

impl Plan {
    pub(super) const fn way(&self) -> Way {
        match self {
            Self::Etrn => Way::Etrn,
            Self::Relay => Way::Relay,
        }
    }
}

/// How a call ended.
pub(super) enum End {
    /// A drain was made.
    Drained(Box<LastDrain>),
    /// The host could not be used.
    Unreachable(String),
    /// Somebody drains the queue already.
    Busy,
    /// Nothing waits.
    Empty,
    /// There is no way any more.
    Nowhere,
}

/// Messages ready in these queues.
pub(super) async fn waiting(office: &Office, domains: &[Domain]) -> Result<u64, StoreError> {
    let mut sum = 0u64;
    for domain in domains {
        sum = sum.saturating_add(office.store.count(domain).await?.ready);
    }
    Ok(sum)
}

/// Makes the first call of the ETRN path that is wished for, if any; for a command without a running provider.
///
/// # Errors
/// Why the host could not be used, in one line.
pub async fn once(office: &Office, caller: &dyn Caller) -> Result<Option<LastDrain>, String> {
    let Some(Ring::Some(wishes)) = office.flushes.heard().now_or_never() else { return Ok(None) };
    let Some(first) = wishes.first() else { return Ok(None) };
    let domains = wishes
        .iter()
        .filter(|wish| wish.customer == first.customer)
        .map(|wish| wish.domain.clone())
        .collect();
    match call(office, caller, Plan::Etrn, &first.customer, domains).await {
        End::Drained(last) => Ok(Some(*last)),
        End::Unreachable(why) => Err(why),
        End::Busy | End::Empty | End::Nowhere => Ok(None),
    }
}

/// One call for one destination.
pub(super) async fn call(
    office: &Office,
    caller: &dyn Caller,
    plan: Plan,
    customer: &CustomerName,
    mut domains: Vec<Domain>,
) -> End {
    let (order, login) = match plan {
        Plan::Etrn => {
            let Ok(Some(customer)) = office.directory.customer(customer).await else {
                return End::Nowhere;
            };
            domains.retain(|domain| customer.domains.contains(domain));
            (etrn::order(&customer), None)
        }
        Plan::Relay => relay::order(&office.policy(), domains.first()),
    };
    let Some((place, tls, identity)) = order else { return End::Nowhere };
    match waiting(office, &domains).await {
        Ok(0) => return End::Empty,
        Ok(_) => {}
        Err(error) => return End::Unreachable(error.to_string()),
    }
    let lease = match lease(office, customer, domains, plan.way()).await {
        Ok(Some(lease)) => lease,
        Ok(None) => return End::Busy,
        Err(error) => return End::Unreachable(error.to_string()),
    };
    let leased = lease.domains().to_vec();
    match caller.call(Call { lease, way: plan.way(), place, tls, identity, login }).await {
        Ok(last) => End::Drained(Box::new(last)),
        Err(CallError::Later(why)) => End::Unreachable(why),
        Err(CallError::Never(why)) => {
            if let Err(error) = relay::give_up(office, customer, leased, &why).await {
                return End::Unreachable(error.to_string());
            }
            End::Unreachable(why)
        }
    }
}

/// The queues that are free now, all in one lease.
pub(super) async fn lease(
    office: &Office,
    customer: &CustomerName,
    mut domains: Vec<Domain>,
    way: Way,
) -> Result<Option<Lease>, StoreError> {
    while !domains.is_empty() {
        let wish = LeaseRequest {
            customer: customer.clone(),
            domains: domains.clone(),
            owner: way.as_str().to_owned(),
            lasts: LEASE_LASTS,
            overthrow_after: OVERTHROW_AFTER,
        };
        match office.store.lease(wish).await? {
            LeaseAnswer::Granted(lease) => return Ok(Some(lease)),
            LeaseAnswer::Busy { domain, .. } => domains.retain(|other| *other != domain),
        }
    }
    Ok(None)
}
