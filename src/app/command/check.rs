//! `restante check`: every fault of the configuration, and what it comes to.

use std::path::PathBuf;

use super::Failure;
use crate::app::config::place::Severity;
use crate::app::config::{self, Loaded};
use crate::app::output::{Format, Out, tell};

pub(super) fn check(chosen: Option<PathBuf>, show: bool, out: &mut Out) -> Result<(), Failure> {
    let loaded = config::load(&config::locate(chosen));
    match out.format {
        Format::Text => for_people(&loaded, show, out)?,
        Format::Json | Format::JsonLines => for_scripts(&loaded, show, out)?,
    }
    out.flush()?;
    match loaded.config {
        Some(_) => Ok(()),
        None if out.is_text() => Err(Failure::Config(Box::new(loaded.report))),
        // The faults stand on standard output already.
        None => Err(Failure::Usage(crate::app::admin::Refused::new(
            format!("{} has faults", loaded.report.file().display()),
            "",
        ))),
    }
}

fn for_people(loaded: &Loaded, show: bool, out: &mut Out) -> Result<(), Failure> {
    let Some(config) = &loaded.config else { return Ok(()) };
    for finding in loaded.report.findings() {
        tell(&loaded.report.show(finding));
    }
    if show {
        out.line(&format!("# {}", loaded.report.file().display()))?;
        for line in config.show(&loaded.report).lines() {
            out.line(line)?;
        }
        return Ok(());
    }
    let warnings = loaded.report.findings().len();
    let file = loaded.report.file().display();
    let said = match warnings {
        0 => format!("{file}: no faults"),
        1 => format!("{file}: no faults, 1 warning"),
        many => format!("{file}: no faults, {many} warnings"),
    };
    Ok(out.line(&said)?)
}

fn for_scripts(loaded: &Loaded, show: bool, out: &mut Out) -> Result<(), Failure> {
    let report = &loaded.report;
    let findings: Vec<_> = report
        .findings()
        .into_iter()
        .map(|finding| {
            let place = finding.span.as_ref().map(|span| report.line_and_column(span.start));
            serde_json::json!({
                "severity": finding.severity,
                "file": report.file(),
                "line": place.map(|(line, _)| line),
                "column": place.map(|(_, column)| column),
                "what": finding.what,
                "mend": finding.mend,
            })
        })
        .collect();
    if out.format == Format::JsonLines && !show {
        for finding in &findings {
            out.json(finding)?;
        }
        return Ok(());
    }
    let faults = findings.iter().filter(|f| f["severity"] == serde_json::json!(Severity::Fault));
    let mut document = serde_json::json!({
        "file": report.file(),
        "ok": faults.count() == 0,
        "findings": findings,
    });
    if show {
        document["settings"] = loaded.config.as_ref().map(config::Config::show_json).into();
    }
    Ok(out.json(&document)?)
}
