//! The spool: segments, who may append to which, and what is still alive in each.
//!
//! Called by the writers of bodies, the committer, the readers and the keeper. A segment that takes records is
//! a *lane*, owned by one writer at a time; several large messages stream side by side into lanes of their own.
//! It never decides whether a record counts: that is the index's business, and at recovery the scanner's.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::frame::{FILE_HEAD_BYTES, Nonce, file_head};
use super::record::Location;
use super::sync::{AtomicBool, Mutex, MutexGuard, Ordering, PoisonError};

const MAGIC: [u8; 8] = *b"RSTNSEG1";
/// Lanes that wait for the next large message; further ones are sealed.
const LANES_IDLE_MAX: usize = 8;
/// Files kept open for readers.
const FILES_OPEN_MAX: usize = 128;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Segment {
    /// Its random octets, part of its name.
    pub(crate) nonce: Nonce,
    /// Octets of it that are accounted for.
    pub(crate) len: u64,
    /// Records whose messages are still held.
    pub(crate) live: u64,
    /// Octets of those records.
    pub(crate) live_bytes: u64,
    /// It takes no more records.
    pub(crate) sealed: bool,
    /// Holds octets that nobody could read: kept for a person to look at.
    pub(crate) damaged: bool,
}

impl Segment {
    /// Nothing lives in it, and nothing will.
    pub(crate) fn is_over(&self) -> bool {
        self.sealed && self.live == 0 && !self.damaged
    }
}

/// The right to append to a segment.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) number: u64,
    pub(crate) nonce: Nonce,
    pub(crate) file: Arc<dyn DiskFile>,
    /// End of the records that were committed.
    pub(crate) end: u64,
    /// End of those that are durable.
    pub(crate) synced: u64,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<u64, Segment>,
    next: u64,
    idle: Vec<Lane>,
    born: Vec<u64>,
    files: HashMap<u64, Arc<dyn DiskFile>>,
}

/// All segments.
#[derive(Debug)]
pub(crate) struct Spool {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folder: PathBuf,
    pub(crate) segment_bytes: u64,
    epoch: u32,
    folder_dirty: AtomicBool,
    state: Mutex<State>,
}

/// The name of segment `number`.
pub(crate) fn file_name(number: u64, nonce: &Nonce) -> String {
    format!("seg-{number:010}-{:032x}.spool", u128::from_be_bytes(*nonce))
}

/// Number and nonce of a name that [`file_name`] made.
pub(crate) fn parse_name(name: &str) -> Option<(u64, Nonce)> {
    super::journal::parse(name, "seg-", ".spool")
}

/// The segments in a folder, and names that are none.
pub(crate) fn list(
    disk: &dyn Disk,
    folder: &Path,
) -> io::Result<(BTreeMap<u64, Nonce>, Vec<String>)> {
    let (mut found, mut strange) = (BTreeMap::new(), Vec::new());
    for name in disk.list(folder)? {
        match parse_name(&name) {
            Some((number, nonce)) if found.insert(number, nonce).is_none() => {}
            _ => strange.push(name),
        }
    }
    Ok((found, strange))
}

