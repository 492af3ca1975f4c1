//! `restante status`: what goes on right now.

use super::{Failure, ask, unexpected};
use crate::app::admin::{Done, Request, Status};
use crate::app::backend::Backend;
use crate::app::config::units;
use crate::app::output::Out;

pub(super) fn run(desk: &mut Backend, out: &mut Out) -> Result<(), Failure> {
    let Done::Status(status) = ask(desk, Request::Status)? else { return Err(unexpected().into()) };
    show(&status, out)
}

/// For people as tables, else as it is.
pub(super) fn show(status: &Status, out: &mut Out) -> Result<(), Failure> {
    if !out.is_text() {
        return Ok(out.json(status)?);
    }
    let how = if status.running { "running" } else { "not running; this is the store itself" };
    out.line(&format!("restante {} for {}, {how}", status.version, status.hostname))?;
    listeners(status, out)?;
    queues(status, out)?;
    drains(status, out)?;
    relay(status, out)?;
    store(status, out)?;
    Ok(())
}

fn relay(status: &Status, out: &mut Out) -> Result<(), Failure> {
    out.line("")?;
    let said = match status.relay.as_str() {
        "none" => "relay: none; reports to foreign addresses wait until they expire".to_owned(),
        "mx" => "relay: by the mail exchangers of each domain".to_owned(),
        host => format!("relay: by {host}"),
    };
    Ok(out.line(&said)?)
}

fn listeners(status: &Status, out: &mut Out) -> Result<(), Failure> {
    if !status.running {
        return Ok(());
    }
    let rows: Vec<Vec<String>> =
        status.listeners.iter().map(|l| vec![l.name.clone(), l.address.to_string()]).collect();
    out.line("")?;
    out.table(&["LISTENER", "ADDRESS"], &rows, &[])?;
    let sessions = status.sessions;
    Ok(out.line(&format!(
        "sessions: {} mx, {} odmr, {} draining",
        sessions.mx, sessions.odmr, sessions.drains
    ))?)
}

fn queues(status: &Status, out: &mut Out) -> Result<(), Failure> {
    out.line("")?;
    let rows: Vec<Vec<String>> = status
        .queues
        .iter()
        .map(|queue| {
            let oldest = match queue.messages {
                0 => "-".to_owned(),
                _ => units::about_time(queue.oldest_seconds),
            };
            vec![
                queue.customer.to_string(),
                queue.domain.to_string(),
                queue.messages.to_string(),
                units::about_size(queue.bytes),
                oldest,
                (queue.messages - queue.ready.min(queue.messages)).to_string(),
                queue.failed.to_string(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return Ok(
            out.line("no queues; add a customer: restante customer add NAME --domain DOMAIN")?
        );
    }
    let head = ["CUSTOMER", "DOMAIN", "MESSAGES", "SIZE", "OLDEST", "HELD", "FAILED"];
    Ok(out.table(&head, &rows, &[2, 3, 4, 5, 6])?)
}

fn drains(status: &Status, out: &mut Out) -> Result<(), Failure> {
    if status.last_drains.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let rows: Vec<Vec<String>> = status
        .last_drains
        .iter()
        .map(|row| {
            let drain = &row.drain;
            vec![
                drain.customer.to_string(),
                drain.path.clone(),
                row.started_at.clone(),
                format!("{}.{:03} s", drain.milliseconds / 1000, drain.milliseconds % 1000),
                drain.delivered.to_string(),
                drain.deferred.to_string(),
                drain.failed.to_string(),
                drain.ended.clone(),
                drain.detail.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let head = [
        "LAST DRAIN",
        "PATH",
        "STARTED",
        "TOOK",
        "DELIVERED",
        "DEFERRED",
        "FAILED",
        "ENDED",
        "DETAIL",
    ];
    Ok(out.table(&head, &rows, &[3, 4, 5, 6])?)
}

fn store(status: &Status, out: &mut Out) -> Result<(), Failure> {
    let store = &status.store;
    let free = store
        .free_bytes
        .map_or_else(String::new, |free| format!(", {} free", units::about_size(free)));
    let (live, disk) = (units::about_size(store.live_bytes), units::about_size(store.disk_bytes));
    out.line("")?;
    out.line(&format!("store: {live} of mail, {disk} on disk{free}"))?;
    if let Some(why) = &store.broken {
        out.line(&format!("store: TAKES NO MAIL: {why}"))?;
    }
    for damage in &store.damage {
        out.line(&format!("store: damaged: {damage}"))?;
    }
    Ok(())
}
