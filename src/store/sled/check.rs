//! Going through the whole index: is every value sound, what waits in which queue, and what lives in which segment?
//!
//! Called at a start that cannot trust what was counted. It changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::mail::QueueId;
use crate::store::StoreError;
use crate::store::order::Order;
use crate::store::tally::Tally;

use super::index::{self, Index, digest, id_digest};
use super::{Progress, Step};

/// What the index holds.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) tally: Tally,
    pub(crate) order: Order,
    /// Live records and their octets, by segment.
    pub(crate) live: BTreeMap<u64, (u64, u64)>,
    pub(crate) entries: u64,
    pub(crate) digest: u64,
    /// Sum of the digests of ids.
    pub(crate) ids: u64,
    /// Messages whose values are not what was written.
    pub(crate) garbled: Vec<QueueId>,
}

impl Survey {
    /// Whether nothing was found that a rebuilding would mend.
    pub(crate) fn is_sound(&self) -> bool {
        self.garbled.is_empty()
    }
}

/// Reads all of the index. Call with the committer at rest.
pub(crate) fn survey(index: &Index, progress: Progress<'_>) -> Result<Survey, StoreError> {
    let mut survey = Survey::default();
    for pair in index.messages(None)? {
        let (key, value) = pair?;
        survey.entries += 1;
        survey.digest = survey.digest.wrapping_add(digest(&key, &value));
        let Ok(entry) = index::message(&key, &value) else {
            survey.garbled.push(index::message_id(&key));
            continue;
        };
        survey.ids = survey.ids.wrapping_add(id_digest(entry.kept.id));
        let kept = &entry.kept;
        let places = kept.places();
        survey.tally.change(&[], &places, kept.size);
        survey.order.change(kept.id, &[], &places);
        survey.order.retime(kept.id, &BTreeSet::new(), &kept.deadlines());
        let live = survey.live.entry(entry.at.segment).or_default();
        *live = (live.0 + 1, live.1.saturating_add(entry.at.len));
        if survey.entries.is_multiple_of(4096) {
            progress(Step { name: "reading the index", done: survey.entries, total: 0 });
        }
    }
    Ok(survey)
}
