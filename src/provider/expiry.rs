//! Expiry: mail that was not collected in time has failed, and its sender is told.
//!
//! Run by the program as a background task. It takes the lease like a drain does, so that nothing is given up while
//! it is on its way; what is being drained now is looked at again later. Ages are measured by
//! [`Office::trusted_now`]. It writes no report: it rings for the reporter.
//!
//! Keeps RFC 5321 §4.5.4.1 and §6.1.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ledger::TARGET;
use super::office::Office;
use super::turn::LEASE_LASTS;
use crate::mail::{
    CustomerName, Domain, Outcome, QueueId, RecipientState, ReplyText, Seconds, Timestamp,
};
use crate::store::{Head, LeaseAnswer, LeaseRequest, Settlement, StoreError, Verdict};

/// Recipients looked at in one go.
const PAGE: usize = 256;
/// Most recipients passed over because their queues are being drained.
const PASSED_MAX: usize = 10_000;
/// The lease is held for a moment only.
const LEASE: Duration = Duration::from_secs(60);

/// How often to look, for this time to live: a tenth of it, between a second and a minute.
#[must_use]
pub fn pause(expire_after: Seconds) -> Duration {
    Duration::from_secs((expire_after.0 / 10).clamp(1, 60))
}

/// Gives up whatever is overdue now; answers how many recipients.
///
/// # Errors
/// The store's trouble; what was given up until then is.
pub async fn expire(office: &Office) -> Result<u64, StoreError> {
    let now = office.trusted_now();
    let (mut count, mut passed) = (0, 0);
    while passed < PASSED_MAX {
        let heads = office.store.overdue(now, PAGE + passed).await?;
        let found: usize = heads.iter().map(|head| head.recipients.len()).sum();
        if found <= passed {
            break;
        }
        let settled = give_up(office, &heads, now).await?;
        count += settled as u64;
        if settled == 0 && found < PAGE + passed {
            break;
        }
        // What could not be leased is still in front at the next look.
        passed = found - settled;
    }
    Ok(count)
}

/// Settles what can be leased, queue by queue, then rings for all messages at once: one report for each.
async fn give_up(office: &Office, heads: &[Head], now: Timestamp) -> Result<usize, StoreError> {
    let mut queues: BTreeMap<(CustomerName, Domain), Vec<Settlement>> = BTreeMap::new();
    for head in heads {
        for held in &head.recipients {
            let key = (held.owner.clone(), held.recipient.forward_path.domain().clone());
            let words = words(&held.state, now.since(head.arrived));
            let verdict = Verdict::Said(Outcome::Failed(ReplyText::clean(&words)));
            queues.entry(key).or_default().push(Settlement {
                id: head.id,
                index: held.index,
                verdict,
            });
        }
    }
    let (mut settled, mut messages) = (0, BTreeSet::new());
    for ((customer, domain), settlements) in queues {
        if !settle(office, "expiry", customer.clone(), domain, &settlements).await? {
            continue;
        }
        settled += settlements.len();
        for settlement in &settlements {
            note(settlement.id, &customer, heads, now);
            messages.insert(settlement.id);
        }
    }
    messages.into_iter().for_each(|id| office.owed.ring(id));
    Ok(settled)
}

/// Marks these failed under a lease; false if somebody drains the queue now.
pub(super) async fn settle(
    office: &Office,
    holder: &str,
    customer: CustomerName,
    domain: Domain,
    settlements: &[Settlement],
) -> Result<bool, StoreError> {
    let wish = LeaseRequest {
        customer,
        domains: vec![domain],
        owner: holder.into(),
        lasts: LEASE,
        // Mail may be on its way under a lease that lives, however slow its drain is.
        overthrow_after: LEASE_LASTS,
    };
    let LeaseAnswer::Granted(lease) = office.store.lease(wish).await? else { return Ok(false) };
    let outcome = office.store.settle(&lease, settlements.to_vec()).await;
    office.store.release(lease).await?;
    outcome.map(|()| true)
}

/// Our own words, which begin with an enhanced code: 5.4.7, delivery time expired.
fn words(state: &RecipientState, age: Seconds) -> String {
    let mut text = format!(
        "5.4.7 The recipient's mail server did not collect or take the message within {}",
        spoken(age)
    );
    if let RecipientState::Deferred(reply) = state {
        text.push_str(&format!("; its last answer was: {reply}"));
    }
    text
}

/// A span in the largest unit that fits.
fn spoken(span: Seconds) -> String {
    let (number, unit) = match span.0 {
        seconds @ 172_800.. => (seconds / 86_400, "day"),
        seconds @ 7_200.. => (seconds / 3_600, "hour"),
        seconds @ 120.. => (seconds / 60, "minute"),
        seconds => (seconds, "second"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

fn note(id: QueueId, customer: &CustomerName, heads: &[Head], now: Timestamp) {
    let delay = heads.iter().find(|h| h.id == id).map_or(0, |h| now.since(h.arrived).0);
    let (id, customer) = (id.to_string(), customer.as_str());
    log::info!(target: TARGET, id = id, customer = customer, delay = delay; "expired");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_words() {
        for (seconds, words) in
            [(1, "1 second"), (119, "119 seconds"), (3600, "60 minutes"), (2_592_000, "30 days")]
        {
            assert_eq!(spoken(Seconds(seconds)), words);
        }
        assert_eq!(pause(Seconds(3)), Duration::from_secs(1));
        assert_eq!(pause(Seconds(30 * 86_400)), Duration::from_secs(60));
    }
}
