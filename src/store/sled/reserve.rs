//! Octets kept back on the disk, so that what became of mail can be written down when nothing else fits.
//!
//! Called by the committer when the journal finds no room. Giving them up once is enough for many thousand
//! marks; they are taken again when there is room.

use std::path::PathBuf;

use super::disk::Disk;

/// Octets kept back.
const RESERVE_BYTES: usize = 512 * 1024;

/// A file whose only use is that it can be removed.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    there: bool,
}

impl Reserve {
    /// Takes the octets if there is room; without them everything works but the last resort.
    pub(crate) fn take(disk: &dyn Disk, path: PathBuf) -> Self {
        let mut reserve = Self { path, there: false };
        reserve.refill(disk);
        reserve
    }

    /// Takes the octets again once there is plenty of room for them.
    pub(crate) fn refill_if_room(&mut self, disk: &dyn Disk) {
        if self.there {
            return;
        }
        let folder = self.path.parent().unwrap_or(&self.path);
        let free = disk.space(folder).map_or(0, |(free, _)| free);
        if free > 8 * RESERVE_BYTES as u64 {
            self.refill(disk);
        }
    }

    /// Takes the octets again.
    fn refill(&mut self, disk: &dyn Disk) {
        if self.there {
            return;
        }
        // One that was left behind may be shorter.
        let _ = disk.remove(&self.path);
        // Octets that no file system stores as a hole.
        let filled = disk.create(&self.path).and_then(|file| {
            file.write_at(&vec![0x55; RESERVE_BYTES], 0)?;
            file.sync()
        });
        self.there = filled.is_ok();
        if !self.there {
            let _ = disk.remove(&self.path);
        }
    }

    /// Gives them up; false if there was nothing to give.
    pub(crate) fn give(&mut self, disk: &dyn Disk) -> bool {
        let gave = self.there && disk.remove(&self.path).is_ok();
        self.there = false;
        gave
    }
}
