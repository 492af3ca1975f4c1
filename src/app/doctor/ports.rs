//! The ports: does the running provider answer on each in its own name; could they be bound if none runs?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Notes, Patient};
use crate::net::probe::{self, Start};
use crate::net::tls::hex;
use crate::provider::board::Listener;

pub(super) async fn look(patient: &Patient<'_>, notes: &mut Notes<'_>) {
    let wanted = wanted(patient);
    if !patient.is_running() {
        for (name, address) in &wanted {
            bind(name, *address, notes);
        }
        notes.warning("no provider runs on this data_dir", "systemctl start restante");
        return;
    }
    let listeners = patient.status.as_ref().map(|status| status.listeners.clone());
    let listeners = listeners.unwrap_or_default();
    for (name, address) in &wanted {
        let is_open = listeners.iter().any(|l| l.name == *name && l.address == *address);
        if address.port() != 0 && !is_open {
            let what =
                format!("{name} {address} is configured, and the running provider has not got it");
            notes.fault(what, "systemctl restart restante");
        }
    }
    for Listener { name, address } in &listeners {
        let here = SocketAddr::new(within_reach(address.ip()), address.port());
        if name == "http" {
            match probe::page(here, "/healthz").await {
                Ok(200) => notes.ok(format!("http {address} answers")),
                Ok(code) => {
                    notes.warning(format!("http {address}: /healthz says {code}"), "see the log")
                }
                Err(why) => notes.fault(format!("http {address}: {why}"), "see the log"),
            }
            continue;
        }
        if patient.config.policy().is_balancer(here.ip()) {
            notes.ok(format!(
                "{name} {address} is open; not greeted, since listen.proxy_from names this machine"
            ));
            continue;
        }
        greet(patient, name, *address, here, notes).await;
    }
}

/// The listeners of the configuration.
fn wanted(patient: &Patient<'_>) -> Vec<(&'static str, SocketAddr)> {
    let listen = &patient.config.listen;
    [
        ("mx", &listen.mx),
        ("mxs", &listen.mxs),
        ("odmr", &listen.odmr),
        ("odmrs", &listen.odmrs),
        ("http", &listen.http),
    ]
    .into_iter()
    .flat_map(|(name, list)| list.iter().map(move |address| (name, *address)))
    .collect()
}

/// An address that leads to whatever listens on this one.
pub(super) fn within_reach(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn bind(name: &str, address: SocketAddr, notes: &mut Notes<'_>) {
    match std::net::TcpListener::bind(address) {
        Ok(_) => notes.ok(format!("{name} {address} is free")),
        Err(error) => {
            let mend = match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE (see packaging/) or other ports in [listen]"
                }
                std::io::ErrorKind::AddrInUse => "stop the other program, or choose another port",
                _ => "see [listen] in the configuration",
            };
            notes.fault(format!("{name} {address} cannot be bound: {error}"), mend);
        }
    }
}

async fn greet(
    patient: &Patient<'_>,
    name: &str,
    address: SocketAddr,
    here: SocketAddr,
    notes: &mut Notes<'_>,
) {
    let hostname = patient.config.hostname.as_str();
    let start = if name.ends_with('s') { Start::Implicit } else { Start::StartTls };
    let seen = match probe::mail_server(here, start, hostname).await {
        Ok(seen) => seen,
        Err(why) => return notes.fault(format!("{name} {address}: {why}"), "see the log"),
    };
    let mut words = seen.greeting.split_ascii_whitespace();
    let (code, said) = (words.next(), words.next().unwrap_or_default());
    if code != Some("220") {
        let what = format!("{name} {address} turns this machine away: {}", seen.greeting);
        return notes.warning(what, "see listen.odmr_from and the limits of sessions");
    }
    if !said.eq_ignore_ascii_case(hostname) {
        let what = format!("{name} {address} greets as {said}, not as {hostname}");
        return notes.fault(what, "restart the provider, or find out who answers there");
    }
    let Some(tls) = &seen.tls else {
        let what = format!("{name} {address} answers as {hostname}, without STARTTLS");
        return if patient.config.tls.is_some() {
            notes.fault(what, "see the log of the last start or reload");
        } else {
            notes.ok(what);
        };
    };
    let key = patient.shown.as_ref().map(|shown| hex(&shown.key));
    if key.is_some() && tls.peer_key.as_deref() != key.as_deref() {
        let what = format!("{name} {address} still shows another certificate than the file's");
        return notes.warning(what, "systemctl reload restante");
    }
    notes.ok(format!("{name} {address} answers as {hostname}, {}", tls.version));
}
