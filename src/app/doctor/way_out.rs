//! The way out for reports: is there one, and does it let us in?

use std::time::Duration;

use super::{Notes, Patient};
use crate::app::config::Route;
use crate::mail::EtrnTls;
use crate::net::call::try_out;
use crate::net::clock::RealWorld;
use crate::net::patience::within;
use crate::provider::call::Identity;

/// How long the smart host may take for everything.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn look(patient: &Patient<'_>, notes: &mut Notes<'_>) {
    let config = patient.config;
    let host = match &config.relay.route {
        Route::None => {
            return notes.warning(
                "relay.route is \"none\": reports to foreign addresses wait here until they expire",
                "set it to \"mx\" or to a host:port that takes mail from us",
            );
        }
        Route::Mx => {
            let answer = within(PATIENCE, patient.resolver.exchangers(config.hostname.as_str()));
            return match answer.await {
                Some(Ok(_)) => notes.ok(
                    "by the mail exchangers of each domain; the name server answers, and port 25 outwards is not tried",
                ),
                Some(Err(error)) => notes.fault(
                    format!("by the mail exchangers of each domain, and no name server answers: {error}"),
                    "see /etc/resolv.conf",
                ),
                None => notes.fault("no name server answers", "see /etc/resolv.conf"),
            };
        }
        Route::Host(host) => host,
    };
    let policy = config.policy();
    let identity = if policy.relay.tls == EtrnTls::Verify { Identity::Name } else { Identity::Any };
    let login = policy.relay.login.clone();
    let has_login = login.is_some();
    let world = RealWorld::default();
    let work = try_out(&config.hostname, &world, host, policy.relay.tls, identity, login);
    let place = &policy.relay.route;
    match within(PATIENCE, work).await {
        None => notes.fault(
            format!("the smart host {place} does not answer within {} s", PATIENCE.as_secs()),
            "see [relay]; a firewall may be in between",
        ),
        Some(Err(why)) => notes.fault(
            format!("the smart host {place}: {why}"),
            "see [relay]: route, tls, username and password_file",
        ),
        Some(Ok(tls)) => {
            let tls = tls.map_or("in clear text".to_owned(), |tls| tls.version.to_string());
            let login = if has_login { "the login is good" } else { "without login" };
            notes.ok(format!("by the smart host {place}: {tls}, {login}"));
        }
    }
}
