//! The index: every message by its id, in sled, and nothing that could not be made again from the spool and the
//! journal. Queues and deadlines are not in it: they follow from the messages and are kept in memory
//! (`store/order.rs`), since a removal is the dearest thing that sled does.
//!
//! Called by the committer (all changes), by readers, by recovery. Every value carries its version and a
//! checksum over key and content, and a panic inside sled ends here as [`StoreError::Broken`]. It never syncs
//! on anybody's way to an answer: durability comes from the spool and the journal.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::sled::{Db, IVec};

use crate::mail::QueueId;
use crate::store::StoreError;
use crate::store::kept::Kept;

use super::octets::{Garbled, In, Out};
use super::record::{Location, put_kept, put_location, take_kept, take_location};
use super::shared::{reading, writing};
use super::sync::RwLock;

/// The version of values that this program writes.
const VALUE: u8 = 1;

/// How long sled's threads may keep the lock of an index that was closed, and how often it is tried.
const LOCKED_MAX: Duration = Duration::from_secs(10);
const LOCKED_PAUSE: Duration = Duration::from_millis(5);

/// The first octet of a key says what it names.
pub(crate) mod kind {
    pub(crate) const MESSAGE: u8 = b'M';
    pub(crate) const CUSTOMER: u8 = b'U';
    pub(crate) const CHECKPOINT: u8 = b'C';
    pub(crate) const DAMAGE: u8 = b'D';
    pub(crate) const LESSON: u8 = b'L';
}

/// A message and where its record lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kept: Kept,
    pub(crate) at: Location,
}

/// The index, open.
#[derive(Debug)]
pub(crate) struct Index {
    db: Db,
    folder: PathBuf,
    /// Held for writing while a group of changes is applied, for reading by everything else that sled does at a key.
    changing: Arc<RwLock<()>>,
}

/// Runs something of sled's and turns its errors and panics into ours.
pub(crate) fn guarded<T>(work: impl FnOnce() -> ::sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(StoreError::Broken(format!("the index: {error}"))),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(StoreError::Broken(format!("the index panicked: {}", said.unwrap_or("no reason"))))
        }
    }
}

/// Whether sled found the lock of its file taken; it has no error of its own for that.
fn is_locked(error: &StoreError) -> bool {
    matches!(error, StoreError::Broken(why) if why.contains("could not acquire lock"))
}

/// The key of a message.
pub(crate) fn message_key(id: QueueId) -> [u8; 17] {
    let mut key = [kind::MESSAGE; 17];
    key[1..].copy_from_slice(&id.to_bits().to_be_bytes());
    key
}

/// A value as it is kept: version, checksum over key and content, content.
pub(crate) fn sealed(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(5 + content.len());
    value.push(VALUE);
    value.extend_from_slice(&value_checksum(key, content).to_be_bytes());
    value.extend_from_slice(content);
    value
}

fn value_checksum(key: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), content)
}

/// The content of a value, if it is what was written under this key.
pub(crate) fn unsealed<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Garbled> {
    let mut from = In(value);
    let (version, crc) = (from.u8()?, from.u32()?);
    let sound = version == VALUE && crc == value_checksum(key, from.0);
    if sound { Ok(from.0) } else { Err(Garbled) }
}

fn id_at_end(key: &[u8]) -> Option<QueueId> {
    let bits = key.get(key.len().checked_sub(16)?..)?.try_into().ok()?;
    Some(QueueId::from_bits(u128::from_be_bytes(bits)))
}

/// Whose a message's key is; a key of no message is that of nobody.
pub(crate) fn message_id(key: &[u8]) -> QueueId {
    id_at_end(key).unwrap_or(QueueId::from_bits(0))
}

/// A message's value.
pub(crate) fn message_value(entry: &Entry) -> Vec<u8> {
    let mut out = Out(Vec::with_capacity(512));
    put_location(&mut out, entry.at);
    put_kept(&mut out, &entry.kept);
    sealed(&message_key(entry.kept.id), &out.0)
}

/// Reads a message's value.
pub(crate) fn message(key: &[u8], value: &[u8]) -> Result<Entry, Garbled> {
    let mut from = In(unsealed(key, value)?);
    let at = take_location(&mut from)?;
    let kept = take_kept(&mut from)?;
    from.end()?;
    if id_at_end(key) == Some(kept.id) { Ok(Entry { kept, at }) } else { Err(Garbled) }
}

