//! From an older layout to this program's, step by step.
//!
//! Called when a store is opened. Before the first step everything is dumped beside the store; a step writes what
//! the newer layout needs beside what the older one has, then the layout's number changes, and only then what is
//! old is removed. So an interruption anywhere is made good by opening again, and a step that fails leaves a store
//! that the older program can open. migrations/README.md has the steps.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures::executor::block_on;
use futures::io::AllowStdIo;

use crate::mail::Timestamp;
use crate::store::dump::{PartFile, dump};
use crate::store::{Snapshot, StoreError};

use super::disk::{Disk, RealDisk};
use super::state::{self, Layout};
use super::{Progress, Step as Said};

/// One step. It works with reading code of its own, frozen with the layout it starts from.
pub trait Step: Sync {
    /// The layout that it starts from; it leads to the next one.
    fn from(&self) -> u32;
    /// What changes, in a few words.
    fn name(&self) -> &str;
    /// Everything in a store of the older layout. It changes nothing.
    ///
    /// # Errors
    /// The store cannot be read; nothing will be changed then.
    fn read(&self, folder: &Path) -> Result<Box<dyn Snapshot>, StoreError>;
    /// Writes what the newer layout needs, beside what there is. What an interrupted run of it left is there again
    /// at the next one. It need not sync.
    ///
    /// # Errors
    /// The store stays one of the older layout.
    fn make(&self, folder: &Path) -> io::Result<()>;
    /// Removes what only the older layout had. May be called again after an interruption.
    ///
    /// # Errors
    /// It is tried again when the store is opened again.
    fn tidy(&self, folder: &Path) -> io::Result<()>;
}

/// The steps of this program: layout 1 is the first, so there is none yet.
pub const STEPS: &[&dyn Step] = &[];

/// Makes a folder one that a program of layout `newest` can open: a new one gets its number, an older one is walked
/// up to it. The caller holds the store's lock.
///
/// # Errors
/// [`StoreError::Unready`] if it is newer, or half loaded, or cannot be walked; it says why.
pub fn walk(
    disk: &dyn Disk,
    folder: &Path,
    steps: &[&dyn Step],
    newest: u32,
    progress: Progress<'_>,
) -> Result<(), StoreError> {
    let broken = |e: io::Error| StoreError::Broken(format!("{}: {e}", folder.display()));
    let place = folder.display();
    let mut is_dumped = false;
    loop {
        let layout = match state::layout(disk, folder)? {
            Layout::New => return state::write_layout(disk, folder, newest).map_err(broken),
            Layout::HalfLoaded => {
                return Err(StoreError::Unready(format!(
                    "{place} is half loaded, since a `restante load` did not come to its end: run it again"
                )));
            }
            Layout::Whole(layout) if layout == newest => return Ok(()),
            Layout::Coming { from, to } if to <= newest => {
                let step = step(steps, from, folder)?;
                step.tidy(folder).map_err(|e| failed(step, folder, &e))?;
                state::write_layout(disk, folder, to).map_err(broken)?;
                continue;
            }
            Layout::Whole(layout) | Layout::Coming { to: layout, .. } => layout,
        };
        if layout > newest {
            return Err(StoreError::Unready(format!(
                "{place} has layout {layout}; this program knows {newest} and older ones: use a newer program"
            )));
        }
        let step = step(steps, layout, folder)?;
        if !is_dumped {
            dump_first(disk, folder, step, newest, progress)?;
            is_dumped = true;
        }
        log::info!("the store goes from layout {layout} to {}: {}", layout + 1, step.name());
        step.make(folder).and_then(|()| sync_all(folder)).map_err(|e| failed(step, folder, &e))?;
        state::write_coming(disk, folder, layout, layout + 1).map_err(broken)?;
    }
}

fn step<'a>(steps: &[&'a dyn Step], from: u32, folder: &Path) -> Result<&'a dyn Step, StoreError> {
    steps.iter().find(|step| step.from() == from).copied().ok_or_else(|| {
        StoreError::Unready(format!(
            "{} has layout {from}, and this program knows no way from there",
            folder.display()
        ))
    })
}

fn failed(step: &dyn Step, folder: &Path, error: &io::Error) -> StoreError {
    StoreError::Unready(format!(
        "{} could not be brought from layout {} to the next ({}): {error}; nothing is lost: the store is as it was, \
         for this program to try again or for the older one to go on with",
        folder.display(),
        step.from(),
        step.name()
    ))
}

/// The name of the dump: layout, start of the store and date. Each opening counts the starts up, so a dump of the
/// same start holds what is in the store now.
fn dump_name(from: u32, newest: u32, start: u32, now: Option<Timestamp>) -> String {
    let head = format!("before-layout-{newest}-from-{from}-start-{start}-");
    match now {
        None => head,
        Some(now) => {
            let date =
                now.rfc3339().chars().filter(char::is_ascii_alphanumeric).collect::<String>();
            format!("{head}{}.dump", date.get(..15).unwrap_or_default())
        }
    }
}

fn dump_first(
    disk: &dyn Disk,
    folder: &Path,
    step: &dyn Step,
    newest: u32,
    progress: Progress<'_>,
) -> Result<(), StoreError> {
    let parent = folder.parent().unwrap_or(folder);
    let start = state::epoch(disk, folder).unwrap_or(0);
    if let Some(known) = known_dump(parent, newest, start) {
        log::info!("the store was dumped to {} before", known.display());
        return Ok(());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let path = parent.join(dump_name(step.from(), newest, start, Some(now)));
    let not_written = |why: &dyn std::fmt::Display| {
        StoreError::Unready(format!(
            "{} must be dumped before it is brought from layout {} to {newest}, and {} cannot be written: {why}; \
             make room, then start again: nothing was changed",
            folder.display(),
            step.from(),
            path.display()
        ))
    };
    let mut from = step.read(folder)?;
    let mut file = PartFile::create(&path).map_err(|e| not_written(&e))?;
    let mut out = AllowStdIo::new(&mut file);
    let mut tell = |p: crate::store::dump::Progress<'_>| {
        let done = p.summary.messages;
        progress(Said { name: "dumping before the upgrade", done, total: p.messages });
    };
    let summary = block_on(dump(&mut *from, &mut out, &mut tell));
    let summary = summary.map_err(|e| not_written(&e))?;
    file.finish().map_err(|e| not_written(&e))?;
    for id in &summary.damaged {
        log::error!("message {id} cannot be read and is not in the dump");
    }
    log::info!(
        "the store was dumped to {} ({} messages); it is kept",
        path.display(),
        summary.messages
    );
    Ok(())
}

fn known_dump(parent: &Path, newest: u32, start: u32) -> Option<PathBuf> {
    let names = std::fs::read_dir(parent).ok()?;
    let found = names.filter_map(Result::ok).find(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.ends_with(".dump")
            && (1..newest).any(|from| name.starts_with(&dump_name(from, newest, start, None)))
    });
    found.map(|entry| entry.path())
}

/// Everything below the folder into the disk's hands.
fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    RealDisk.sync_folder(folder)
}
