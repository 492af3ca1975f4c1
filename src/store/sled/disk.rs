//! The few things that the spool asks of a file system, behind a trait, so that tests can put a disk beneath it
//! that fails at the n-th call or forgets what was never synced.
//!
//! Called by everything in this room that owns a file, except sled, which opens its own. Never decides anything.

use std::fmt::Debug;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

/// A file system.
pub trait Disk: Send + Sync + Debug {
    /// Makes a folder that only its owner may enter; one that exists is fine.
    ///
    /// # Errors
    /// Those of the system, here and below.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes a file that was not there, readable by its owner only.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file to read and write.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The names in a folder, in no order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Gives a file another name, in the place of one that may be there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renamings and removals in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Octets that an ordinary user may still write, and octets in all.
    fn space(&self, folder: &Path) -> io::Result<(u64, u64)>;
}

/// A file of a [`Disk`].
pub trait DiskFile: Send + Sync + Debug {
    /// Writes all of it at `offset`.
    ///
    /// # Errors
    /// Those of the system, here and below; part of it may have been written.
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()>;
    /// Reads up to `octets.len()`; fewer at the end of the file only.
    fn read_at(&self, octets: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The same if it takes no waiting for a device, because the system has the octets in memory; otherwise `None`.
    fn read_at_once(&self, octets: &mut [u8], offset: u64) -> Option<usize> {
        let _ = (octets, offset);
        None
    }
    /// Returns when the content would survive a power cut.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Whether it is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The machine's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o700))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(folder)?;
        names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn space(&self, folder: &Path) -> io::Result<(u64, u64)> {
        let space = rustix::fs::statvfs(folder)?;
        let octets = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        Ok((octets(space.f_bavail), octets(space.f_blocks)))
    }
}

impl DiskFile for File {
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(octets, offset)
    }

    fn read_at(&self, octets: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < octets.len() {
            match FileExt::read_at(self, &mut octets[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    #[cfg(target_os = "linux")]
    fn read_at_once(&self, octets: &mut [u8], offset: u64) -> Option<usize> {
        let wanted = octets.len();
        let mut place = [io::IoSliceMut::new(octets)];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        // Less than all is what the system has in memory; the rest takes waiting.
        let got = rustix::io::preadv2(self, &mut place, offset, flags);
        got.ok().filter(|got| *got == wanted)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Puts `octets` in the place of the file, whole or not at all, durably.
pub(super) fn replace(disk: &dyn Disk, path: &Path, octets: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match disk.remove(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = disk.create(&fresh)?;
    file.write_at(octets, 0)?;
    file.sync()?;
    disk.rename(&fresh, path)?;
    disk.sync_folder(path.parent().unwrap_or(path))
}

/// The whole of a small file; `None` if there is none.
pub(super) fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut octets = vec![0; len];
    let got = file.read_at(&mut octets, 0)?;
    octets.truncate(got);
    Ok(Some(octets))
}

/// Whether the disk, or what the user may have of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
