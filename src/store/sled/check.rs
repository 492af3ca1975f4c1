//! Going through the whole index: is every value sound, do queues and deadlines follow from the messages, and
//! what lives in which segment?
//!
//! Called at a start that cannot trust what was counted, by the keeper afterwards, and by `verify`. It changes
//! nothing.

use std::collections::BTreeMap;

use crate::mail::QueueId;
use crate::store::StoreError;
use crate::store::tally::Tally;

use super::index::{self, Index, deadline_key, digest, kind, queue_key, unsealed};
use super::octets::Out;
use super::{Progress, Step};

/// What the index holds.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) tally: Tally,
    /// Live records and their octets, by segment.
    pub(crate) live: BTreeMap<u64, (u64, u64)>,
    pub(crate) entries: u64,
    pub(crate) digest: u64,
    /// Messages whose values are not what was written.
    pub(crate) garbled: Vec<QueueId>,
    /// Queues and deadlines are exactly those that the messages ask for.
    pub(crate) consistent: bool,
}

impl Survey {
    /// Whether nothing was found that a rebuilding would mend.
    pub(crate) fn is_sound(&self) -> bool {
        self.garbled.is_empty() && self.consistent
    }
}

/// Reads all of the index. Call with the committer at rest.
pub(crate) fn survey(index: &Index, progress: Progress<'_>) -> Result<Survey, StoreError> {
    let mut survey = Survey::default();
    let (mut queues, mut deadlines) = (0u64, 0u64);
    for pair in index.messages(None)? {
        let (key, value) = pair?;
        survey.entries += 1;
        survey.digest = survey.digest.wrapping_add(digest(&key, &value));
        let Ok(entry) = index::message(&key, &value) else {
            survey.garbled.push(index::message_id(&key));
            continue;
        };
        let kept = &entry.kept;
        let places = kept.places();
        let mut arrived = Out::default();
        arrived.u64(kept.arrived.0);
        for place in &places {
            let key = queue_key(place, kept.id);
            queues = queues.wrapping_add(digest(&key, &arrived.0));
        }
        for time in kept.deadlines() {
            deadlines = deadlines.wrapping_add(digest(&deadline_key(time, kept.id), &[]));
        }
        survey.tally.change(&[], &places, kept.size);
        let live = survey.live.entry(entry.at.segment).or_default();
        *live = (live.0 + 1, live.1.saturating_add(entry.at.len));
        if survey.entries.is_multiple_of(4096) {
            progress(Step { name: "reading the index", done: survey.entries, total: 0 });
        }
    }
    survey.consistent =
        sum(index, kind::QUEUE)? == Some(queues) && sum(index, kind::DEADLINE)? == Some(deadlines);
    Ok(survey)
}

/// The sum over all keys and contents of a kind; `None` if one is garbled.
fn sum(index: &Index, kind: u8) -> Result<Option<u64>, StoreError> {
    let mut sum = 0u64;
    for pair in index.of_kind(kind)? {
        let (key, value) = pair?;
        let Ok(content) = unsealed(&key, &value) else { return Ok(None) };
        sum = sum.wrapping_add(digest(&key, content));
    }
    Ok(Some(sum))
}
