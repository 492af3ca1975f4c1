//! `restante load`: a dump into an empty store.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use futures::executor::block_on;
use futures::io::AllowStdIo;

use super::Failure;
use crate::app::admin::Refused;
use crate::app::backend;
use crate::app::config::{Config, LogFormat, units};
use crate::app::logging;
use crate::app::output::Out;
use crate::app::progress::Progress;
use crate::store::SledStore;
use crate::store::dump::{DumpError, Source, Summary, load};

/// Octets read at once.
const BUFFER_BYTES: usize = 256 * 1024;

pub(super) fn run(file: &Path, quiet: bool, config: &Config, out: &mut Out) -> Result<(), Failure> {
    logging::init(log::LevelFilter::Error, LogFormat::Text);
    let mut progress = Progress::new(quiet);
    let from_stdin = file.to_str() == Some("-");
    if !from_stdin {
        // Before anything is touched.
        let (opened, total) = open(file)?;
        let checked =
            read(None, &mut AllowStdIo::new(opened), total, "octets checked", &mut progress);
        checked.map_err(|error| refused(file, error))?;
    }
    let store = backend::fill(config)?;
    let summary = if from_stdin {
        let input = BufReader::with_capacity(BUFFER_BYTES, std::io::stdin());
        read(Some(&store), &mut AllowStdIo::new(input), 0, "octets loaded", &mut progress)
    } else {
        let (opened, total) = open(file)?;
        read(Some(&store), &mut AllowStdIo::new(opened), total, "octets loaded", &mut progress)
    };
    let summary = summary.map_err(|error| {
        let Refused { what, .. } = refused(file, error);
        Refused::new(what, "the store is half loaded and will not be served; load again")
    })?;
    store.filled().map_err(Refused::from)?;
    progress.end();
    say(&summary, config, out)
}

fn open(file: &Path) -> Result<(BufReader<File>, u64), Refused> {
    let opened = File::open(file).and_then(|opened| Ok((opened.metadata()?.len(), opened)));
    let (len, opened) = opened.map_err(|error| {
        let what = format!("{} cannot be read: {error}", file.display());
        Refused::new(what, "name a file that `restante dump` wrote")
    })?;
    Ok((BufReader::with_capacity(BUFFER_BYTES, opened), len))
}

fn read(
    store: Option<&SledStore>,
    from: Source<'_>,
    total: u64,
    task: &str,
    progress: &mut Progress,
) -> Result<Summary, DumpError> {
    let into = store.map(|store| (store as _, store as _));
    block_on(load(into, from, &mut |at| progress.at(task, at.octets, total)))
}

fn refused(file: &Path, error: DumpError) -> Refused {
    let place = file.display();
    match error {
        DumpError::Store(error) => error.into(),
        DumpError::Directory(error) => error.into(),
        DumpError::NotEmpty => backend::not_empty(),
        DumpError::Stream(error) => Refused::new(format!("{place} cannot be read: {error}"), ""),
        damaged @ DumpError::Damaged { .. } => {
            Refused::new(format!("{place}: {damaged}"), "take another dump")
        }
    }
}

fn say(summary: &Summary, config: &Config, out: &mut Out) -> Result<(), Failure> {
    if !out.is_text() {
        return Ok(out.json(summary)?);
    }
    let (customers, messages) = (summary.customers, summary.messages);
    let size = units::about_size(summary.bytes);
    let folder = config.data_dir.display();
    out.line(&format!("{folder}: {customers} customer(s), {messages} message(s), {size} of mail"))?;
    if !summary.damaged.is_empty() {
        let count = summary.damaged.len();
        out.line(&format!("{count} message(s) could not be read when the dump was made"))?;
    }
    Ok(())
}
