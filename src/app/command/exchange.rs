//! `restante queue export` and `queue import`: messages as files.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{Failure, ask, unexpected};
use crate::app::admin::{Done, Exported, Item, Refused, Request, Select};
use crate::app::backend::Backend;
use crate::app::cli::ExportArgs;
use crate::app::mbox;
use crate::app::output::{Out, tell};
use crate::app::progress::Progress;
use crate::mail::QueueId;
use crate::store::dump::PartFile;

/// Octets sent at once.
const CHUNK_BYTES: usize = 48 * 1024;
/// Longest envelope that is read.
const ENVELOPE_BYTES_MAX: u64 = 64 << 20;

/// Where messages go.
enum Sink {
    /// A pair of files for each.
    Files { folder: PathBuf, open: Option<(Exported, PartFile)> },
    /// All into one; where the last one began.
    Mbox {
        file: PathBuf,
        writer: Box<mbox::Writer<PartFile>>,
        open: Option<(Option<QueueId>, u64)>,
    },
}

pub(super) fn export(args: &ExportArgs, desk: &mut Backend, out: &mut Out) -> Result<(), Failure> {
    let filter = Select { domain: args.domain.clone(), ..Select::default() };
    let total = match ask(desk, Request::QueueCount { filter: filter.clone() })? {
        Done::Count { messages } => messages,
        _ => return Err(unexpected().into()),
    };
    let name = args.domain.as_ref().map_or_else(|| "all".into(), ToString::to_string);
    let mut sink = Sink::open(&args.to, &name, args.mbox)?;
    let mut progress = Progress::new(args.quiet);
    let (mut messages, mut spoiled) = (0, Vec::new());
    desk.ask(Request::QueueExport { filter }, &mut |item| match item {
        Item::Envelope(envelope) => {
            sink.end()?;
            messages += 1;
            progress.at("messages exported", messages, total.max(messages));
            sink.begin(*envelope)
        }
        Item::Body(octets) => sink.write(&octets),
        Item::Spoiled(id) => {
            messages -= u64::from(sink.drop_open(id)?);
            spoiled.push(id);
            Ok(())
        }
        _ => Err(unexpected()),
    })?;
    let place = sink.finish()?;
    progress.end();
    if out.is_text() {
        out.line(&format!("{}: {messages} message(s)", place.display()))?;
    } else {
        let (to, bad) = (place.display().to_string(), spoiled.len());
        out.json(&serde_json::json!({"to": to, "messages": messages, "unreadable": bad}))?;
    }
    for id in &spoiled {
        tell(&format!("restante: message {id} cannot be read and was not exported"));
    }
    if spoiled.is_empty() { Ok(()) } else { Err(Failure::Told(1)) }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Refused + '_ {
    move |error| {
        let what = format!("{} cannot be written: {error}", path.display());
        Refused::new(what, "make room, or choose another folder")
    }
}

/// An envelope of the same message for other recipients is not replaced: an export of another domain left it.
fn spare(beside: &Path, envelope: &Exported) -> Result<(), Refused> {
    let Ok(octets) = std::fs::read(beside) else { return Ok(()) };
    let addresses = |of: &Exported| -> Vec<String> {
        of.forward_paths.iter().map(|path| path.address.clone()).collect()
    };
    let there = serde_json::from_slice::<Exported>(&octets);
    if there.is_ok_and(|there| addresses(&there) == addresses(envelope)) {
        return Ok(());
    }
    let what = format!("{} holds other recipients of the same message", beside.display());
    Err(Refused::new(what, "export into a folder of its own"))
}

impl Sink {
    fn open(folder: &Path, name: &str, mbox: bool) -> Result<Self, Refused> {
        let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(folder);
        made.map_err(failed(folder))?;
        if !mbox {
            return Ok(Self::Files { folder: folder.to_owned(), open: None });
        }
        let file = folder.join(format!("{name}.mbox"));
        let part = PartFile::create(&file).map_err(failed(&file))?;
        Ok(Self::Mbox { writer: Box::new(mbox::Writer::new(part)), file, open: None })
    }

