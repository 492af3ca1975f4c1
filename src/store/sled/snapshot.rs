//! The store as it stood at one moment, while it goes on.
//!
//! Called for dumps. The committer tells of each change before it applies it; so a listing that takes its time
//! finds every message as it stood when the listing began. The list goes to a file without a name, and as long
//! as the snapshot lives no segment is removed: bodies are read from where they lay, whatever became of their
//! messages since. It changes nothing but that a body which cannot be read is set aside.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Bound;
use std::sync::Arc;

use crate::mail::{Customer, QueueId};
use crate::store::{Answer, Archived, BodyReader, Snapshot, StoreError};

use super::index::{Entry, message, message_key, message_value};
use super::reader::Reader;
use super::record::Location;
use super::shared::{Shared, closed, locked, reading};
use super::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, off};

/// Messages listed while the committer waits.
const PAGE: usize = 500;
/// Descriptions read back at once.
const READ_AHEAD: usize = 100;
/// Longest description that is believed.
const VALUE_BYTES_MAX: u32 = 32 * 1024 * 1024;

/// What the threads of a store know about snapshots.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// One listing at a time.
    listing: Mutex<()>,
    before: Mutex<Option<Before>>,
    pins: AtomicUsize,
}

/// How messages stood that were changed since a listing began and before it came to them.
#[derive(Debug, Default)]
pub(crate) struct Before {
    listed: Option<QueueId>,
    /// `None`: there was no such message.
    stood: BTreeMap<QueueId, Option<Entry>>,
}

/// No change is applied while this lives.
pub(crate) type Moment<'a> = MutexGuard<'a, Option<Before>>;

impl Snapshots {
    /// Called by the committer before it applies changes, with how each message stood. What is given back is to
    /// be kept until all of them are applied, so that a listing begins between two groups.
    pub(crate) fn note<'a, 'e>(
        &'a self,
        changes: impl Iterator<Item = (QueueId, Option<&'e Entry>)>,
    ) -> Moment<'a> {
        let mut guard = locked(&self.before);
        if let Some(before) = &mut *guard {
            for (id, entry) in changes.filter(|(id, _)| before.listed.is_none_or(|l| *id > l)) {
                before.stood.entry(id).or_insert_with(|| entry.cloned());
            }
        }
        guard
    }

    /// Whether segments must stay although nothing in them lives.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::SeqCst) > 0
    }
}

/// Keeps segments from being removed.
struct Pin(Arc<Shared>);

impl Pin {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.snapshots.pins.fetch_add(1, Ordering::SeqCst);
        Self(shared.clone())
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.snapshots.pins.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ends a listing, however it ended.
struct Listing<'a>(&'a Shared);

impl Drop for Listing<'_> {
    fn drop(&mut self) {
        *locked(&self.0.snapshots.before) = None;
    }
}

/// See the module.
pub(crate) struct SledSnapshot {
    pin: Pin,
    list: Option<BufReader<File>>,
    ahead: VecDeque<Result<Entry, StoreError>>,
    messages: u64,
    customers: Vec<Arc<Customer>>,
    server_key: Option<[u8; 32]>,
    /// Where the body of the last message lies.
    body: Option<(QueueId, Location, u64, bool)>,
}

