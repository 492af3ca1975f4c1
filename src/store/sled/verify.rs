//! Reading everything that is held, to know that it can be read.
//!
//! Called by the program for `store verify`, also beside a running provider. It changes nothing but that a body
//! which cannot be read is set aside, as it would be when a drain came upon it.

use crate::mail::QueueId;
use crate::store::StoreError;

use super::body::read_through;
use super::index::message;
use super::keeper::report_entry;
use super::shared::{Shared, locked};
use super::{Progress, SledStore, Step};

/// Messages looked up at once.
const PAGE: usize = 200;

impl SledStore {
    /// Reads every message from its first octet to its last and answers what is damaged, one line each, with
    /// what was known before. Blocks.
    ///
    /// # Errors
    /// Those of the store; damage is no error.
    pub fn verify(&self, progress: Progress<'_>) -> Result<Vec<String>, StoreError> {
        let total = locked(&self.shared.applied).entries;
        let (mut done, mut after) = (0, None);
        loop {
            let page = page(&self.shared, after)?;
            let Some(last) = page.last() else { break };
            after = Some(last.0);
            for (id, sound) in page {
                done += 1;
                progress(Step { name: "reading messages", done, total });
                if !sound {
                    report_entry(&self.shared, id, &StoreError::Corrupt(id));
                    continue;
                }
                match read_through(&self.shared, id) {
                    // Read, or delivered meanwhile.
                    Ok(()) | Err(StoreError::Missing) => {}
                    Err(StoreError::Corrupt(id)) => {
                        self.shared.report(format!("message {id} cannot be read"));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(locked(&self.shared.damage).clone())
    }
}

/// A page of messages, and whether the index's value of each is what was written.
fn page(shared: &Shared, after: Option<QueueId>) -> Result<Vec<(QueueId, bool)>, StoreError> {
    shared.ask(|index| {
        let pairs = index.messages(after)?.take(PAGE);
        pairs
            .map(|pair| {
                let (key, value) = pair?;
                let bits = key.get(1..17).and_then(|b| b.try_into().ok()).unwrap_or([0; 16]);
                let id = QueueId::from_bits(u128::from_be_bytes(bits));
                Ok((id, message(&key, &value).is_ok()))
            })
            .collect()
    })
}
