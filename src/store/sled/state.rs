//! The small files beside the data: layout, epoch, and how the last run ended.
//!
//! Called at start and at an orderly end. An orderly end leaves what the next start would otherwise have to
//! count. All of them are replaced whole, with a checksum.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::mail::{CustomerName, Domain};
use crate::store::tally::Tally;
use crate::store::{Count, StoreError};

use super::disk::{Disk, read_whole, replace};
use super::ordered;
use super::shared::{Applied, Shared, locked, reading};
use super::spool::Segment;

/// The layout that this program reads and writes.
pub(crate) const LAYOUT: u32 = 1;

/// How the last run stands or ended.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum State {
    /// Somebody runs, or did not end in order.
    Running {
        /// Which start of the machine, and which folder: if they are still the same, the operating system has
        /// everything that was written, and only the process ended.
        machine: String,
    },
    /// Ended in order; this is what was counted.
    Clean(Box<Clean>),
}

/// What an orderly end leaves.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Clean {
    pub(crate) applied: Applied,
    pub(crate) segments: Vec<(u64, Segment)>,
    pub(crate) queues: Vec<(Domain, CustomerName, Count)>,
    pub(crate) live_bytes: u64,
    pub(crate) damage: Vec<String>,
    /// Checksum of the file with the order; a small store has none.
    #[serde(default)]
    pub(crate) order: Option<u32>,
}

impl Clean {
    /// The counts.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (domain, owner, count) in &self.queues {
            tally.set(domain.clone(), owner.clone(), *count);
        }
        tally.set_live_bytes(self.live_bytes);
        tally
    }
}

fn checked(content: &[u8]) -> Vec<u8> {
    let mut octets = format!("{:08x}\n", crc32c::crc32c(content)).into_bytes();
    octets.extend_from_slice(content);
    octets
}

fn unchecked(octets: &[u8]) -> Option<&[u8]> {
    let (line, content) = octets.split_at_checked(9)?;
    let crc = u32::from_str_radix(std::str::from_utf8(&line[..8]).ok()?, 16).ok()?;
    (crc32c::crc32c(content) == crc).then_some(content)
}

/// How the last run ended; `None` if nobody can say.
pub(crate) fn read(disk: &dyn Disk, folder: &Path) -> io::Result<Option<State>> {
    let octets = read_whole(disk, &folder.join("STATE"))?;
    let content = octets.as_deref().and_then(unchecked);
    Ok(content.and_then(|c| serde_json::from_slice(c).ok()))
}

fn write(disk: &dyn Disk, folder: &Path, state: &State) -> io::Result<()> {
    let content = serde_json::to_vec(state).map_err(io::Error::other)?;
    replace(disk, &folder.join("STATE"), &checked(&content))
}

/// Notes that somebody runs.
pub(crate) fn write_running(disk: &dyn Disk, folder: &Path, machine: String) -> io::Result<()> {
    write(disk, folder, &State::Running { machine })
}

/// Notes an orderly end.
pub(crate) fn write_clean(shared: &Shared) -> io::Result<()> {
    let applied = locked(&shared.applied).clone();
    let order = (applied.entries > shared.options.read_at_open_max).then(|| {
        let written = ordered::write(&*shared.disk, &shared.folder, &reading(&shared.order));
        written.inspect_err(|e| log::warn!("the next start takes longer: writing ORDER: {e}")).ok()
    });
    let tally = reading(&shared.tally);
    let clean = Clean {
        applied,
        order: order.flatten(),
        segments: shared.spool.segments().into_iter().collect(),
        queues: tally.page(None, usize::MAX),
        live_bytes: tally.live_bytes(),
        damage: locked(&shared.damage).clone(),
    };
    write(&*shared.disk, &shared.folder, &State::Clean(Box::new(clean)))
}

/// A name for this start of this machine and this copy of the folder. Without one nothing can be concluded.
pub(crate) fn machine(folder: &Path) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let place = std::fs::metadata(folder.join("index")).ok()?;
    Some(format!("{} {}:{}", boot.trim(), place.dev(), place.ino()))
}

/// Takes the folder for this process alone.
pub(crate) fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("LOCK");
    let broken = |e: io::Error| StoreError::Broken(format!("{}: {e}", path.display()));
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(broken)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| StoreError::Transient("another process has it open".into()))?;
    Ok(file)
}

/// What the file LAYOUT says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// There is none: a new store.
    New,
    /// A store of this layout.
    Whole(u32),
    /// A store of layout `to`, beside which lies what is left of layout `from`.
    Coming { from: u32, to: u32 },
    /// A load that has not come to its end.
    HalfLoaded,
}

/// The words in LAYOUT of a store that is half loaded. Older programs refuse them as well.
const HALF_LOADED: &str = "restante store half loaded";

/// The layout on disk.
pub(crate) fn layout(disk: &dyn Disk, folder: &Path) -> Result<Layout, StoreError> {
    let broken = |why: String| StoreError::Broken(format!("LAYOUT: {why}"));
    let octets = read_whole(disk, &folder.join("LAYOUT")).map_err(|e| broken(e.to_string()))?;
    let Some(octets) = octets else { return Ok(Layout::New) };
    let text = String::from_utf8_lossy(&octets);
    if text.trim() == HALF_LOADED {
        return Ok(Layout::HalfLoaded);
    }
    let said = text.trim().strip_prefix("restante store layout ");
    let parsed = said.and_then(|said| match said.split_once(", coming from ") {
        None => said.parse().ok().map(Layout::Whole),
        Some((to, from)) => Some(Layout::Coming { from: from.parse().ok()?, to: to.parse().ok()? }),
    });
    parsed.ok_or_else(|| broken("it does not name a layout".into()))
}

/// Notes that the store has layout `to`, and that what is left of `from` is still to be removed.
pub(crate) fn write_coming(disk: &dyn Disk, folder: &Path, from: u32, to: u32) -> io::Result<()> {
    let text = format!("restante store layout {to}, coming from {from}\n");
    replace(disk, &folder.join("LAYOUT"), text.as_bytes())
}

/// Notes that a load has begun.
pub(crate) fn write_half_loaded(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    replace(disk, &folder.join("LAYOUT"), format!("{HALF_LOADED}\n").as_bytes())
}

/// The last epoch.
pub(crate) fn epoch(disk: &dyn Disk, folder: &Path) -> Option<u32> {
    let noted = read_whole(disk, &folder.join("EPOCH")).ok()??;
    std::str::from_utf8(unchecked(&noted)?).ok()?.trim().parse().ok()
}

/// Writes the layout's number.
pub(crate) fn write_layout(disk: &dyn Disk, folder: &Path, number: u32) -> io::Result<()> {
    let text = format!("restante store layout {number}\n");
    replace(disk, &folder.join("LAYOUT"), text.as_bytes())
}

/// A new epoch, greater than the one noted and than `seen`, the greatest in any file's head.
pub(crate) fn next_epoch(disk: &dyn Disk, folder: &Path, seen: u32) -> io::Result<u32> {
    let path = folder.join("EPOCH");
    read_whole(disk, &path)?;
    let epoch = epoch(disk, folder).unwrap_or(0).max(seen).saturating_add(1);
    replace(disk, &path, &checked(format!("{epoch}\n").as_bytes()))?;
    Ok(epoch)
}