impl SledSnapshot {
    /// Lists everything. Blocks: some seconds for a million messages.
    pub(crate) fn take(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let pin = Pin::new(shared);
        let _alone = locked(&shared.snapshots.listing);
        let failed = |e: io::Error| StoreError::Transient(format!("listing what there is: {e}"));
        let mut list = BufWriter::with_capacity(256 * 1024, nameless(shared).map_err(failed)?);
        let (customers, server_key) = {
            let mut before = locked(&shared.snapshots.before);
            shared.check()?;
            *before = Some(Before::default());
            (reading(&shared.roster).page(None, usize::MAX), *locked(&shared.server_key))
        };
        let _listing = Listing(shared);
        let mut messages = 0;
        loop {
            let page = page(shared)?;
            if page.is_empty() {
                break;
            }
            messages += page.len() as u64;
            page.iter().try_for_each(|(id, entry)| put(&mut list, *id, entry)).map_err(failed)?;
        }
        let mut file = list.into_inner().map_err(|e| failed(e.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let list = Some(BufReader::with_capacity(256 * 1024, file));
        let ahead = VecDeque::new();
        Ok(Self { pin, list, ahead, messages, customers, server_key, body: None })
    }

    async fn advance(&mut self) -> Result<Option<Archived>, StoreError> {
        self.body = None;
        if self.ahead.is_empty() {
            let Some(mut list) = self.list.take() else { return Err(closed()) };
            let read = off(move || {
                let some: io::Result<Vec<_>> =
                    (0..READ_AHEAD).map_while(|_| take(&mut list).transpose()).collect();
                (list, some)
            });
            let (list, some) = read.await;
            self.list = Some(list);
            let failed = |e: io::Error| StoreError::Transient(format!("reading the list: {e}"));
            self.ahead.extend(some.map_err(failed)?);
        }
        let Some(entry) = self.ahead.pop_front().transpose()? else { return Ok(None) };
        let Entry { kept, at } = entry;
        self.body = Some((kept.id, at, kept.size, kept.damaged));
        Ok(Some(Archived(kept)))
    }
}

/// A file that nobody else sees and that goes away with us.
fn nameless(shared: &Shared) -> io::Result<File> {
    let path = shared.folder.join("list.new");
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = options.read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// The next messages as they stood; `None` for one whose entry is damaged. Empty at the end.
fn page(shared: &Shared) -> Result<Vec<(QueueId, Option<Entry>)>, StoreError> {
    let mut guard = locked(&shared.snapshots.before);
    let before = guard.get_or_insert_with(Before::default);
    loop {
        let now = shared.ask(|index| index.page(before.listed, PAGE))?;
        let end = if now.len() < PAGE { None } else { now.last().map(|(id, _)| *id) };
        let to = end.map_or(Bound::Unbounded, Bound::Included);
        let from = before.listed.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page: BTreeMap<QueueId, Option<Entry>> = now.into_iter().collect();
        for (id, stood) in before.stood.range((from, to)) {
            match stood {
                Some(entry) => page.insert(*id, Some(entry.clone())),
                None => page.remove(id),
            };
        }
        let last =
            end.or_else(|| before.stood.keys().last().copied().max(page.keys().last().copied()));
        before.listed = last.or(before.listed);
        if let Some(listed) = before.listed {
            before.stood = before.stood.split_off(&listed);
            before.stood.remove(&listed);
        }
        // All of a page may be new; the end is only where the index has no more.
        if !page.is_empty() || end.is_none() {
            return Ok(page.into_iter().collect());
        }
    }
}

fn put(list: &mut impl Write, id: QueueId, entry: &Option<Entry>) -> io::Result<()> {
    let value = entry.as_ref().map(message_value).unwrap_or_default();
    list.write_all(&id.to_bits().to_be_bytes())?;
    list.write_all(&u32::try_from(value.len()).map_err(io::Error::other)?.to_be_bytes())?;
    list.write_all(&value)
}

fn take(list: &mut impl Read) -> io::Result<Option<Result<Entry, StoreError>>> {
    let (mut bits, mut len) = ([0; 16], [0; 4]);
    match list.read_exact(&mut bits) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    list.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len);
    if len > VALUE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut value = vec![0; len as usize];
    list.read_exact(&mut value)?;
    let id = QueueId::from_bits(u128::from_be_bytes(bits));
    Ok(Some(message(&message_key(id), &value).map_err(|_| StoreError::Corrupt(id))))
}

impl Snapshot for SledSnapshot {
    fn messages(&self) -> u64 {
        self.messages
    }

    fn customers(&self) -> Vec<Arc<Customer>> {
        self.customers.clone()
    }

    fn server_key(&self) -> Option<[u8; 32]> {
        self.server_key
    }

    fn next(&mut self) -> Answer<'_, Option<Archived>> {
        Box::pin(self.advance())
    }

    fn open_body(&mut self) -> Answer<'_, Box<dyn BodyReader>> {
        let (shared, body) = (self.pin.0.clone(), self.body);
        Box::pin(async move {
            let (id, at, size, damaged) = body.ok_or(StoreError::Missing)?;
            if damaged {
                return Err(StoreError::Corrupt(id));
            }
            let opened = off(move || Reader::open_at(&shared, id, at, size));
            Ok(Box::new(opened.await?) as Box<dyn BodyReader>)
        })
    }
}
