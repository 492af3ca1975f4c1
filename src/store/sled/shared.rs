//! What the threads of one open store share.
//!
//! Called by all of this room. It decides nothing; it holds the parts together and says whether the store may
//! still be used.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::store::hints::Hints;
use crate::store::leases::Leases;
use crate::store::order::Order;
use crate::store::roster::Roster;
use crate::store::tally::Tally;
use crate::store::{Count, StoreError};

use super::Options;
use super::blocks::Blocks;
use super::committer::Op;
use super::disk::Disk;
use super::index::Index;
use super::recent::Recent;
use super::snapshot::Snapshots;
use super::spool::Spool;
use super::sync::{
    AtomicBool, AtomicU64, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
    RwLockWriteGuard, Sender,
};
use super::turns::Turns;

/// How far the index follows the spool and the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Applied {
    /// Journal file, and the end of its marks that are in the index.
    pub(crate) journal: (u64, u64),
    /// Segments up to this number are in the index, but for the ends below.
    pub(crate) last_segment: u64,
    /// Segments that were still written to, and the end of what is in the index.
    pub(crate) open: Vec<(u64, u64)>,
    /// Messages in the index.
    pub(crate) entries: u64,
    /// Sum of their digests.
    pub(crate) digest: u64,
    /// Sum of the digests of their ids alone; unknown to older programs.
    #[serde(default)]
    pub(crate) ids: Option<u64>,
}

impl Applied {
    /// Where what is not in the index begins in this segment; `None` if all of it is in.
    pub(crate) fn read_from(&self, segment: u64) -> Option<u64> {
        if segment > self.last_segment {
            return Some(0);
        }
        self.open.iter().find(|(open, _)| *open == segment).map(|(_, end)| *end)
    }
}

/// The parts of an open store.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) folder: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) spool: Spool,
    pub(crate) index: RwLock<Option<Index>>,
    pub(crate) tally: RwLock<Tally>,
    /// Changed together with the tally, under both locks.
    pub(crate) order: RwLock<Order>,
    pub(crate) leases: Mutex<Leases>,
    pub(crate) roster: RwLock<Roster>,
    pub(crate) server_key: Mutex<Option<[u8; 32]>>,
    pub(crate) hints: Hints,
    pub(crate) snapshots: Snapshots,
    pub(crate) recent: Recent,
    pub(crate) broken: Mutex<Option<String>>,
    pub(crate) damage: Mutex<Vec<String>>,
    pub(crate) applied: Mutex<Applied>,
    /// What the last checkpoint of this run says.
    pub(crate) checkpointed: Mutex<Option<Applied>>,
    /// The journal's place up to which the index is in the system's hands.
    pub(crate) flushed: Mutex<(u64, u64)>,
    /// Lessons were written that the index may not have handed to the system yet.
    pub(crate) has_lessons: AtomicBool,
    pub(crate) sync_micros: AtomicU64,
    /// What is read of many bodies at once.
    pub(crate) blocks: Blocks,
    /// Those who look messages up and read them for drains: more at once would only be in each other's way.
    pub(crate) readers: Turns,
    /// Octets of bodies that wait in memory.
    pub(crate) buffered: AtomicU64,
    pub(crate) ops: Sender<Op>,
    /// One compaction at a time.
    pub(crate) compacting: Mutex<()>,
    /// Locked for as long as the store is open.
    pub(crate) _lock: File,
}

/// A lock's content; a panic elsewhere does not make it useless, since every change is made in one step.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same for reading.
pub(crate) fn reading<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// The same for writing.
pub(crate) fn writing<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// An error unless the store may be used.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match &*locked(&self.broken) {
            None => Ok(()),
            Some(why) => Err(StoreError::Broken(why.clone())),
        }
    }

    /// From now on nothing is taken and nothing is settled, until it is opened again.
    pub(crate) fn set_broken(&self, why: &str) {
        locked(&self.broken).get_or_insert_with(|| {
            log::error!("the store is broken: {why}");
            why.to_owned()
        });
        self.hints.close();
    }

    /// Notes damage for people to read, each once.
    pub(crate) fn report(&self, line: String) {
        let mut damage = locked(&self.damage);
        if !damage.contains(&line) {
            log::error!("damage in the store: {line}");
            damage.push(line);
        }
    }

    /// Now, on the clock of the leases.
    pub(crate) fn now(&self) -> Duration {
        (self.options.clock)()
    }

    /// Asks the index.
    pub(crate) fn ask<T>(
        &self,
        question: impl FnOnce(&Index) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check()?;
        let guard = reading(&self.index);
        let index = guard.as_ref().ok_or_else(closed)?;
        let answer = question(index);
        if let Err(StoreError::Broken(why)) = &answer {
            self.set_broken(why);
        }
        answer
    }

    /// A count with the age of its oldest message.
    pub(crate) fn with_oldest(
        &self,
        index: &Index,
        domain: &crate::mail::Domain,
        owner: &crate::mail::CustomerName,
        mut count: Count,
    ) -> Result<Count, StoreError> {
        if count.messages == 0 {
            return Ok(count);
        }
        // One that is over has left the index, and not yet its queue.
        let oldest = reading(&self.order).oldest(domain, owner, 8);
        for id in oldest {
            match index.entry(id) {
                Ok(Some((entry, _))) => {
                    count.oldest = Some(entry.kept.arrived);
                    break;
                }
                // Whoever lists it says that it is damaged.
                Ok(None) | Err(StoreError::Corrupt(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Space that must stay free so that what happens to mail can still be written down: an eighth of a small
    /// file system, 64 MiB of a large one.
    pub(crate) fn reserve_bytes(total: u64) -> u64 {
        (total / 8).min(64 * 1024 * 1024)
    }
}

/// The error after `close`.
pub(crate) fn closed() -> StoreError {
    StoreError::Broken("it was closed".into())
}