impl Spool {
    /// A spool over the segments that recovery found; all of them are sealed.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        segments: BTreeMap<u64, Segment>,
        next: u64,
        epoch: u32,
        segment_bytes: u64,
    ) -> Self {
        let state = State { segments, next, ..State::default() };
        let folder_dirty = AtomicBool::new(true);
        let state = Mutex::new(state);
        Self { disk, folder, segment_bytes, epoch, folder_dirty, state }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane with room for `need` octets, or one of its own for something larger than a segment.
    pub(crate) fn take_lane(&self, need: u64) -> io::Result<Lane> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let end = FILE_HEAD_BYTES as u64;
        let number = {
            let mut state = self.locked();
            let fits = |lane: &Lane| lane.end.saturating_add(need) <= self.segment_bytes;
            if let Some(place) = state.idle.iter().position(fits) {
                return Ok(state.idle.swap_remove(place));
            }
            state.next += 1;
            let number = state.next;
            // Known before it exists, so that no checkpoint passes it over.
            let (sealed, damaged) = (false, false);
            let segment = Segment { nonce, len: end, live: 0, live_bytes: 0, sealed, damaged };
            state.segments.insert(number, segment);
            number
        };
        let path = self.folder.join(file_name(number, &nonce));
        let head = file_head(MAGIC, number, &nonce, self.epoch);
        let made = self.disk.create(&path).and_then(|file| file.write_at(&head, 0).map(|()| file));
        let mut state = self.locked();
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                state.segments.remove(&number);
                // Nothing refers to it yet, and it may not even exist.
                let _ = self.disk.remove(&path);
                return Err(error);
            }
        };
        self.folder_dirty.store(true, Ordering::SeqCst);
        state.born.push(number);
        keep_file(&mut state, number, &file);
        Ok(Lane { number, nonce, file, end, synced: 0 })
    }

    /// Takes a lane back after a record was committed or cut off.
    pub(crate) fn give_back(&self, lane: Lane) {
        let mut state = self.locked();
        let full = lane.end.saturating_add(self.segment_bytes / 64) >= self.segment_bytes;
        let surplus = full || state.idle.len() >= LANES_IDLE_MAX;
        if let Some(segment) = state.segments.get_mut(&lane.number) {
            segment.len = lane.end;
            segment.sealed = surplus;
        }
        if !surplus {
            state.idle.push(lane);
        }
    }

    /// Takes a lane back whose last record is to be forgotten.
    pub(crate) fn cut_off(&self, lane: Lane) {
        if lane.file.truncate(lane.end).is_ok() {
            self.give_back(lane);
        } else {
            self.seal(&lane);
        }
    }

    /// Lanes that wait with nothing but the dead in them take no more records, so that their segments can go.
    pub(crate) fn seal_empty(&self) {
        let mut state = self.locked();
        let State { idle, segments, .. } = &mut *state;
        idle.retain(|lane| {
            let Some(segment) = segments.get_mut(&lane.number) else { return false };
            segment.sealed = segment.live == 0 && lane.end > FILE_HEAD_BYTES as u64;
            !segment.sealed
        });
    }

    /// No more records for this segment.
    pub(crate) fn seal(&self, lane: &Lane) {
        if let Some(segment) = self.locked().segments.get_mut(&lane.number) {
            segment.len = lane.end;
            segment.sealed = true;
        }
    }

    /// Notes how far a segment that is still a lane has grown.
    pub(crate) fn grown(&self, lane: &Lane) {
        if let Some(segment) = self.locked().segments.get_mut(&lane.number) {
            segment.len = lane.end;
        }
    }

    /// Segments made since the last call; the journal must name them before a record in them counts.
    pub(crate) fn born(&self) -> Vec<u64> {
        std::mem::take(&mut self.locked().born)
    }

    /// Those could not be named; they must be, the next time.
    pub(crate) fn born_again(&self, numbers: Vec<u64>) {
        self.locked().born.extend(numbers);
    }

    /// Whether files were made or removed since the last call.
    pub(crate) fn folder_was_changed(&self) -> bool {
        self.folder_dirty.swap(false, Ordering::SeqCst)
    }

    /// A live record more.
    pub(crate) fn enter(&self, at: Location) {
        if let Some(segment) = self.locked().segments.get_mut(&at.segment) {
            segment.live += 1;
            segment.live_bytes = segment.live_bytes.saturating_add(at.len);
        }
    }

    /// A live record less.
    pub(crate) fn leave(&self, at: Location) {
        if let Some(segment) = self.locked().segments.get_mut(&at.segment) {
            segment.live = segment.live.saturating_sub(1);
            segment.live_bytes = segment.live_bytes.saturating_sub(at.len);
        }
    }

    /// A snapshot of all segments.
    pub(crate) fn segments(&self) -> BTreeMap<u64, Segment> {
        self.locked().segments.clone()
    }

    /// What is known of one segment.
    pub(crate) fn segment(&self, number: u64) -> Option<Segment> {
        self.locked().segments.get(&number).copied()
    }

    /// The highest number given so far.
    pub(crate) fn last_number(&self) -> u64 {
        self.locked().next
    }

    /// Holds octets that nobody can read; it will not be removed.
    pub(crate) fn set_damaged(&self, number: u64) {
        if let Some(segment) = self.locked().segments.get_mut(&number) {
            segment.damaged = true;
        }
    }

    /// Octets of all segments.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.locked().segments.values().map(|s| s.len).sum()
    }

    /// The file of a segment and its nonce, for reading, if it is open.
    pub(crate) fn open_file(&self, number: u64) -> Option<(Arc<dyn DiskFile>, Nonce)> {
        let state = self.locked();
        Some((state.files.get(&number)?.clone(), state.segments.get(&number)?.nonce))
    }

    /// The same, opened where it is not; `None` if it is gone.
    pub(crate) fn file(&self, number: u64) -> io::Result<Option<(Arc<dyn DiskFile>, Nonce)>> {
        if let Some(open) = self.open_file(number) {
            return Ok(Some(open));
        }
        let Some(nonce) = self.segment(number).map(|segment| segment.nonce) else {
            return Ok(None);
        };
        match self.disk.open(&self.folder.join(file_name(number, &nonce))) {
            Ok(file) => {
                keep_file(&mut self.locked(), number, &file);
                Ok(Some((file, nonce)))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Removes a sealed segment in which nothing lives. Readers that have it open go on reading.
    pub(crate) fn retire(&self, number: u64) -> io::Result<()> {
        let nonce = {
            let mut state = self.locked();
            state.files.remove(&number);
            let Some(segment) = state.segments.remove(&number) else { return Ok(()) };
            segment.nonce
        };
        self.folder_dirty.store(true, Ordering::SeqCst);
        match self.disk.remove(&self.folder.join(file_name(number, &nonce))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Numbers of segments that still take records, and where the committed part of each ends.
    pub(crate) fn open_ends(&self) -> Vec<(u64, u64)> {
        let state = self.locked();
        let open = state.segments.iter().filter(|(_, s)| !s.sealed);
        open.map(|(number, segment)| (*number, segment.len)).collect()
    }
}

fn keep_file(state: &mut State, number: u64, file: &Arc<dyn DiskFile>) {
    if state.files.len() >= FILES_OPEN_MAX {
        state.files.clear();
    }
    state.files.insert(number, file.clone());
}
