//! A store of layout 1 read from spool, journal and directory alone, without opening it: nothing is written.
//!
//! Called by `store verify` where no provider runs, and for the dump before a migration. The index is not looked
//! at; it holds nothing that is not elsewhere. The caller sees to it that nobody has the store open.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::ready;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::FlockOperation;

use crate::mail::{Customer, QueueId};
use crate::store::{Answer, Archived, BodyReader, Snapshot, StoreError};

use super::directory;
use super::disk::{Disk, DiskFile, RealDisk};
use super::frame::Nonce;
use super::reader::Frames;
use super::record::Location;
use super::replay::{self, Fold};
use super::scan::{self, Bodies, Found};
use super::state::{self, Layout};
use super::{Progress, Step, spool};

/// The machine's file system, to look at only.
#[derive(Debug)]
struct ReadOnly;

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnly {
    fn make_folder(&self, _: &Path) -> io::Result<()> {
        refused()
    }
    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(path)?))
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(folder)
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }
    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        refused()
    }
    fn space(&self, folder: &Path) -> io::Result<(u64, u64)> {
        RealDisk.space(folder)
    }
}

/// Looks through a store that nobody has open, to the last octet. It changes nothing. Blocks.
///
/// # Errors
/// [`StoreError::Transient`] if somebody has it open, [`StoreError::Unready`] if it is no store of this program's
/// layout; else as [`Offline::open`].
pub fn verify(folder: &Path, progress: Progress<'_>) -> Result<Offline, StoreError> {
    let _lock = match File::open(folder.join("LOCK")) {
        Ok(file) => {
            let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
            taken.map_err(|_| StoreError::Transient("another process has it open".into()))?;
            Some(file)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(StoreError::Broken(format!("LOCK: {e}"))),
    };
    let place = folder.display();
    let unready = |why: String| Err(StoreError::Unready(format!("{place} {why}")));
    match state::layout(&ReadOnly, folder)? {
        Layout::Whole(state::LAYOUT) => Offline::open(folder, true, progress),
        Layout::New => unready("holds no store yet".into()),
        Layout::HalfLoaded => unready("is half loaded: load the dump again".into()),
        Layout::Whole(other) | Layout::Coming { to: other, .. } => unready(format!(
            "has layout {other}, and this program looks through layout {} only",
            state::LAYOUT
        )),
    }
}

/// What lies in the files of a store.
pub struct Offline {
    spool: PathBuf,
    segments: BTreeMap<u64, Nonce>,
    fold: Fold,
    /// Records that count, by id.
    live: Vec<(QueueId, Location)>,
    bytes: u64,
    damage: Vec<String>,
    customers: Vec<Arc<Customer>>,
    server_key: Option<[u8; 32]>,
    place: usize,
    body: Option<(QueueId, Location, u64, bool)>,
}

impl std::fmt::Debug for Offline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offline").field("spool", &self.spool).finish_non_exhaustive()
    }
}

impl Offline {
    /// Reads the store in `folder`, with `bodies` to the last octet. Blocks as long as reading takes; memory: some
    /// 50 octets a message and what the journal says.
    ///
    /// # Errors
    /// The folder or the journal cannot be read. Damage is no error: see [`Offline::damage`].
    pub fn open(folder: &Path, bodies: bool, progress: Progress<'_>) -> Result<Self, StoreError> {
        let spool = folder.join("spool");
        let broken = |e| StoreError::Broken(format!("reading the spool: {e}"));
        let mut fold = replay::fold(&ReadOnly, &spool, (0, 0))?;
        let (segments, _) = spool::list(&ReadOnly, &spool).map_err(broken)?;
        let mut damage = std::mem::take(&mut fold.damage);
        let missing = fold.missing(&segments);
        damage.extend(missing.iter().map(|number| format!("segment {number} is missing")));
        let read = directory::look(&ReadOnly, folder)?;
        damage.extend(read.damage);
        let mut offline = Self {
            spool,
            segments,
            fold,
            live: Vec::new(),
            bytes: 0,
            damage,
            customers: read.roster.page(None, usize::MAX),
            server_key: read.key,
            place: 0,
            body: None,
        };
        let bodies = if bodies { Bodies::Checked } else { Bodies::Skipped };
        let numbers: Vec<u64> = offline.segments.keys().copied().collect();
        let total = numbers.len() as u64;
        for (done, number) in (0..).zip(numbers) {
            progress(Step { name: "reading the spool", done, total });
            offline.segment(number, bodies).map_err(broken)?;
        }
        // Of two records with one id the later one counts.
        offline.live.sort_by_key(|(id, at)| (*id, at.segment, at.offset));
        offline.live.reverse();
        offline.live.dedup_by_key(|(id, _)| *id);
        offline.live.reverse();
        Ok(offline)
    }

