//! Small bodies that were read together with the page of a drain that names them, until they are asked for.
//!
//! Called by the lookup of a page, which fills it, by `open_body`, which empties it, and by the committer, which
//! takes out what is gone. It saves a visit to the blocking threads for each message. It never holds more than a
//! few mebibytes: the oldest go first, and what is not here is read as ever.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use crate::mail::QueueId;

use super::shared::locked;

/// Octets held in all.
const AHEAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Octets read ahead for one page.
pub(crate) const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, Default)]
struct Held {
    bodies: HashMap<QueueId, Vec<u8>>,
    /// In the order of their coming, with some that were taken since.
    order: VecDeque<QueueId>,
    octets: usize,
}

impl Held {
    fn remove(&mut self, id: QueueId) -> Option<Vec<u8>> {
        let body = self.bodies.remove(&id)?;
        self.octets -= body.len();
        Some(body)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Mutex<Held>);

impl Ahead {
    /// Keeps a whole body. Whoever calls looks afterwards whether the message is still there, and takes it out again
    /// if not: the committer may have been faster.
    pub(crate) fn keep(&self, id: QueueId, body: Vec<u8>) {
        let mut held = locked(&self.0);
        held.remove(id);
        held.octets += body.len();
        held.bodies.insert(id, body);
        held.order.push_back(id);
        while held.octets > AHEAD_BYTES_MAX || held.order.len() > 4 * held.bodies.len() + 64 {
            let Some(oldest) = held.order.pop_front() else { break };
            // One that was kept again since stands further back too, and may go early; it is read as ever then.
            held.remove(oldest);
        }
    }

    /// The body, which is not here any more then.
    pub(crate) fn take(&self, id: QueueId) -> Option<Vec<u8>> {
        locked(&self.0).remove(id)
    }
}