/// A number for one key and value; sums of them tell whether two sets are the same.
pub(crate) fn digest(key: &[u8], value: &[u8]) -> u64 {
    let crc = u64::from(crc32c::crc32c_append(crc32c::crc32c(key), value));
    (crc ^ (crc << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A number for one id; sums of them tell whether two sets of messages are the same, whatever is said about each.
pub(crate) fn id_digest(id: QueueId) -> u64 {
    let bits = id.to_bits().to_be_bytes();
    digest(&bits[..8], &bits[8..]) ^ u64::from(crc32c::crc32c(&bits[8..])).rotate_left(29)
}

impl Index {
    /// Opens or makes the index in `folder`.
    pub(crate) fn open(folder: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let config = ::sled::Config::new()
            .path(folder)
            .cache_capacity(cache_bytes)
            // The keeper flushes, together with its checkpoints.
            .flush_every_ms(None);
        let begun = Instant::now();
        loop {
            match guarded(|| config.open()) {
                Ok(db) => {
                    return Ok(Self { db, folder: folder.to_owned(), changing: Arc::default() });
                }
                // The store's own lock is ours, so this is the last of the threads of an index that this process has
                // just closed.
                Err(error) if is_locked(&error) && begun.elapsed() < LOCKED_MAX => {
                    std::thread::sleep(LOCKED_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A message and the digest of its value.
    pub(crate) fn entry(&self, id: QueueId) -> Result<Option<(Entry, u64)>, StoreError> {
        let key = message_key(id);
        let Some(value) = self.question(|db| db.get(key))? else { return Ok(None) };
        let entry = message(&key, &value).map_err(|_| StoreError::Corrupt(id))?;
        Ok(Some((entry, digest(&key, &value))))
    }

    /// The greatest id of all.
    pub(crate) fn newest(&self) -> Result<Option<QueueId>, StoreError> {
        let mut all = self.messages(None)?;
        let last = self.question(|_| all.iter.next_back().transpose())?;
        Ok(last.map(|(key, _)| message_id(&key)))
    }

    /// Applies a group of changes. A question is answered before it or behind it, a listing goes on behind it; a life of the
    /// store that ends in between may leave part of it (docs/decisions/0006-no-batches.md).
    pub(crate) fn apply(&self, mut changes: Changes) -> Result<(), StoreError> {
        // Removals are cheaper from neighbours. What comes is left as it is: put in by key it would leave sled's nodes half
        // empty.
        if changes.keys.iter().all(|(_, value)| value.is_none()) {
            changes.keys.sort_unstable();
        }
        let _alone = writing(&self.changing);
        guarded(|| {
            for (key, value) in changes.keys {
                match value {
                    Some(value) => self.db.insert(key, value)?,
                    None => self.db.remove(key)?,
                };
            }
            Ok(())
        })
    }

    /// All messages after `after`, by id: their keys and values.
    pub(crate) fn messages(&self, after: Option<QueueId>) -> Result<Raw, StoreError> {
        let from = match after.map(|id| id.to_bits().checked_add(1)) {
            None => message_key(QueueId::from_bits(0)).to_vec(),
            Some(Some(next)) => message_key(QueueId::from_bits(next)).to_vec(),
            Some(None) => vec![kind::MESSAGE + 1],
        };
        self.raw(from, vec![kind::MESSAGE + 1])
    }

    /// The next messages after `after`, at most `limit`, by id; `None` for one whose value is not what was written.
    pub(crate) fn page(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<(QueueId, Option<Entry>)>, StoreError> {
        let pairs = self.messages(after)?.take(limit);
        pairs
            .map(|pair| {
                let (key, value) = pair?;
                Ok((message_id(&key), message(&key, &value).ok()))
            })
            .collect()
    }

    /// All keys and values of one kind.
    pub(crate) fn of_kind(&self, kind: u8) -> Result<Raw, StoreError> {
        self.raw(vec![kind], vec![kind + 1])
    }

    fn raw(&self, from: Vec<u8>, to: Vec<u8>) -> Result<Raw, StoreError> {
        let iter = guarded(|| Ok(self.db.range(from..to)))?;
        Ok(Raw { iter, changing: self.changing.clone() })
    }

    /// Asks sled, or changes a single value, while no group of changes is applied.
    fn question<T>(&self, ask: impl FnOnce(&Db) -> ::sled::Result<T>) -> Result<T, StoreError> {
        let _others_too = reading(&self.changing);
        guarded(|| ask(&self.db))
    }

    /// The content of a single value.
    pub(crate) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.question(|db| db.get(key))?;
        Ok(value.and_then(|v| unsealed(key, &v).ok().map(<[u8]>::to_vec)))
    }

    /// Sets a single value.
    pub(crate) fn set(&self, key: &[u8], content: &[u8]) -> Result<(), StoreError> {
        self.question(|db| db.insert(key, sealed(key, content)).map(|_| ()))
    }

    /// Removes a single value.
    pub(crate) fn unset(&self, key: &[u8]) -> Result<(), StoreError> {
        self.question(|db| db.remove(key).map(|_| ()))
    }

    /// Hands everything to the system. It survives the end of the process then, but not a power cut.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        guarded(|| self.db.flush().map(|_| ()))
    }

    /// Makes everything durable: sled's own flush is not enough (see docs/durability.md).
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.flush()?;
        let broken = |e| StoreError::Broken(format!("syncing the index: {e}"));
        sync_all(&self.folder).map_err(broken)
    }

    /// Octets on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        guarded(|| self.db.size_on_disk()).unwrap_or(0)
    }
}

fn sync_all(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            File::open(&path)?.sync_data()?;
        }
    }
    File::open(folder)?.sync_all()
}

/// Keys and values as they are.
pub(crate) struct Raw {
    iter: ::sled::Iter,
    changing: Arc<RwLock<()>>,
}

impl Iterator for Raw {
    type Item = Result<(IVec, IVec), StoreError>;
    fn next(&mut self) -> Option<Self::Item> {
        let _others_too = reading(&self.changing);
        guarded(|| self.iter.next().transpose()).transpose()
    }
}

/// Changes of the index, in their order: a key and its value, or none where it goes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    keys: Vec<(IVec, Option<Vec<u8>>)>,
}

impl Changes {
    /// The message stood as `before` and stands as `after`; answers the digest of its new value.
    pub(crate) fn replace(&mut self, before: Option<&Entry>, after: Option<&Entry>) -> u64 {
        let Some(id) = after.or(before).map(|e| e.kept.id) else { return 0 };
        let key = message_key(id);
        let Some(after) = after else {
            self.remove(&key);
            return 0;
        };
        let value = message_value(after);
        let sum = digest(&key, &value);
        self.keys.push((IVec::from(&key), Some(value)));
        sum
    }

    /// Sets a value.
    pub(crate) fn insert(&mut self, key: &[u8], content: &[u8]) {
        self.keys.push((IVec::from(key), Some(sealed(key, content))));
    }

    /// Removes a key.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.keys.push((IVec::from(key), None));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}