    fn file(&self, number: u64) -> io::Result<(Arc<dyn DiskFile>, Nonce)> {
        let nonce = self.segments.get(&number).ok_or(io::ErrorKind::NotFound)?;
        Ok((ReadOnly.open(&self.spool.join(spool::file_name(number, nonce)))?, *nonce))
    }

    fn segment(&mut self, number: u64, bodies: Bodies) -> io::Result<()> {
        if self.fold.retired.contains(&number) {
            return Ok(());
        }
        let (file, nonce) = match self.file(number) {
            Ok(found) => found,
            Err(error) => {
                self.damage.push(format!("segment {number} cannot be opened: {error}"));
                return Ok(());
            }
        };
        let mut synced = 0;
        let (fold, live, damage, bytes) =
            (&self.fold, &mut self.live, &mut self.damage, &mut self.bytes);
        scan::segment(&*file, number, &nonce, 0, bodies, &mut |found| match found {
            Found::Record { at, tail, sound_body } => {
                synced = synced.max(tail.synced);
                let mut kept = tail.kept;
                if !fold.counts(at, tail.copy, &mut kept) {
                    return;
                }
                if !sound_body || kept.damaged {
                    damage.push(format!(
                        "message {}: its body in segment {number} is damaged",
                        kept.id
                    ));
                }
                *bytes += kept.size;
                live.push((kept.id, at));
            }
            Found::Unreadable { offset, len, id } => {
                damage.extend(fold.lost(number, offset, offset + len, id));
            }
            Found::Unfinished { offset, id } => {
                if fold.was_told(number, offset, synced) {
                    damage.extend(fold.lost(number, offset, offset + 1, id));
                }
            }
        })
    }

    /// Messages that count.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.live.len() as u64
    }

    /// Octets of their bodies.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What cannot be read, one line each.
    #[must_use]
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    fn advance(&mut self) -> Result<Option<Archived>, StoreError> {
        self.body = None;
        let Some((id, at)) = self.live.get(self.place).copied() else { return Ok(None) };
        self.place += 1;
        let failed = |e: io::Error| StoreError::Transient(format!("reading the spool: {e}"));
        let (file, nonce) = self.file(at.segment).map_err(failed)?;
        let tail = scan::one(&*file, &nonce, at.offset).map_err(failed)?;
        let mut kept = tail.ok_or(StoreError::Corrupt(id))?.kept;
        self.fold.counts(at, false, &mut kept);
        self.body = Some((id, at, kept.size, kept.damaged));
        Ok(Some(Archived(kept)))
    }

    fn reader(&self) -> Result<Box<dyn BodyReader>, StoreError> {
        let (id, at, size, damaged) = self.body.ok_or(StoreError::Missing)?;
        if damaged {
            return Err(StoreError::Corrupt(id));
        }
        let found = self.file(at.segment);
        let (file, nonce) =
            found.map_err(|e| StoreError::Transient(format!("opening a body: {e}")))?;
        Ok(Box::new(Body(Frames { file, nonce, id, at, size, place: 0 })))
    }
}

impl Snapshot for Offline {
    fn messages(&self) -> u64 {
        self.messages()
    }
    fn customers(&self) -> Vec<Arc<Customer>> {
        self.customers.clone()
    }
    fn server_key(&self) -> Option<[u8; 32]> {
        self.server_key
    }
    fn next(&mut self) -> Answer<'_, Option<Archived>> {
        Box::pin(ready(self.advance()))
    }
    fn open_body(&mut self) -> Answer<'_, Box<dyn BodyReader>> {
        Box::pin(ready(self.reader()))
    }
}

/// A body out of a segment that nobody moves.
struct Body(Frames);

impl BodyReader for Body {
    fn read(&mut self) -> Answer<'_, Bytes> {
        let octets = match self.0.next() {
            Ok(Some(octets)) => Ok(octets),
            Ok(None) => Err(StoreError::Corrupt(self.0.id)),
            Err(error) => Err(StoreError::Transient(format!("reading a body: {error}"))),
        };
        Box::pin(ready(octets))
    }
    fn size(&self) -> u64 {
        self.0.size
    }
}
