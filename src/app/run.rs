//! The running provider: everything started, kept, reloaded and stopped in order.
//!
//! Called by `serve` and `quickstart`. The only file outside `net` that names the async runtime.

use std::sync::Arc;

use futures::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::admin::Refused;
use super::backend::open_store;
use super::config::{self, Config};
use super::control::server::Attendant;
use super::logging;
use crate::net::clock::RealWorld;
use crate::net::control::Control;
use crate::net::stop::Stop;
use crate::provider::Office;
use crate::provider::ledger::TARGET;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What could not be started.
pub fn serve(config: &Config) -> Result<(), Refused> {
    async_std::task::block_on(run(config))
}

async fn run(config: &Config) -> Result<(), Refused> {
    let trouble = |what: &str, error: std::io::Error| Refused::new(format!("{what}: {error}"), "");
    let (store, directory) = open_store(config)?;
    let world = Arc::new(RealWorld::default());
    let office = Arc::new(Office::new(store, directory, world, config.policy()));
    let (order, stop) = Stop::new();
    let socket = config.control_socket();
    let control = Control::bind(&socket).await.map_err(|error| trouble("control socket", error))?;
    let attending =
        async_std::task::spawn(control.serve(Arc::new(Attendant(office.clone())), stop.clone()));
    let mut signals = signal_hook_async_std::Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| trouble("signals", error))?;
    log::info!(target: TARGET, version = env!("CARGO_PKG_VERSION"); "started");
    while let Some(signal) = signals.next().await {
        if signal != SIGHUP {
            break;
        }
        reload(config, &office);
    }
    order.give();
    attending.await;
    let closed = office.store.close().await;
    log::info!(target: TARGET, "stopped");
    Ok(closed?)
}

/// SIGHUP: limits and log level from the file as it is now; a faulty file changes nothing.
fn reload(config: &Config, office: &Office) {
    let loaded = config::load(&config.file);
    let Some(fresh) = loaded.config else {
        for finding in loaded.report.findings() {
            let fault = loaded.report.show(finding);
            log::error!(target: TARGET, fault = fault; "reload-refused");
        }
        return;
    };
    office.set_policy(fresh.policy());
    logging::set_level(fresh.log_level);
    log::info!(target: TARGET, "reloaded");
}
