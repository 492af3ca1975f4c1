//! `restante dump`: everything into one file.

use std::io::Write;
use std::path::Path;

use super::{Failure, unexpected};
use crate::app::admin::{Done, Item, Refused, Request};
use crate::app::backend::Backend;
use crate::app::config::units;
use crate::app::output::{Out, tell};
use crate::app::progress::Progress;
use crate::store::dump::{PartFile, Summary};

/// Where the octets go.
enum Sink {
    File(PartFile),
    Stdout,
}

pub(super) fn run(
    file: &Path,
    quiet: bool,
    desk: &mut Backend,
    out: &mut Out,
) -> Result<(), Failure> {
    let mut sink = match file.to_str() {
        Some("-") => {
            out.whole_or_nothing();
            Sink::Stdout
        }
        _ => Sink::File(PartFile::create(file).map_err(|error| unwritten(file, &error))?),
    };
    let mut progress = Progress::new(quiet);
    let done = desk.ask(Request::Dump, &mut |item| match (item, &mut sink) {
        (Item::Body(octets), Sink::File(part)) => {
            part.write_all(&octets).map_err(|error| unwritten(file, &error))
        }
        (Item::Body(octets), Sink::Stdout) => out.octets(&octets),
        (Item::Stage(stage), _) => {
            progress.at(&stage.what, stage.done, stage.total);
            Ok(())
        }
        _ => Err(unexpected()),
    })?;
    progress.end();
    let Done::Dumped(summary) = done else { return Err(unexpected().into()) };
    match sink {
        Sink::File(part) => {
            part.finish().map_err(|error| unwritten(file, &error))?;
            say(&summary, file, out)?;
        }
        Sink::Stdout => out.flush()?,
    }
    missing(&summary)
}

fn say(summary: &Summary, file: &Path, out: &mut Out) -> Result<(), Refused> {
    if !out.is_text() {
        return out.json(summary);
    }
    let (customers, messages) = (summary.customers, summary.messages);
    let size = units::about_size(summary.bytes);
    let file = file.display();
    out.line(&format!("{file}: {customers} customer(s), {messages} message(s), {size} of mail"))
}

/// A dump without some of the mail is written and good for the rest, but somebody has to know.
fn missing(summary: &Summary) -> Result<(), Failure> {
    if summary.damaged.is_empty() {
        return Ok(());
    }
    for id in &summary.damaged {
        tell(&format!("restante: message {id} cannot be read and is not in the dump"));
    }
    let what = format!("{} message(s) are not in the dump", summary.damaged.len());
    Err(Refused::new(what, "`restante store verify` says what is damaged").into())
}

fn unwritten(file: &Path, error: &std::io::Error) -> Refused {
    let mend = match error.kind() {
        std::io::ErrorKind::WouldBlock => "another command writes it; wait, or choose another name",
        std::io::ErrorKind::StorageFull => "make room, or choose another disk",
        _ => "choose another file",
    };
    Refused::new(format!("{} cannot be written: {error}", file.display()), mend)
}
