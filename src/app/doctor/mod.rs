//! The doctor: looks a deployment over and says of each thing whether it is well, and how to mend it if not.
//!
//! Called by `restante doctor`, with the provider running or not. It changes nothing, moves no mail, and asks only
//! what the configuration names: the listeners, the name servers, the smart host. Every look has its end.

mod certificate;
mod names;
mod places;
mod ports;
mod visit;
mod way_out;

use futures::executor::block_on;

use super::admin::{Customer, Done, Item, Password, Request, Status};
use super::backend::Backend;
use super::config::Config;
use super::config::place::Report;
use crate::mail::CustomerName;
use crate::net::dns::Resolver;
use crate::net::tls::Shown;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Well.
    Ok,
    /// It works; somebody should know.
    Warning,
    /// It does not work.
    Fault,
}

impl Level {
    /// As it is printed.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// `configuration store clock disk ports certificate dns reports customer`.
    pub check: &'static str,
    /// How it stands.
    pub level: Level,
    /// What was seen.
    pub what: String,
    /// What to do about it; empty if nothing.
    pub mend: String,
}

/// The customer to be played, with its password if there is one.
pub struct Visit {
    /// Whom.
    pub customer: CustomerName,
    /// Its own login's.
    pub password: Option<Password>,
}

/// Where findings go, under one heading after the other.
struct Notes<'a> {
    check: &'static str,
    each: &'a mut dyn FnMut(Finding),
}

impl Notes<'_> {
    fn note(&mut self, level: Level, what: impl Into<String>, mend: impl Into<String>) {
        let (what, mend) = (what.into(), mend.into());
        (self.each)(Finding { check: self.check, level, what, mend });
    }

    fn ok(&mut self, what: impl Into<String>) {
        self.note(Level::Ok, what, "");
    }

    fn warning(&mut self, what: impl Into<String>, mend: impl Into<String>) {
        self.note(Level::Warning, what, mend);
    }

    fn fault(&mut self, what: impl Into<String>, mend: impl Into<String>) {
        self.note(Level::Fault, what, mend);
    }
}

/// What is known of the deployment.
struct Patient<'a> {
    config: &'a Config,
    resolver: &'a Resolver,
    /// The provider's own word, or the store's if none runs; `None` if neither could be asked.
    status: Option<Status>,
    customers: Vec<Customer>,
    /// The first certificate.
    shown: Option<Shown>,
}

impl Patient<'_> {
    fn is_running(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.running)
    }
}

/// Looks at everything; `each` is given every finding as it is made.
pub fn examine(
    config: &Config,
    report: &Report,
    resolver: &Resolver,
    visit: Option<Visit>,
    each: &mut dyn FnMut(Finding),
) {
    let mut notes = Notes { check: "configuration", each };
    configuration(config, report, &mut notes);
    let mut patient =
        Patient { config, resolver, status: None, customers: Vec::new(), shown: None };
    notes.check = "store";
    history(&mut patient, &mut notes);
    notes.check = "disk";
    places::disk(&patient, &mut notes);
    notes.check = "certificate";
    patient.shown = certificate::look(config, &mut notes);
    block_on(async {
        notes.check = "ports";
        ports::look(&patient, &mut notes).await;
        notes.check = "dns";
        names::look(&patient, &mut notes).await;
        notes.check = "reports";
        way_out::look(&patient, &mut notes).await;
        if let Some(visit) = visit {
            notes.check = "customer";
            visit::visit(&patient, visit, &mut notes).await;
        }
    });
}

fn configuration(config: &Config, report: &Report, notes: &mut Notes<'_>) {
    let file = report.file().display();
    let findings = report.findings();
    // The way out has a line of its own.
    let others = findings.iter().filter(|finding| !finding.what.starts_with("relay.route is"));
    let mut count = 0;
    for finding in others {
        notes.warning(finding.what.clone(), finding.mend.clone());
        count += 1;
    }
    if count == 0 {
        notes.ok(format!("{file}: {}", config.hostname));
    }
}

/// The provider or the store: what it says of itself, its clock and its customers.
fn history(patient: &mut Patient<'_>, notes: &mut Notes<'_>) {
    if !places::layout(patient.config, notes) {
        return;
    }
    let mut backend = match Backend::open(patient.config) {
        Ok(backend) => backend,
        Err(refused) => return notes.fault(refused.what, refused.mend),
    };
    match backend.ask(Request::Status, &mut |_| Ok(())) {
        Ok(Done::Status(status)) => {
            places::store(&status, patient.config, notes);
            patient.status = Some(*status);
        }
        Ok(_) => notes.fault("the provider is of another release", "restart it"),
        Err(refused) => notes.fault(refused.what, refused.mend),
    }
    let customers = &mut patient.customers;
    let listed = backend.ask(Request::CustomerList, &mut |item| {
        if let Item::Customer(customer) = item {
            customers.push(customer);
        }
        Ok(())
    });
    if let Err(refused) = listed {
        notes.fault(refused.what, refused.mend);
    }
    notes.check = "clock";
    if let Ok(Done::Examined { ahead, furthest }) = backend.ask(Request::Examine, &mut |_| Ok(())) {
        places::clock(patient.config, ahead, furthest, notes);
    }
    notes.check = "store";
    if let Err(refused) = backend.close() {
        notes.fault(refused.what, refused.mend);
    }
}
