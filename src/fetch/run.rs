//! `restante fetch` from its arguments to its exit status.
//!
//! Called by the program. All accounts run in this thread side by side; a thread of its own waits for signals.
//! The first SIGTERM or SIGINT ends every call at its next message boundary, a second one ends the process, which
//! cuts what is under way: the target has not seen its end then, and the provider keeps it.

use std::path::Path;
use std::thread;
use std::time::Duration;

use futures::future::{Either, join_all, select};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::{FetchArgs, Form};
use super::call::collect;
use super::notify::Notify;
use super::rhythm::{Failures, Rhythm};
use super::settings::{Planned, planned};
use super::tell::Teller;
use super::verdict::worst;
use crate::net::patience::pause;
use crate::net::stop::Stop;

/// Wrong usage or settings (section 1 of the interface's exit statuses).
const USAGE: u8 = 2;

/// Runs `restante fetch`; `config` is the TOML file of `-c`, if it was given. Gives the exit status.
#[must_use]
pub fn run(args: &FetchArgs, config: Option<&Path>, form: Form) -> u8 {
    let plans = match planned(args, config, form) {
        Ok(plans) => plans,
        Err(fault) => {
            eprintln!("restante fetch: {fault}");
            return USAGE;
        }
    };
    let stop = match stop_on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("restante fetch: signals cannot be heard: {error}");
            return 1;
        }
    };
    let notify = Notify::from_environment();
    notify.ready();
    let teller = Teller::new(form, args.dry_run, notify);
    let calls = plans.iter().map(|plan| keep_calling(plan, &stop, &teller));
    let statuses = futures::executor::block_on(join_all(calls));
    teller.end();
    worst(statuses)
}

/// Calls one account in its rhythm; gives the last call's exit status.
async fn keep_calling(plan: &Planned, stop: &Stop, teller: &Teller) -> u8 {
    let mut failures = Failures::default();
    loop {
        let mut telling = teller.begin(&plan.account);
        let report = collect(&plan.account, stop, &mut |event| telling.event(&event)).await;
        telling.end(&report);
        let Some(span) = plan.rhythm.pause(&report, &mut failures, dice()) else {
            return report.verdict.exit_status();
        };
        teller.pausing(&plan.account, span);
        if is_stopped_during(span, stop).await {
            // Stopping a service is no failure of it.
            return if plan.rhythm == Rhythm::Once { report.verdict.exit_status() } else { 0 };
        }
    }
}

async fn is_stopped_during(span: Duration, stop: &Stop) -> bool {
    let wait = std::pin::pin!(pause(span));
    let order = std::pin::pin!(stop.given());
    matches!(select(wait, order).await, Either::Right(_))
}

fn stop_on_signals() -> std::io::Result<Stop> {
    let (giver, stop) = Stop::new();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).stack_size(64 * 1024).spawn(move || {
        let mut giver = Some(giver);
        for _ in signals.forever() {
            match giver.take() {
                Some(giver) => {
                    Notify::from_environment().stopping();
                    giver.give();
                }
                None => std::process::exit(75),
            }
        }
    })?;
    Ok(stop)
}

/// From 0 to 1. Without chance everybody waits the same time, which does no harm here.
fn dice() -> f64 {
    let mut octets = [0u8; 4];
    let _ = getrandom::fill(&mut octets);
    f64::from(u32::from_le_bytes(octets)) / f64::from(u32::MAX)
}
