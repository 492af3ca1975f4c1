//! Where a password comes from: a file, standard input or a systemd credential; never the command line, which
//! every user of the machine can read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::mail::Secret;

/// Octets of a password file; more is the wrong file.
const FILE_BYTES_MAX: u64 = 4096;
/// The credential that is looked for where nothing else is given.
pub(super) const CREDENTIAL: &str = "password";

/// One of the three places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SecretSource {
    File(PathBuf),
    Stdin,
    /// A name below `$CREDENTIALS_DIRECTORY` (systemd's LoadCredential).
    Credential(String),
}

impl SecretSource {
    /// The first line of the source, without its end.
    ///
    /// # Errors
    /// One line that names the source and what is wrong with it.
    pub(super) fn read(&self) -> Result<Secret, String> {
        match self {
            Self::File(path) => read_file(path),
            Self::Stdin => {
                read_line(io::stdin().lock()).map_err(|why| format!("standard input: {why}"))
            }
            Self::Credential(name) => match credential(name) {
                Some(path) => read_file(&path),
                None => Err(format!(
                    "credential {name}: $CREDENTIALS_DIRECTORY is not set, or the name is not plain"
                )),
            },
        }
    }
}

/// The file of a credential, if systemd gave us a folder of them.
pub(super) fn credential(name: &str) -> Option<PathBuf> {
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|_| plain)?;
    Some(Path::new(&folder).join(name))
}

fn read_file(path: &Path) -> Result<Secret, String> {
    File::open(path)
        .map_err(|error| error.to_string())
        .and_then(read_line)
        .map_err(|why| format!("{}: {why}", path.display()))
}

fn read_line(source: impl Read) -> Result<Secret, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let end = memchr::memchr(b'\n', &bytes).unwrap_or(bytes.len());
    let line = &bytes[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() || bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("expected a password in the first line, and little else".into());
    }
    Ok(Secret::new(line.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        for text in ["pass word", "pass word\n", "pass word\r\n", "pass word\nnote\n"] {
            assert_eq!(read_line(text.as_bytes()), Ok(Secret::from("pass word")));
        }
        for text in ["", "\n", "\r\nx"] {
            assert!(read_line(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(read_line([b'x'; 5000].as_slice()).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = SecretSource::File("/nonexistent/pw".into()).read().expect_err("no such file");
        assert!(error.starts_with("/nonexistent/pw: "), "{error}");
    }
}
