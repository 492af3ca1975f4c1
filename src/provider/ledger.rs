//! The ledger: facts as log lines (section 3 of the interface).
//!
//! Called by the desk for each fact that a session states. A line is an event with fields; the log's formatter
//! quotes and escapes them. It never sees a password, a challenge response or a body.

use std::net::SocketAddr;

use crate::mail::{Fact, TlsFacts};

/// The target of all event lines; the formatter treats them as `event key=value`.
pub const TARGET: &str = "restante";

/// Joins with commas.
fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Writes one fact down.
pub fn record(fact: &Fact, peer: SocketAddr, tls: Option<&TlsFacts>) {
    let client = peer.ip().to_canonical().to_string();
    let tls = tls.map_or("none", |facts| &facts.version);
    match fact {
        Fact::Accepted { id, from, to, size } => {
            let (id, to) = (id.to_string(), list(to));
            log::info!(target: TARGET, id = id, from = from, to = to, size = *size, client = client, tls = tls; "accepted");
        }
        Fact::Refused { at, reply, from, to } => {
            let (from, to) = (from.as_deref().unwrap_or(""), to.as_deref().unwrap_or(""));
            log::info!(target: TARGET, at = *at, reply = reply, from = from, to = to, client = client, tls = tls; "refused");
        }
        Fact::LoggedIn { login, mechanism } => {
            log::info!(target: TARGET, customer = login, mechanism = *mechanism, client = client, tls = tls; "login");
        }
        Fact::LoginFailed { login, mechanism } => {
            log::warn!(target: TARGET, customer = login, mechanism = *mechanism, client = client, tls = tls; "login-failed");
        }
        Fact::Turn { customer, domains, waiting } => {
            let (customer, domains) = (customer.as_str(), list(domains));
            log::info!(target: TARGET, customer = customer, domains = domains, waiting = *waiting, client = client, tls = tls; "turn");
        }
        Fact::TurnRefused { customer, reply } => {
            let customer = customer.as_str();
            log::info!(target: TARGET, customer = customer, reply = reply, client = client, tls = tls; "turn-refused");
        }
        Fact::Etrn { customer, node, reply } => {
            let customer = customer.as_str();
            log::info!(target: TARGET, customer = customer, node = node, reply = reply, client = client, tls = tls; "etrn");
        }
        Fact::Tolerated(what) => {
            log::info!(target: TARGET, what = *what, client = client; "tolerated");
        }
    }
}
