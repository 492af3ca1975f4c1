//! A file that is there whole or not at all: written under another name, synced, and renamed.
//!
//! Called by whoever writes dumps and exports. What an interruption leaves is called `NAME.part` and is never
//! taken for the file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file on its way. Dropped before its end, it is removed.
#[derive(Debug)]
pub struct PartFile {
    path: PathBuf,
    part: PathBuf,
    file: Option<BufWriter<File>>,
}

impl PartFile {
    /// Begins a file, readable by its owner only. One of the same name stays until [`PartFile::finish`].
    ///
    /// # Errors
    /// The system's; `WouldBlock` if somebody else writes this file now.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&part)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)?;
        let file = Some(BufWriter::with_capacity(256 * 1024, file));
        Ok(Self { path: path.to_owned(), part, file })
    }

    /// Makes it durable and gives it its name.
    ///
    /// # Errors
    /// The system's; there is no such file then, or still the old one.
    pub fn finish(mut self) -> io::Result<()> {
        self.name_it(true)?;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()
    }

    /// Gives it its name; the caller sees to it that it becomes durable.
    ///
    /// # Errors
    /// As [`PartFile::finish`].
    pub fn finish_unsynced(mut self) -> io::Result<()> {
        self.name_it(false)
    }

    fn name_it(&mut self, synced: bool) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let done = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| {
            if synced {
                file.sync_all()?;
            }
            std::fs::rename(&self.part, &self.path)
        });
        if done.is_err() {
            // The error that is told is the first one.
            let _ = std::fs::remove_file(&self.part);
        }
        done
    }

    fn open(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.file.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// How much is written.
    ///
    /// # Errors
    /// The system's.
    pub fn position(&mut self) -> io::Result<u64> {
        self.open()?.stream_position()
    }

    /// Forgets what was written from `position` on.
    ///
    /// # Errors
    /// The system's.
    pub fn cut(&mut self, position: u64) -> io::Result<()> {
        let file = self.open()?;
        file.seek(SeekFrom::Start(position))?;
        file.get_ref().set_len(position)
    }
}

impl Write for PartFile {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.open()?.write(octets)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.open()?.flush()
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}
