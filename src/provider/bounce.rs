//! Bounce: an operator ends messages before their time, and their senders are told.
//!
//! Called by the administration. It marks recipients as failed under the lease, like expiry, and rings for the
//! reporter; what is being drained now is left alone. Mail with the null reverse-path has nobody to be told and is
//! not touched (RFC 5321 §4.5.5).

use std::collections::{BTreeMap, BTreeSet};

use super::expiry::settle;
use super::office::Office;
use crate::mail::{CustomerName, Domain, Outcome, QueueId, RecipientState, ReplyText};
use crate::store::{Filter, Head, Settlement, StoreError, Verdict};

/// Messages looked at in one go.
const PAGE: usize = 256;

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounced {
    /// Messages whose senders are told.
    pub messages: u64,
    /// Messages that are on their way to the customer right now.
    pub busy: u64,
    /// Messages with the null reverse-path.
    pub untold: u64,
}

/// Ends the recipients that the filter means.
///
/// # Errors
/// The store's; what was ended until then is.
pub async fn bounce(office: &Office, filter: &Filter) -> Result<Bounced, StoreError> {
    let (mut bounced, mut after) = (Bounced::default(), None);
    loop {
        let heads = office.store.query(filter.clone(), after, PAGE).await?;
        let Some(last) = heads.last() else { return Ok(bounced) };
        after = Some(last.id);
        let (untold, heads): (Vec<Head>, Vec<Head>) =
            heads.into_iter().partition(|head| head.envelope.reverse_path.is_null());
        bounced.untold += untold.len() as u64;
        let busy = end(office, &heads).await?;
        for head in heads {
            if busy.contains(&head.id) {
                bounced.busy += 1;
            } else {
                bounced.messages += 1;
            }
            office.owed.ring(head.id);
        }
    }
}

/// Answers which messages are being drained.
async fn end(office: &Office, heads: &[Head]) -> Result<BTreeSet<QueueId>, StoreError> {
    let mut queues: BTreeMap<(CustomerName, Domain), Vec<Settlement>> = BTreeMap::new();
    for head in heads {
        for held in head.recipients.iter().filter(|held| !held.state.is_over()) {
            let key = (held.owner.clone(), held.recipient.forward_path.domain().clone());
            let verdict = Verdict::Said(Outcome::Failed(ReplyText::clean(&words(&held.state))));
            let settlement = Settlement { id: head.id, index: held.index, verdict };
            queues.entry(key).or_default().push(settlement);
        }
    }
    let mut busy = BTreeSet::new();
    for ((customer, domain), settlements) in queues {
        if !settle(office, "bounce", customer, domain, &settlements).await? {
            busy.extend(settlements.iter().map(|settlement| settlement.id));
        }
    }
    Ok(busy)
}

/// Our own words, which begin with an enhanced code: 5.7.1, a decision of the site.
fn words(state: &RecipientState) -> String {
    let text = "5.7.1 Returned by the operator of the server that held it for the recipient's own";
    match state {
        RecipientState::Deferred(reply) => format!("{text}; that one's last answer was: {reply}"),
        _ => text.to_owned(),
    }
}
