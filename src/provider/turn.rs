//! The turn: may this customer drain these queues now?
//!
//! Called by the desk for ATRN. All the listed domains must be the customer's, or none is served (RFC 2645
//! §5.2.1); a foreign domain and an unknown one get the same answer. It grants a lease and never moves mail.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};

use super::office::Office;
use crate::mail::{Customer, Domain, Lease};
use crate::smtp::{Refusal, TurnRequest};
use crate::store::{LeaseAnswer, LeaseRequest, StoreError};

/// How long a lease lasts without being renewed. A drain renews it while it moves.
pub const LEASE_LASTS: Duration = Duration::from_secs(15 * 60);
/// A drain without progress for this long is overthrown by a new call of its customer.
pub const OVERTHROW_AFTER: Duration = Duration::from_secs(60);

/// The customer as it is now, and the domains that the call means.
async fn wanted(
    office: &Office,
    request: &TurnRequest,
) -> Result<(Arc<Customer>, Vec<Domain>), Refusal> {
    let name = &request.account.login.customer;
    let customer = office.directory.customer(name).await.map_err(|_| Refusal::TurnTrouble)?;
    let customer = customer.filter(|c| !c.suspended).ok_or(Refusal::TurnTrouble)?;
    if request.domains.is_empty() {
        let all = customer.domains.clone();
        return Ok((customer, all));
    }
    if request.domains.iter().any(|domain| !customer.domains.contains(domain)) {
        return Err(Refusal::NotYourDomain);
    }
    let mut domains = request.domains.clone();
    domains.sort();
    domains.dedup();
    Ok((customer, domains))
}

/// Messages ready in these queues.
async fn waiting(office: &Office, domains: &[Domain]) -> Result<u64, Refusal> {
    let mut sum = 0u64;
    for domain in domains {
        let count = office.store.count(domain).await.map_err(|error| trouble(&error))?;
        sum = sum.saturating_add(count.ready);
    }
    Ok(sum)
}

fn trouble(error: &StoreError) -> Refusal {
    let error = error.to_string();
    log::error!(target: super::ledger::TARGET, what = "turn", error = error; "store-trouble");
    Refusal::TurnTrouble
}

/// Is ready when it makes sense to decide: at once if something waits, if the call will be refused, or if the
/// customer does not wait for mail; else when mail arrives or `wait-for-mail` is over (RFC 2645 §5.2.1 makes
/// the customer wait ten minutes for the reply). May be dropped at any time.
pub(super) async fn worth_deciding(office: &Office, request: &TurnRequest) {
    let Ok((customer, domains)) = wanted(office, request).await else { return };
    let patience = office.policy().drain_rules(&customer).wait_for_mail;
    if patience.is_zero() || domains.is_empty() {
        return;
    }
    // Listen first, look second: what arrives in between is seen by one of the two.
    let mut hints = office.store.changes(&domains);
    let mut over = office.world.wait(patience);
    loop {
        if !matches!(waiting(office, &domains).await, Ok(0)) {
            return;
        }
        match select(hints.next(), over).await {
            Either::Left((Some(_), rest)) => over = rest,
            _ => return,
        }
    }
}

/// The lease and the number of messages waiting, or why not. Customers that call too often without getting mail
/// are told to wait (RFC 2645 §5.2.1); calls that move mail are not counted.
pub(super) async fn grant(
    office: &Office,
    request: &TurnRequest,
    owner: &str,
) -> Result<(Lease, u64), Refusal> {
    let name = &request.account.login.customer;
    let (now, per_minute) = (office.world.monotonic(), office.policy().turns_per_minute);
    if !office.abuse.may_call(name, now, per_minute) {
        return Err(Refusal::TooOften);
    }
    let outcome = decide(office, request, owner).await;
    if outcome.is_err() {
        office.abuse.called_in_vain(name, now, per_minute);
    }
    outcome
}

async fn decide(
    office: &Office,
    request: &TurnRequest,
    owner: &str,
) -> Result<(Lease, u64), Refusal> {
    let (customer, mut domains) = wanted(office, request).await?;
    if waiting(office, &domains).await? == 0 {
        return Err(Refusal::NoMail);
    }
    let takes_what_is_free = request.domains.is_empty();
    loop {
        let wish = LeaseRequest {
            customer: customer.name.clone(),
            domains: domains.clone(),
            owner: owner.to_owned(),
            lasts: LEASE_LASTS,
            overthrow_after: OVERTHROW_AFTER,
        };
        match office.store.lease(wish).await.map_err(|error| trouble(&error))? {
            LeaseAnswer::Granted(lease) => return settle(office, lease).await,
            LeaseAnswer::Busy { domain, .. } => {
                domains.retain(|other| *other != domain);
                if !takes_what_is_free || domains.is_empty() {
                    return Err(Refusal::TurnBusy);
                }
            }
        }
    }
}

/// Counts what the lease covers; one that covers nothing is handed back.
async fn settle(office: &Office, lease: Lease) -> Result<(Lease, u64), Refusal> {
    let counted = waiting(office, lease.domains()).await;
    let refusal = match counted {
        Ok(0) => Refusal::TurnBusy,
        Ok(count) => return Ok((lease, count)),
        Err(refusal) => refusal,
    };
    if let Err(error) = office.store.release(lease).await {
        trouble(&error);
    }
    Err(refusal)
}
