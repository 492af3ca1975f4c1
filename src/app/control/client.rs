//! A command's end of the control socket; blocking, since a command has nothing else to do.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Ask, Line, VERSION};
use crate::app::admin::{Done, Item, Refused, Request, Sent};

/// How long the provider may be silent; removing a large queue is one long silence.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// What is sent behind a request, in chunks; nothing at the end.
pub type Feed<'a> = dyn FnMut() -> Result<Option<Vec<u8>>, Refused> + Send + 'a;

/// A connection to a running provider.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects; nothing if nobody listens there.
    ///
    /// # Errors
    /// Somebody listens, but not for us, or in another language.
    pub fn connect(path: &Path) -> Result<Option<Self>, Refused> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) => return nobody(path, &error),
        };
        let trouble = |error: io::Error| broken(path, &error);
        stream.set_read_timeout(Some(SILENCE_MAX)).map_err(trouble)?;
        let mut client = Self { reader: BufReader::new(stream), path: path.to_owned() };
        match client.line()? {
            Line::Hello { version: VERSION, .. } => Ok(Some(client)),
            Line::Hello { server, .. } => Err(Refused::new(
                format!("the running provider is {server}, this command is of another release"),
                "use the command of the same release, or restart the provider",
            )),
            _ => Err(broken(path, &io::ErrorKind::InvalidData.into())),
        }
    }

    /// Asks, sends what `feed` gives if the request wants it, and gives each item of the answer to `each`.
    ///
    /// # Errors
    /// The provider's refusal, that of `each`, or the connection's end.
    pub fn ask(
        &mut self,
        request: Request,
        feed: &mut Feed<'_>,
        each: &mut dyn FnMut(Item) -> Result<(), Refused>,
    ) -> Result<Done, Refused> {
        let mut goes_on = matches!(request, Request::QueueImport { .. });
        self.say(&Ask { version: VERSION, request })?;
        let mut own = None;
        while goes_on {
            let sent = match feed() {
                Ok(Some(octets)) => Sent::Octets(octets),
                Ok(None) => Sent::End,
                Err(refused) => {
                    own = Some(refused);
                    Sent::Abort
                }
            };
            self.say(&sent)?;
            goes_on = matches!(sent, Sent::Octets(_));
        }
        let answer = self.answer(each);
        own.map_or(answer, Err)
    }

    fn say(&mut self, what: &impl serde::Serialize) -> Result<(), Refused> {
        let mut text =
            serde_json::to_vec(what).map_err(|error| Refused::new(error.to_string(), ""))?;
        text.push(b'\n');
        let sent = self.reader.get_mut().write_all(&text);
        sent.map_err(|error| broken(&self.path, &error))
    }

    fn answer(
        &mut self,
        each: &mut dyn FnMut(Item) -> Result<(), Refused>,
    ) -> Result<Done, Refused> {
        loop {
            match self.line()? {
                Line::Item(item) => each(item)?,
                Line::Done(done) => return Ok(done),
                Line::Refused(refused) => return Err(refused),
                Line::Hello { .. } => {
                    return Err(broken(&self.path, &io::ErrorKind::InvalidData.into()));
                }
            }
        }
    }

    fn line(&mut self) -> Result<Line, Refused> {
        let mut text = Vec::new();
        let read = self.reader.read_until(b'\n', &mut text);
        read.map_err(|error| broken(&self.path, &error))?;
        if text.last() != Some(&b'\n') {
            return Err(broken(&self.path, &io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_slice(&text).map_err(|error| broken(&self.path, &error.into()))
    }
}

fn nobody(path: &Path, error: &io::Error) -> Result<Option<Client>, Refused> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
        io::ErrorKind::PermissionDenied => Err(Refused::new(
            format!("{} may be opened by the provider's user only", path.display()),
            "run the command as that user, or as root",
        )),
        _ => Err(broken(path, error)),
    }
}

fn broken(path: &Path, error: &io::Error) -> Refused {
    Refused::new(
        format!("the running provider does not answer on {}: {error}", path.display()),
        "look at its log",
    )
}
