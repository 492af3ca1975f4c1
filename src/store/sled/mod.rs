//! The engine on disk: a spool of segments and a journal that keep the promise, and sled as an index that could
//! be made again from them.
//!
//! Called through the traits of [`crate::store`]. docs/durability.md says what is promised and why in this way;
//! ARCHITECTURE.md how the parts belong together. All blocking work happens on the committer's thread, on the
//! keeper's, or on the threads of the `blocking` crate.

mod blocks;
mod body;
mod check;
mod committer;
mod directory;
pub mod disk;
mod engine;
mod fill;
mod frame;
mod group;
mod index;
mod indexer;
mod intake;
#[cfg(test)]
mod interleavings;
mod journal;
mod keeper;
mod lookup;
pub mod migrate;
mod octets;
pub mod offline;
mod ordered;
mod reader;
mod recent;
mod record;
mod recover;
mod replay;
mod reserve;
mod scan;
#[cfg(test)]
mod shapes;
mod shared;
mod snapshot;
mod spool;
mod state;
#[cfg(test)]
#[path = "../../../tests/store_support/mod.rs"]
mod support;
mod sync;
mod turns;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;

use crate::mail::QueueId;
use crate::store::StoreError;
use crate::store::hints::Hints;
use crate::store::leases::Leases;

use blocks::Blocks;
use committer::{Committer, Op};
use disk::{Disk, RealDisk};
use indexer::Indexer;
use journal::Journal;
use reserve::Reserve;
use shared::{Shared, closed, locked};
use spool::Spool;
use state::Layout;
use sync::{AtomicBool, AtomicU64, Builder, JoinHandle, Mutex, RwLock, Sender, channel};
use turns::Turns;

/// What an answer of success means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It would survive a power cut.
    #[default]
    Fsync,
    /// It would survive the end of the process, and a power cut some seconds later. `Health` says so.
    Relaxed,
}

/// Segments are this large at least, however small the disk is.
const SEGMENT_BYTES_MIN: u64 = 256 * 1024;

/// Readings for drains at once: enough to keep a disk busy, and no thread for each of hundreds of drains.
const READERS_MAX: usize = 8;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// What an answer of success means.
    pub durability: Durability,
    /// Memory for the index, in octets.
    pub cache_bytes: u64,
    /// Octets of a segment, or a sixteenth of the disk if that is less; a larger message has one to itself.
    pub segment_bytes: u64,
    /// A store of up to so many messages is read whole before it opens; a larger one afterwards.
    pub read_at_open_max: u64,
    /// The clock of leases: the time since any fixed point, never going back.
    pub clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// The file system below spool and journal; sled uses the machine's own.
    pub disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Self {
        let start = Instant::now();
        Self {
            durability: Durability::Fsync,
            cache_bytes: 128 * 1024 * 1024,
            segment_bytes: 64 * 1024 * 1024,
            read_at_open_max: 100_000,
            clock: Arc::new(move || start.elapsed()),
            disk: Arc::new(RealDisk),
        }
    }
}

/// The layout of the store in this folder, and the one that this program writes; `None` if there is no store yet.
///
/// # Errors
/// The folder cannot be read, names no layout, or is half loaded.
pub fn layout(folder: &Path) -> Result<(Option<u32>, u32), StoreError> {
    let found = match state::layout(&RealDisk, folder)? {
        Layout::New => None,
        Layout::Whole(layout) | Layout::Coming { to: layout, .. } => Some(layout),
        Layout::HalfLoaded => {
            let why = "a load did not come to its end; repeat `restante load FILE`";
            return Err(StoreError::Unready(why.into()));
        }
    };
    Ok((found, state::LAYOUT))
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("durability", &self.durability)
            .field("cache_bytes", &self.cache_bytes)
            .field("segment_bytes", &self.segment_bytes)
            .finish_non_exhaustive()
    }
}

/// How far a long task is. `total` is zero where nobody knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is being done, for people.
    pub name: &'static str,
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
}

/// Whoever wants to know how far a task is.
pub type Progress<'a> = &'a mut (dyn FnMut(Step) + Send);

/// A store and directory in a folder.
pub struct SledStore {
    shared: Arc<Shared>,
    ended: Mutex<Option<Threads>>,
}

struct Threads {
    committer: JoinHandle<()>,
    keeper: JoinHandle<()>,
    keeper_stop: Sender<()>,
}

impl std::fmt::Debug for SledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledStore").field("folder", &self.shared.folder).finish_non_exhaustive()
    }
}

impl SledStore {
    /// Opens the store in `folder`, or begins one there. Blocks: a few milliseconds after an orderly end, as
    /// long as reading the spool takes after a power cut.
    ///
    /// # Errors
    /// [`StoreError::Transient`] if another process has it open, [`StoreError::Unready`] if it is newer than this
    /// program or half loaded, [`StoreError::Broken`] if the folder cannot be used. Damage inside is no error: see [`crate::store::Health::damage`].
    pub fn open(folder: &Path, options: Options) -> Result<Self, StoreError> {
        Self::open_with(folder, options, false, &mut |_| {})
    }

    /// The same with progress. With `rebuild` the index is made again from spool and journal.
    ///
    /// # Errors
    /// As [`SledStore::open`].
    pub fn open_with(
        folder: &Path,
        options: Options,
        rebuild: bool,
        progress: Progress<'_>,
    ) -> Result<Self, StoreError> {
        let disk = options.disk.clone();
        let broken = |e: std::io::Error| StoreError::Broken(format!("{}: {e}", folder.display()));
        // The folder, the index and the lock are the machine's own whatever the disk below the spool.
        RealDisk.make_folder(folder).map_err(broken)?;
        let lock = state::lock(folder)?;
        disk.make_folder(folder).map_err(broken)?;
        disk.make_folder(&folder.join("spool")).map_err(broken)?;
        migrate::walk(&*disk, folder, migrate::STEPS, state::LAYOUT, progress)?;
        Self::open_ready(folder, options, lock, rebuild, progress)
    }

