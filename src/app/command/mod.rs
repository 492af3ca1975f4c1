//! One file a command: from arguments to what is printed and the exit status.
//!
//! Called by `main` through [`run`]. A command asks the [`Backend`] and prints; it decides nothing about mail.

mod check;
mod customer;
mod doctor;
mod domain;
mod dump;
mod exchange;
mod fetch;
mod flush;
mod kit;
mod load;
mod manual;
mod queue;
mod status;
mod store;
mod top;
mod trace;

use std::io::{BufRead, Write};
use std::process::ExitCode;

use clap::Parser;

use super::admin::{Done, NewLogin, Password, Refused, Request};
use super::backend::Backend;
use super::cli::{Cli, Command, CustomerCommand};
use super::config::place::Report;
use super::config::{self, Config};
use super::output::{Format, Out};
use super::{logging, quickstart, run as running};
use crate::provider::watch::Want;

/// Why a command ends with another status than 0.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for failed: 1.
    Failed(Refused),
    /// Wrong usage: 2.
    Usage(Refused),
    /// The configuration has faults: 2.
    Config(Box<Report>),
    /// This status; what there was to say has been said.
    Told(u8),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Failed(refused)
    }
}

/// Reads the arguments and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let status = match &failure {
                Failure::Failed(_) => 1,
                Failure::Usage(_) | Failure::Config(_) => 2,
                Failure::Told(status) => *status,
            };
            complain(&failure);
            ExitCode::from(status)
        }
    }
}

fn complain(failure: &Failure) {
    let text = match failure {
        Failure::Failed(refused) | Failure::Usage(refused) => format!("restante: {refused}\n"),
        Failure::Config(report) => report.to_string(),
        Failure::Told(_) => String::new(),
    };
    // Without standard error there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Does what the command line says.
///
/// # Errors
/// [`Failure`], with its exit status.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let format = match (cli.json, cli.json_lines) {
        (true, _) => Format::Json,
        (_, true) => Format::JsonLines,
        _ => Format::Text,
    };
    let mut out = Out::new(format);
    let chosen = cli.config;
    match cli.command {
        Command::Fetch(args) => fetch::fetch(&args, chosen.as_deref(), format)?,
        Command::Completions { shell } => manual::completions(shell, &mut out)?,
        Command::Man { dir } => manual::pages(&dir, &mut out)?,
        Command::Check { show } => check::check(chosen, show, &mut out)?,
        Command::Doctor { customer, password_stdin, name_servers } => {
            doctor::run(chosen, customer, password_stdin, name_servers, &mut out)?;
        }
        Command::Serve => serve(&load(chosen)?)?,
        Command::Quickstart { dir, no_serve } => {
            quickstart::quickstart(&dir, no_serve, &mut out)?;
        }
        Command::Customer(CustomerCommand::Kit { name }) => {
            let config = load(chosen.clone())?;
            ask_with(chosen, |desk| kit::run(name, &config, desk, &mut out))?;
        }
        Command::Customer(command) => {
            ask_with(chosen, |desk| customer::run(command, desk, &mut out))?;
        }
        Command::Domain(command) => ask_with(chosen, |desk| domain::run(command, desk, &mut out))?,
        Command::Queue(command) => ask_with(chosen, |desk| queue::run(command, desk, &mut out))?,
        Command::Store(command) => store::run(&command, chosen, &mut out)?,
        Command::Dump { file, quiet } => {
            ask_with(chosen, |desk| dump::run(&file, quiet, desk, &mut out))?;
        }
        Command::Load { file, quiet } => load::run(&file, quiet, &self::load(chosen)?, &mut out)?,
        Command::Flush { domain } => ask_with(chosen, |desk| flush::run(domain, desk, &mut out))?,
        Command::Trace { customer, address } => {
            trace::run(Want { customer, address }, chosen, &mut out)?;
        }
        Command::Top => top::run(chosen, &mut out)?,
        Command::Status => ask_with(chosen, |desk| status::run(desk, &mut out))?,
    }
    Ok(out.flush()?)
}

/// The configuration, or its faults.
pub(super) fn load(chosen: Option<std::path::PathBuf>) -> Result<Config, Failure> {
    let loaded = config::load(&config::locate(chosen));
    loaded.config.ok_or(Failure::Config(Box::new(loaded.report)))
}

/// `restante serve`, and the end of `restante quickstart`.
pub(super) fn serve(config: &Config) -> Result<(), Failure> {
    logging::init(config.log_level, config.log_format);
    for finding in config::load(&config.file).report.findings() {
        log::warn!(target: crate::provider::ledger::TARGET, what = finding.what.as_str(); "configuration");
    }
    Ok(running::serve(config)?)
}

fn ask_with(
    chosen: Option<std::path::PathBuf>,
    work: impl FnOnce(&mut Backend) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let config = load(chosen)?;
    logging::init(log::LevelFilter::Error, config::LogFormat::Text);
    let mut backend = Backend::open(&config)?;
    let worked = work(&mut backend);
    let closed = backend.close();
    worked?;
    Ok(closed?)
}

/// For requests whose answer has no items.
fn ask(desk: &mut Backend, request: Request) -> Result<Done, Refused> {
    desk.ask(request, &mut |_| Ok(()))
}

/// An answer that does not belong to the question: command and provider differ.
fn unexpected() -> Refused {
    Refused::new(
        "the provider gave another answer than was asked for",
        "restart it with this release",
    )
}

/// One line of standard input, if asked for.
fn password(from_stdin: bool) -> Result<Option<Password>, Failure> {
    if !from_stdin {
        return Ok(None);
    }
    let mut line = zeroize::Zeroizing::new(String::new());
    std::io::stdin().lock().read_line(&mut line).map_err(|error| {
        Refused::new(format!("the password cannot be read from standard input: {error}"), "")
    })?;
    let text = line.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        let mend = "give it on one line, or leave --password-stdin out to have one made";
        return Err(Failure::Usage(Refused::new("the password is empty", mend)));
    }
    Ok(Some(Password::new(text.to_owned())))
}

/// A change: a line for people, an object for scripts.
fn changed(done: &Done, out: &mut Out) -> Result<(), Refused> {
    let Done::Changed { subject, result, note } = done else { return Err(unexpected()) };
    if !out.is_text() {
        return out.json(&serde_json::json!({"subject": subject, "result": result, "note": note}));
    }
    match note {
        Some(note) => out.line(&format!("{subject}: {result} ({note})")),
        None => out.line(&format!("{subject}: {result}")),
    }
}

/// A login that was made: the only time its password is seen.
fn new_login(login: &NewLogin, out: &mut Out) -> Result<(), Refused> {
    if !out.is_text() {
        return out.json(login);
    }
    out.line(&format!("login     {}", login.login))?;
    show_password(login.password.as_ref(), out)
}

fn show_password(password: Option<&Password>, out: &mut Out) -> Result<(), Refused> {
    match password {
        Some(password) => {
            out.line(&format!("password  {}", password.expose()))?;
            out.line(
                "The password is shown this once; what is stored cannot be turned back into it.",
            )
        }
        None => out.line("password  as given"),
    }
}
