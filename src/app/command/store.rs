//! `restante store …`: the store as a whole.

use std::path::PathBuf;

use super::{Failure, ask_with, load, unexpected};
use crate::app::admin::{Done, Item, Refused, Request};
use crate::app::backend::{self, Backend};
use crate::app::cli::StoreCommand;
use crate::app::config::{self, Config, units};
use crate::app::logging;
use crate::app::output::Out;
use crate::app::progress::Progress;

pub(super) fn run(
    command: &StoreCommand,
    chosen: Option<PathBuf>,
    out: &mut Out,
) -> Result<(), Failure> {
    match *command {
        StoreCommand::Verify { quiet } => verify(&prepared(chosen)?, quiet, out),
        StoreCommand::Compact { quiet } => ask_with(chosen, |desk| compact(quiet, desk, out)),
        StoreCommand::Rebuild { quiet } => rebuild(&prepared(chosen)?, quiet, out),
    }
}

fn prepared(chosen: Option<PathBuf>) -> Result<Config, Failure> {
    let config = load(chosen)?;
    // What is found is said by the command itself.
    logging::init(log::LevelFilter::Off, config::LogFormat::Text);
    Ok(config)
}

/// What was found.
struct Found {
    messages: u64,
    bytes: u64,
    damage: Vec<String>,
}

fn verify(config: &Config, quiet: bool, out: &mut Out) -> Result<(), Failure> {
    let mut progress = Progress::new(quiet);
    let found = match backend::running(config)? {
        Some(mut desk) => look_through(&mut desk, &mut progress)?,
        None => {
            let mut tell = |step: crate::store::sled::Step| {
                progress.at(step.name, step.done, step.total);
            };
            let offline = backend::look(config, &mut tell)?;
            let damage = offline.damage().to_vec();
            Found { messages: offline.messages(), bytes: offline.bytes(), damage }
        }
    };
    progress.end();
    say(&found, out)
}

fn look_through(desk: &mut Backend, progress: &mut Progress) -> Result<Found, Refused> {
    match desk.ask(Request::StoreVerify, &mut |item| staged(item, progress))? {
        Done::Verified { messages, bytes, damage } => Ok(Found { messages, bytes, damage }),
        _ => Err(unexpected()),
    }
}

fn staged(item: Item, progress: &mut Progress) -> Result<(), Refused> {
    let Item::Stage(stage) = item else { return Err(unexpected()) };
    progress.at(&stage.what, stage.done, stage.total);
    Ok(())
}

fn say(found: &Found, out: &mut Out) -> Result<(), Failure> {
    let Found { messages, bytes, damage } = found;
    if out.is_text() {
        for line in damage {
            out.line(&format!("damaged: {line}"))?;
        }
        let size = units::about_size(*bytes);
        out.line(&format!("{messages} message(s), {size} of mail, {} damaged", damage.len()))?;
    } else {
        let said = serde_json::json!({"messages": messages, "bytes": bytes, "damage": damage});
        out.json(&said)?;
    }
    if damage.is_empty() {
        return Ok(());
    }
    let what = format!("{} thing(s) in the store are damaged", damage.len());
    Err(Refused::new(what, "what is not named is sound; see docs/operator.md, \"The store\"")
        .into())
}

fn compact(quiet: bool, desk: &mut Backend, out: &mut Out) -> Result<(), Failure> {
    let mut progress = Progress::new(quiet);
    let done = desk.ask(Request::StoreCompact, &mut |item| staged(item, &mut progress))?;
    progress.end();
    let Done::Compacted { segments, before, after } = done else {
        return Err(unexpected().into());
    };
    if !out.is_text() {
        let said = serde_json::json!({"segments": segments, "before": before, "after": after});
        return Ok(out.json(&said)?);
    }
    let (before, after) = (units::about_size(before), units::about_size(after));
    Ok(out
        .line(&format!("{segments} segment(s) compacted; {before} on disk before, {after} now"))?)
}

fn rebuild(config: &Config, quiet: bool, out: &mut Out) -> Result<(), Failure> {
    let mut progress = Progress::new(quiet);
    let mut tell = |step: crate::store::sled::Step| progress.at(step.name, step.done, step.total);
    let (messages, bytes, damage) = backend::rebuild(config, &mut tell)?;
    progress.end();
    say(&Found { messages, bytes, damage }, out)
}
