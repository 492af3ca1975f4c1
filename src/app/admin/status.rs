//! The snapshot: listeners, sessions, queues, last drains, store.

use std::collections::BTreeSet;

use super::view::{Queue, Status};
use super::{Done, Refused};
use crate::mail::{Domain, QueueId, Timestamp};
use crate::provider::Office;
use crate::store::Filter;

/// Records read at once.
const PAGE: usize = 500;
/// A clock that was corrected by so much is no reason to worry.
const AHEAD_MILLIS: u64 = 5 * 60 * 1000;

pub(super) async fn snapshot(office: &Office) -> Result<Done, Refused> {
    let listeners = office.board.listeners();
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: office.policy().hostname.to_string(),
        running: !listeners.is_empty(),
        listeners,
        sessions: office.board.sessions(),
        queues: queues(office).await?,
        last_drains: office.board.last_drains().into_iter().map(Into::into).collect(),
        relay: office.policy().relay.route.to_string(),
        store: office.store.health().await?,
    };
    Ok(Done::Status(Box::new(status)))
}

/// Ids begin with the time of arrival, so what came in the future stands behind all else.
pub(super) async fn examine(office: &Office) -> Result<Done, Refused> {
    let soon = Timestamp(office.world.now().0.saturating_add(AHEAD_MILLIS));
    let after = Some(QueueId::at(soon.0, 0));
    let heads = office.store.query(Filter::default(), after, 1000).await?;
    let furthest = heads.last().map(|head| head.arrived.rfc3339());
    Ok(Done::Examined { ahead: heads.len() as u64, furthest })
}

async fn queues(office: &Office) -> Result<Vec<Queue>, Refused> {
    let now = office.world.now();
    let mut rows = Vec::new();
    let mut seen: BTreeSet<Domain> = BTreeSet::new();
    let mut after = None;
    loop {
        let page = office.directory.customers(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        for customer in &page {
            for domain in &customer.domains {
                let count = office.store.count(domain).await?;
                rows.push(Queue::new(customer.name.clone(), domain.clone(), &count, now));
                seen.insert(domain.clone());
            }
        }
    }
    // Queues without a customer: the provider's own postmaster, and what a removed customer left.
    let mut after = None;
    loop {
        let page = office.store.queues(after, PAGE).await?;
        let Some((last, ..)) = page.last() else { return Ok(rows) };
        after = Some(last.clone());
        for (domain, owner, count) in page {
            if !seen.contains(&domain) {
                rows.push(Queue::new(owner, domain, &count, now));
            }
        }
    }
}
