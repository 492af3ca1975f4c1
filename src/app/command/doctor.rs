//! `restante doctor`: a line for each thing that was looked at.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Failure, password};
use crate::app::admin::Refused;
use crate::app::config;
use crate::app::doctor::{Finding, Level, Visit, examine};
use crate::app::logging;
use crate::app::output::{Format, Out};
use crate::mail::CustomerName;
use crate::net::dns::Resolver;

pub(super) fn run(
    chosen: Option<PathBuf>,
    customer: Option<CustomerName>,
    password_stdin: bool,
    name_servers: Vec<SocketAddr>,
    out: &mut Out,
) -> Result<(), Failure> {
    let loaded = config::load(&config::locate(chosen));
    let Some(config) = &loaded.config else {
        return Err(Failure::Config(Box::new(loaded.report)));
    };
    logging::init(log::LevelFilter::Off, config::LogFormat::Text);
    let resolver = match name_servers.is_empty() {
        true => Resolver::of_the_system(),
        false => Resolver::with_servers(name_servers),
    };
    let visit = match customer {
        None => None,
        Some(customer) => Some(Visit { customer, password: password(password_stdin)? }),
    };
    let (mut faults, mut warnings) = (0, 0);
    let mut all = Vec::new();
    let mut printed = Ok(());
    examine(config, &loaded.report, &resolver, visit, &mut |finding| {
        faults += u32::from(finding.level == Level::Fault);
        warnings += u32::from(finding.level == Level::Warning);
        if out.format == Format::Json {
            all.push(finding);
        } else if printed.is_ok() {
            // Each as it is found: some take their time.
            printed = print(&finding, out).and_then(|()| out.flush());
        }
    });
    printed?;
    if out.format == Format::Json {
        out.json(&serde_json::json!({"ok": faults == 0, "findings": all}))?;
    }
    if faults == 0 {
        if out.is_text() && warnings == 0 {
            out.line("nothing to mend")?;
        }
        return Ok(());
    }
    let (s, w) = (if faults == 1 { "" } else { "s" }, if warnings == 1 { "" } else { "s" });
    let what = format!("{faults} fault{s} and {warnings} warning{w}");
    Err(Failure::Failed(Refused::new(what, "each line says how to mend it")))
}

fn print(finding: &Finding, out: &mut Out) -> Result<(), Refused> {
    if !out.is_text() {
        return out.json(finding);
    }
    let Finding { check, level, what, mend } = finding;
    let semicolon = if mend.is_empty() { "" } else { "; " };
    out.line(&format!("{:<8} {check:<12} {what}{semicolon}{mend}", level.word()))
}