    fn begin(&mut self, envelope: Exported) -> Result<(), Refused> {
        match self {
            Self::Files { folder, open } => {
                let id = envelope.id.ok_or_else(unexpected)?;
                spare(&folder.join(format!("{id}.json")), &envelope)?;
                let file = folder.join(format!("{id}.eml"));
                *open = Some((envelope, PartFile::create(&file).map_err(failed(&file))?));
                Ok(())
            }
            Self::Mbox { file, writer, open } => {
                let begun = writer.out().position().and_then(|at| {
                    *open = Some((envelope.id, at));
                    writer.begin(&envelope)
                });
                begun.map_err(failed(file))
            }
        }
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), Refused> {
        match self {
            Self::Files { folder, open: Some((_, part)) } => {
                part.write_all(octets).map_err(failed(folder))
            }
            Self::Mbox { file, writer, open: Some(_) } => {
                writer.write(octets).map_err(failed(file))
            }
            _ => Err(unexpected()),
        }
    }

    /// The message that was begun is whole. Its envelope comes last: without one it is no message.
    fn end(&mut self) -> Result<(), Refused> {
        match self {
            Self::Files { folder, open } => {
                let Some((envelope, part)) = open.take() else { return Ok(()) };
                let id = envelope.id.ok_or_else(unexpected)?;
                let written = part.finish_unsynced().and_then(|()| {
                    let mut beside = PartFile::create(&folder.join(format!("{id}.json")))?;
                    let mut text = serde_json::to_vec_pretty(&envelope)?;
                    text.push(b'\n');
                    beside.write_all(&text)?;
                    beside.finish_unsynced()
                });
                written.map_err(failed(folder))
            }
            Self::Mbox { file, writer, open } => match open.take() {
                Some(_) => writer.end().map_err(failed(file)),
                None => Ok(()),
            },
        }
    }

    /// The message that was begun, if it is this one, cannot be read to its end. Answers whether it was.
    fn drop_open(&mut self, id: QueueId) -> Result<bool, Refused> {
        match self {
            Self::Files { open, .. } => {
                let is_it = open.as_ref().is_some_and(|(envelope, _)| envelope.id == Some(id));
                if is_it {
                    *open = None;
                }
                Ok(is_it)
            }
            Self::Mbox { file, writer, open } => match *open {
                Some((begun, at)) if begun == Some(id) => {
                    *open = None;
                    writer.out().cut(at).map(|()| true).map_err(failed(file))
                }
                _ => Ok(false),
            },
        }
    }

    fn finish(mut self) -> Result<PathBuf, Refused> {
        self.end()?;
        match self {
            Self::Files { folder, .. } => {
                let synced = File::open(&folder).and_then(|f| Ok(rustix::fs::syncfs(&f)?));
                synced.map_err(failed(&folder))?;
                Ok(folder)
            }
            Self::Mbox { file, writer, .. } => {
                writer.into_inner().finish().map_err(failed(&file))?;
                Ok(file)
            }
        }
    }
}

/// What became of the messages.
#[derive(Default)]
struct Tally {
    imported: u64,
    known: u64,
    refused: u64,
}

impl Tally {
    fn note(&mut self, label: &str, answer: Result<Done, Refused>) {
        match answer {
            Ok(Done::Imported { is_new: true, .. }) => self.imported += 1,
            Ok(Done::Imported { .. }) => self.known += 1,
            Ok(_) => self.refuse(label, &unexpected()),
            Err(refused) => self.refuse(label, &refused),
        }
    }

    fn refuse(&mut self, label: &str, why: &Refused) {
        self.refused += 1;
        tell(&format!("restante: {label}: {why}"));
    }
}

