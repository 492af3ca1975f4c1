//! A store that is being loaded: from the first record to the last its folder says so, and nobody else opens it.
//!
//! Called for `restante load`. It fills an empty store only, or one that an earlier load left half done, which it
//! empties first. It never touches a store that somebody may have mail in.

use std::io;
use std::path::Path;

use futures::executor::block_on;

use crate::store::{Directory, Filter, Store, StoreError};

use super::disk::{Disk, RealDisk};
use super::state::{self, Layout};
use super::{Options, SledStore, migrate};

/// What a half loaded store is made of, besides its lock, its layout and the count of its starts.
const FILES: [&str; 5] =
    ["STATE", "directory.log", "directory.log.damaged", "reserve", "STATE.new"];

impl SledStore {
    /// Opens the store in `folder` to be loaded, or begins one there. Until [`SledStore::filled`] it can be opened
    /// in no other way. `Ok(None)`: there is something in it. Blocks.
    ///
    /// # Errors
    /// As [`SledStore::open`].
    pub fn open_to_fill(folder: &Path, options: Options) -> Result<Option<Self>, StoreError> {
        let broken = |e: io::Error| StoreError::Broken(format!("{}: {e}", folder.display()));
        let disk = options.disk.clone();
        RealDisk.make_folder(folder).map_err(broken)?;
        let lock = state::lock(folder)?;
        disk.make_folder(&folder.join("spool")).map_err(broken)?;
        if state::layout(&*disk, folder)? == Layout::HalfLoaded {
            empty(&*disk, folder).map_err(broken)?;
        } else {
            migrate::walk(&*disk, folder, migrate::STEPS, state::LAYOUT, &mut |_| {})?;
        }
        let store = Self::open_ready(folder, options, lock, false, &mut |_| {})?;
        if !block_on(store.is_empty())? {
            return Ok(None);
        }
        state::write_half_loaded(&*disk, folder).map_err(broken)?;
        Ok(Some(store))
    }

    /// Whether there is neither mail nor a customer, nor damage that may have been either.
    async fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.query(Filter::default(), None, 1).await?.is_empty()
            && self.customers(None, 1).await?.is_empty()
            && self.health().await?.damage.iter().all(|line| line.starts_with("durability")))
    }

    /// Closes a store that is loaded; from now on it is one like any other. Blocks.
    ///
    /// # Errors
    /// It still counts as half loaded.
    pub fn filled(self) -> Result<(), StoreError> {
        block_on(self.close())?;
        let done = state::write_layout(&*self.shared.disk, &self.shared.folder, state::LAYOUT);
        done.map_err(|e| StoreError::Transient(format!("noting the end of the load: {e}")))
    }
}

/// Removes what an earlier load left.
fn empty(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let spool = folder.join("spool");
    for name in disk.list(&spool)? {
        disk.remove(&spool.join(name))?;
    }
    disk.sync_folder(&spool)?;
    let there = disk.list(folder)?;
    for name in FILES.iter().filter(|name| there.iter().any(|have| have == *name)) {
        disk.remove(&folder.join(name))?;
    }
    disk.sync_folder(folder)?;
    match std::fs::remove_dir_all(folder.join("index")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
