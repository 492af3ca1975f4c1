//! `--as`: plays a customer against the running server, up to the login, and never asks for mail.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::ports::within_reach;
use super::{Notes, Patient, Visit};
use crate::app::admin::Customer;
use crate::fetch::{Account, Target, Verdict, collect};
use crate::mail::{EtrnTls, Secret};
use crate::net::call::try_out;
use crate::net::clock::RealWorld;
use crate::net::patience::within;
use crate::net::probe::{self, Start};
use crate::net::stop::Stop;
use crate::net::tls::Trust;
use crate::provider::call::{HostPort, Identity};
use crate::smtp::caller::Encryption;

/// How long the login may take, delays after failures included.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn visit(patient: &Patient<'_>, visit: Visit, notes: &mut Notes<'_>) {
    let name = &visit.customer;
    let Some(customer) = patient.customers.iter().find(|c| c.name == *name) else {
        return notes.fault(format!("there is no customer {name}"), "see `restante customer list`");
    };
    if customer.suspended {
        notes.fault(
            format!("{name} is suspended: its logins and its mail are refused"),
            format!("restante customer resume {name}"),
        );
    }
    let domains: Vec<&str> = customer.domains.iter().map(|domain| domain.as_str()).collect();
    notes.ok(format!("{name}: {}; {} messages wait", domains.join(", "), customer.messages));
    match door(patient) {
        Some((address, start)) => call(patient, &visit, address, start, notes).await,
        None => notes.fault(
            "no provider runs, or it has no odmr listener",
            "systemctl start restante; see [listen] odmr",
        ),
    }
    etrn_host(patient, customer, notes).await;
}

/// The door that customers come to.
fn door(patient: &Patient<'_>) -> Option<(SocketAddr, Start)> {
    let listeners = &patient.status.as_ref()?.listeners;
    let find = |name: &str, start| {
        let found = listeners.iter().find(|listener| listener.name == name)?;
        Some((SocketAddr::new(within_reach(found.address.ip()), found.address.port()), start))
    };
    find("odmr", Start::StartTls).or_else(|| find("odmrs", Start::Implicit))
}

async fn call(
    patient: &Patient<'_>,
    visit: &Visit,
    address: SocketAddr,
    start: Start,
    notes: &mut Notes<'_>,
) {
    let seen = match probe::mail_server(address, start, "doctor.invalid").await {
        Ok(seen) => seen,
        Err(why) => return notes.fault(format!("{address}: {why}"), "see the log"),
    };
    let is_secured = seen.tls.is_some();
    let offers = if seen.secured_offers.is_empty() { &seen.offers } else { &seen.secured_offers };
    let offer = |word: &str| offers.iter().find(|o| o.split(' ').next() == Some(word));
    if offer("ATRN").is_none() {
        let what = format!("{address} does not offer ATRN: {}", seen.greeting);
        return notes.fault(what, "see listen.odmr_from and the log");
    }
    let how = seen.tls.as_ref().map_or("in clear text".to_owned(), |tls| tls.version.to_string());
    match offer("AUTH") {
        Some(mechanisms) => notes.ok(format!("{address}: {how}, ATRN, {mechanisms}")),
        None => {
            return notes.fault(
                format!("{address}: {how}, and no login is offered"),
                "a certificate is needed, or auth.require_tls = false on a network that you trust",
            );
        }
    }
    let Some(password) = &visit.password else {
        return notes.ok(
            "no login was tried: give the password with --password-stdin; no ATRN, so no mail moves",
        );
    };
    let secret = Secret::from(password.expose());
    log_in(patient, visit, address, (start, is_secured), secret, notes).await;
}

async fn log_in(
    patient: &Patient<'_>,
    visit: &Visit,
    address: SocketAddr,
    (start, is_secured): (Start, bool),
    secret: Secret,
    notes: &mut Notes<'_>,
) {
    let target = Target::Maildir(PathBuf::new());
    let account = Account::new(&address.to_string(), visit.customer.as_str(), Some(secret), target);
    let mut account = match account {
        Ok(account) => account,
        Err(error) => return notes.fault(error.to_string(), ""),
    };
    account.dry_run = true;
    account.encryption = match (start, is_secured) {
        (Start::Implicit, _) => Encryption::Implicit,
        (Start::StartTls, true) => Encryption::StartTls,
        (Start::StartTls, false) => Encryption::Clear,
    };
    // Whether others can trust the certificate is looked at above.
    account.trust = match &patient.shown {
        Some(shown) => Trust::Pin(shown.key),
        None => Trust::Anybody,
    };
    let (_giver, stop) = Stop::new();
    let mut mechanism = None;
    let report = within(
        PATIENCE,
        collect(&account, &stop, &mut |event| {
            if let crate::fetch::Event::LoggedIn(name) = event {
                mechanism = Some(name);
            }
        }),
    )
    .await;
    match report.map(|report| report.verdict) {
        Some(Verdict::Offered(_)) => notes.ok(format!(
            "{} can log in ({}); no ATRN was sent, so no mail moved",
            visit.customer,
            mechanism.unwrap_or("AUTH")
        )),
        Some(Verdict::Later(trouble) | Verdict::Refused(trouble)) => notes.fault(
            format!("{} cannot log in: {}", visit.customer, trouble.cause),
            format!("is the password right? restante customer passwd {}", visit.customer),
        ),
        Some(other) => notes.fault(format!("the login ended with {}", other.word()), ""),
        None => notes.fault(
            format!("the login took more than {} s", PATIENCE.as_secs()),
            "there may be delays after failed logins; try again later",
        ),
    }
}

/// The customer's own host, if it has one for ETRN.
async fn etrn_host(patient: &Patient<'_>, customer: &Customer, notes: &mut Notes<'_>) {
    let setting = |key: &str| customer.settings.get(key).map(String::as_str);
    let Some(host) = setting("etrn-host").and_then(HostPort::parse) else { return };
    let (tls, word) = match setting("etrn-tls") {
        Some("none") => (EtrnTls::None, "none"),
        Some("required") => (EtrnTls::Required, "required"),
        Some("verify") => (EtrnTls::Verify, "verify"),
        _ => (EtrnTls::Opportunistic, "opportunistic"),
    };
    let keys: Vec<Box<str>> = setting("certificate")
        .map(|keys| keys.split([',', ' ']).filter(|k| !k.is_empty()).map(Into::into).collect())
        .unwrap_or_default();
    let identity = match (tls, keys.is_empty()) {
        (EtrnTls::Verify, true) => Identity::Name,
        (EtrnTls::Verify, false) => Identity::Keys(keys),
        _ => Identity::Any,
    };
    let world = RealWorld::default();
    let work = try_out(&patient.config.hostname, &world, &host, tls, identity, None);
    let place = setting("etrn-host").unwrap_or_default();
    match within(PATIENCE, work).await {
        Some(Ok(tls)) => {
            let how = tls.map_or("in clear text".to_owned(), |tls| tls.version.to_string());
            notes.ok(format!("its etrn-host {place} answers, {how}"));
        }
        Some(Err(why)) => notes.warning(
            format!("its etrn-host {place} (etrn-tls {word}): {why}"),
            "the customer's server may be down; mail waits and is tried again after ETRN or `restante flush`",
        ),
        None => notes.warning(
            format!("its etrn-host {place} does not answer within {} s", PATIENCE.as_secs()),
            "the customer's server may be down",
        ),
    }
}