pub(super) fn import(
    files: &[PathBuf],
    quiet: bool,
    desk: &mut Backend,
    out: &mut Out,
) -> Result<(), Failure> {
    let (mut tally, mut progress, mut seen) =
        (Tally::default(), Progress::new(quiet), BTreeSet::new());
    for (done, file) in (1..).zip(files) {
        let label = file.display().to_string();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if matches!(ending, Some("eml" | "json")) {
            // DIR/* names both of each pair.
            if seen.insert(file.with_extension("")) {
                let answer = import_pair(file, desk);
                tally.note(&label, answer);
            }
        } else if let Err(error) = import_mbox(file, desk, &mut tally) {
            tally.refuse(&label, &unread(file, &error));
        }
        progress.at("files imported", done, files.len() as u64);
    }
    progress.end();
    let Tally { imported, known, refused } = tally;
    if out.is_text() {
        let line = format!(
            "imported: {imported} message(s), {known} in the queue already, {refused} refused"
        );
        out.line(&line)?;
    } else {
        let said = serde_json::json!({"imported": imported, "known": known, "refused": refused});
        out.json(&said)?;
    }
    if refused == 0 { Ok(()) } else { Err(Failure::Told(1)) }
}

fn unread(file: &Path, error: &io::Error) -> Refused {
    let what = format!("{} cannot be read: {error}", file.display());
    Refused::new(what, "name files that `restante queue export` wrote")
}

/// `X.eml` with `X.json`.
fn import_pair(file: &Path, desk: &mut Backend) -> Result<Done, Refused> {
    let (content, beside) = (file.with_extension("eml"), file.with_extension("json"));
    let mut text = Vec::new();
    let read = File::open(&beside).and_then(|f| f.take(ENVELOPE_BYTES_MAX).read_to_end(&mut text));
    read.map_err(|error| {
        let what = format!("its envelope {} cannot be read: {error}", beside.display());
        Refused::new(what, "a message is imported with the .json that was exported beside it")
    })?;
    let envelope = serde_json::from_slice(&text).map_err(|error| {
        Refused::new(format!("{} is no envelope: {error}", beside.display()), "mend it")
    })?;
    let opened = File::open(&content).map_err(|error| unread(&content, &error))?;
    let mut octets = Crlf { from: BufReader::new(opened), after_cr: false };
    let mut feed = || octets.chunk().map_err(|error| unread(&content, &error));
    desk.ask_with(Request::QueueImport { envelope: Box::new(envelope) }, &mut feed, &mut |_| {
        Err(unexpected())
    })
}

fn import_mbox(file: &Path, desk: &mut Backend, tally: &mut Tally) -> io::Result<()> {
    let mut reader = mbox::Reader::new(BufReader::with_capacity(256 * 1024, File::open(file)?));
    let mut number = 0;
    while let Some(envelope) = reader.next()? {
        number += 1;
        let label = format!("{}: message {number}", file.display());
        match envelope {
            Ok(envelope) => {
                let mut feed = || reader.chunk().map_err(|error| unread(file, &error));
                let request = Request::QueueImport { envelope: Box::new(envelope) };
                let answer = desk.ask_with(request, &mut feed, &mut |_| Err(unexpected()));
                tally.note(&label, answer);
            }
            Err(why) => tally.refuse(&label, &Refused::new(why, "export it anew")),
        }
    }
    Ok(())
}

/// Octets with every line ending in CRLF: a file that went through an editor may have lost them.
struct Crlf<R> {
    from: R,
    after_cr: bool,
}

impl<R: Read> Crlf<R> {
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut octets = vec![0; CHUNK_BYTES];
        let got = loop {
            match self.from.read(&mut octets) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        octets.truncate(got);
        let mut chunk = Vec::with_capacity(got + got / 32);
        for octet in octets {
            if octet == b'\n' && !self.after_cr {
                chunk.push(b'\r');
            }
            chunk.push(octet);
            self.after_cr = octet == b'\r';
        }
        Ok((got > 0).then_some(chunk))
    }
}