    /// Goes on where the layout is known to be ours.
    fn open_ready(
        folder: &Path,
        options: Options,
        lock: std::fs::File,
        rebuild: bool,
        progress: Progress<'_>,
    ) -> Result<Self, StoreError> {
        let disk = options.disk.clone();
        let broken = |e: std::io::Error| StoreError::Broken(format!("{}: {e}", folder.display()));
        let found = recover::recover(&*disk, folder, &options, rebuild, progress)?;
        let machine = state::machine(folder).unwrap_or_default();
        state::write_running(&*disk, folder, machine).map_err(broken)?;
        Self::start(folder, options, lock, found)
    }

    fn start(
        folder: &Path,
        options: Options,
        lock: std::fs::File,
        found: recover::Recovered,
    ) -> Result<Self, StoreError> {
        let broken = |e: std::io::Error| StoreError::Broken(format!("{}: {e}", folder.display()));
        let disk = options.disk.clone();
        let spool_folder = folder.join("spool");
        let journal =
            Journal::begin(disk.clone(), spool_folder.clone(), found.next_journal, found.epoch);
        let journal = journal.map_err(broken)?;
        // A small disk has small segments, or nothing of them would ever come free.
        let total = disk.space(folder).map_or(u64::MAX, |(_, total)| total);
        let segment_bytes = options.segment_bytes.min((total / 16).max(SEGMENT_BYTES_MIN));
        let spool = Spool::new(
            disk.clone(),
            spool_folder,
            found.segments,
            found.last_segment,
            found.epoch,
            segment_bytes,
        );
        let mut applied = found.applied;
        applied.journal = journal.position();
        applied.last_segment = found.last_segment;
        applied.open = Vec::new();
        // If nobody can say, everything is looked up.
        let newest = found.index.newest().unwrap_or(Some(QueueId::from_bits(u128::MAX)));
        let newest = newest.unwrap_or(QueueId::from_bits(0));
        let (ops, inbox) = channel();
        let reserve = Reserve::take(&*disk, folder.join("reserve"));
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            disk,
            spool,
            index: RwLock::new(Some(found.index)),
            tally: RwLock::new(found.tally),
            order: RwLock::new(found.order),
            leases: Mutex::new(Leases::new(found.epoch)),
            roster: RwLock::new(found.roster),
            server_key: Mutex::new(found.key),
            hints: Hints::default(),
            snapshots: snapshot::Snapshots::default(),
            recent: recent::Recent::default(),
            broken: Mutex::new(None),
            damage: Mutex::new(found.damage),
            checkpointed: Mutex::new(None),
            has_lessons: AtomicBool::new(false),
            // The last run's checkpoint counts until this one's second, though its first is handed over as well.
            flushed: Mutex::new((0, 0)),
            applied: Mutex::new(applied),
            sync_micros: AtomicU64::new(0),
            blocks: Blocks::default(),
            readers: Turns::new(READERS_MAX),
            buffered: AtomicU64::new(0),
            ops,
            compacting: Mutex::new(()),
            options,
            _lock: lock,
        });
        let indexer = Indexer::begin(shared.clone()).map_err(broken)?;
        let committer = Committer {
            shared: shared.clone(),
            journal,
            log: found.log,
            lane: None,
            reserve,
            indexer,
            newest,
            room: None,
        };
        let thread = Builder::new().name("store-committer".into());
        let watched = shared.clone();
        let committer = thread
            .spawn(move || {
                let run = AssertUnwindSafe(|| committer.run(&inbox));
                if let Err(panic) = catch_unwind(run) {
                    watched.set_broken("the committer panicked");
                    resume_unwind(panic);
                }
            })
            .map_err(broken)?;
        let (keeper_stop, stop) = channel();
        let (kept, unchecked) = (shared.clone(), found.unchecked);
        let thread = Builder::new().name("store-keeper".into());
        let keeper = thread.spawn(move || keeper::run(&kept, &stop, unchecked)).map_err(broken)?;
        let threads = Threads { committer, keeper, keeper_stop };
        Ok(Self { shared, ended: Mutex::new(Some(threads)) })
    }

    /// How many messages there are.
    #[must_use]
    pub fn messages(&self) -> u64 {
        locked(&self.shared.applied).entries
    }
}

impl Drop for SledStore {
    /// Ends in order as `close` does, for those who forgot it.
    fn drop(&mut self) {
        let threads = locked(&self.ended).take();
        // There is nobody to tell.
        let _ = threads.map(|threads| end(&self.shared, threads));
    }
}

/// Ends the threads. Blocks until the last answer is given.
fn end(shared: &Shared, threads: Threads) -> Result<(), StoreError> {
    drop(threads.keeper_stop);
    // A panic of theirs is no reason to panic here.
    let _ = threads.keeper.join();
    let (waiter, mut answer) = oneshot::channel();
    let sent = shared.ops.send(Op::Stop(waiter));
    let _ = threads.committer.join();
    shared.hints.close();
    let ended = match (sent, answer.try_recv()) {
        (Ok(()), Ok(Some(ended))) => ended,
        _ => Err(closed()),
    };
    locked(&shared.broken).get_or_insert_with(|| "it was closed".into());
    ended
}
