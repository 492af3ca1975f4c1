//! `serve`: everything is opened, bound and started here, and stopped again in order.
//!
//! Called by the `serve` and `quickstart` commands. The only file outside `net` that names the async runtime.
//! Nothing is served before everything is open and bound; a fault at start says what to mend and leaves nothing
//! behind.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_std::task;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::future::{BoxFuture, Either, select};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_async_std::Signals;

use super::admin::Refused;
use super::backend::open_store;
use super::config::{self, Config, Route};
use super::control::server::Attendant;
use super::{logging, pages};
use crate::net::call::{Phone, Reach};
use crate::net::clock::RealWorld;
use crate::net::control::Control;
use crate::net::dns::Resolver;
use crate::net::listen::{Bound, Place, bind_address};
use crate::net::manager::{self, Adopted};
use crate::net::serve::Host;
use crate::net::stop::Stop;
use crate::net::tls::{MinimumVersion, PairFiles, ServerFiles, ServerTls};
use crate::net::{descriptors, http};
use crate::provider::board::{LastDrain, Listener};
use crate::provider::call::{Call, CallError, Caller};
use crate::provider::ledger::TARGET;
use crate::provider::report::Reporter;
use crate::provider::rounds::Rounds;
use crate::provider::{Office, expiry};
use crate::smtp::Door;

/// How often certificates are looked at and the store gets its turn of background work.
const UPKEEP_PAUSE: Duration = Duration::from_secs(30);
/// How long sessions and drains may take to come to their next safe point after the order to stop.
const FAREWELL: Duration = Duration::from_secs(30);
/// How often a stopping provider looks whether its calls are over.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Runs the provider until SIGTERM or SIGINT.
///
/// # Errors
/// What could not be started, and what to do about it.
pub fn serve(config: &Config) -> Result<(), Refused> {
    let limit = descriptors::raise_limit();
    // Before there are other threads, see there.
    let adopted = Adopted::from_manager()
        .map_err(|error| Refused::new(format!("sockets of the service manager: {error}"), ""))?;
    log::debug!("descriptors: {limit:?}");
    task::block_on(async {
        let (store, directory) = open_store(config)?;
        let world = Arc::new(RealWorld::default());
        let office = Arc::new(Office::new(store, directory, world, config.policy()));
        office.recall().await?;
        let outcome = run(config, &office, adopted).await;
        let closed = office.store.close().await.map_err(Refused::from);
        outcome.and(closed)
    })
}

async fn run(config: &Config, office: &Arc<Office>, mut adopted: Adopted) -> Result<(), Refused> {
    let tls = certificate(config)?;
    let bound = places(config)
        .into_iter()
        .map(|place| match adopted.take(place.address) {
            Some(listener) => Ok(Bound::over(place, listener)),
            None => Bound::bind(place).map_err(|error| cannot_listen(&error)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let sites = config.listen.http.iter().map(|address| match adopted.take(*address) {
        Some(listener) => Ok(listener.into()),
        None => bind_address(*address),
    });
    let sites = sites.collect::<Result<Vec<_>, _>>().map_err(|error| cannot_listen(&error))?;
    if let Some(address) = adopted.left().next() {
        let what = format!("the service manager handed over {address}, and no listener is there");
        return Err(Refused::new(what, "name the address in [listen], or remove it from the unit"));
    }
    let socket = config.control_socket();
    let control = Control::bind(&socket).await.map_err(|error| {
        Refused::new(format!("control socket {}: {error}", socket.display()), "")
    })?;
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| Refused::new(format!("signals cannot be caught: {error}"), ""))?;
    let (giver, stop) = Stop::new();
    let host = Arc::new(Host { office: office.clone(), tls: tls.clone(), stop: stop.clone() });
    let (alive, mut gone) = mpsc::channel::<()>(0);
    for listener in bound {
        office.board.listening(listener.describe().map_err(|error| cannot_listen(&error))?);
        task::spawn(listener.accept(host.clone(), alive.clone()));
    }
    for site in sites {
        let address = site.local_addr().map_err(|error| cannot_listen(&error))?;
        office.board.listening(Listener { name: "http".into(), address });
        task::spawn(http::serve(site, pages::pages(office.clone()), stop.clone()));
    }
    let attendant = Arc::new(Attendant(office.clone()));
    let attending = task::spawn(control.serve(attendant, stop.clone()));
    task::spawn(upkeep(office.clone(), tls.clone(), stop.clone()));
    task::spawn(reports(office.clone(), stop.clone()));
    task::spawn(expiries(office.clone(), stop.clone()));
    let calls = call_out(config, office, &stop);
    for Listener { name, address } in office.board.listeners() {
        let address = address.to_string();
        log::info!(target: TARGET, listener = name, address = address; "listening");
    }
    log::info!(target: TARGET, version = env!("CARGO_PKG_VERSION"); "started");
    manager::ready();

    obey(signals, config, office, tls.as_deref()).await;
    manager::stopping();
    giver.give();
    drop((host, alive));
    let all_gone = Box::pin(async {
        // The receiver ends when the last session has dropped its sender.
        gone.next().await;
        calls.over().await;
    });
    if let Either::Right(_) = select(all_gone, Box::pin(task::sleep(FAREWELL))).await {
        log::warn!(target: TARGET, seconds = FAREWELL.as_secs(); "stopped-with-sessions");
    }
    attending.await;
    log::info!(target: TARGET, "stopped");
    Ok(())
}

fn cannot_listen(error: &std::io::Error) -> Refused {
    let mend = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE (see packaging/) or other ports in [listen]"
        }
        std::io::ErrorKind::AddrInUse => {
            "another program listens there; stop it or choose another port"
        }
        _ => "see [listen] in the configuration",
    };
    Refused::new(format!("cannot listen on {error}"), mend)
}

/// The listeners of the configuration, SMTP ones only.
fn places(config: &Config) -> Vec<Place> {
    let listen = &config.listen;
    let of = |name: &'static str, list: &[SocketAddr], door, implicit_tls| {
        list.iter()
            .map(|address| Place { name, address: *address, door, implicit_tls })
            .collect::<Vec<_>>()
    };
    [
        of("mx", &listen.mx, Door::Mx, false),
        of("mxs", &listen.mxs, Door::Mx, true),
        of("odmr", &listen.odmr, Door::Odmr, false),
        of("odmrs", &listen.odmrs, Door::Odmr, true),
    ]
    .concat()
}

fn certificate(config: &Config) -> Result<Option<Arc<ServerTls>>, Refused> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let minimum = if tls.only_tls13 { MinimumVersion::Tls13 } else { MinimumVersion::Tls12 };
    let mut files = ServerFiles::new(tls.certificate.clone(), tls.private_key.clone(), minimum);
    files.asks_clients = config.policy().mechanisms.contains(&"EXTERNAL");
    files.client_ca = tls.client_ca.clone();
    let pair = |(certificate, private_key): &(PathBuf, PathBuf)| PairFiles {
        certificate: certificate.clone(),
        private_key: private_key.clone(),
    };
    files.also = tls.also.iter().map(pair).collect();
    let mend = "see [tls] in the configuration";
    let tls = ServerTls::load(files).map_err(|error| Refused::new(error, mend))?;
    Ok(Some(Arc::new(tls)))
}

/// Waits for signals: SIGHUP loads the configuration again, the others are the order to stop.
async fn obey(mut signals: Signals, config: &Config, office: &Office, tls: Option<&ServerTls>) {
    while let Some(signal) = signals.next().await {
        if signal != SIGHUP {
            log::info!(target: TARGET, signal = signal; "stopping");
            return;
        }
        reload(config, office, tls);
    }
}

/// Certificates, limits and log level as the file has them now; with a fault in it everything stays as it was.
fn reload(config: &Config, office: &Office, tls: Option<&ServerTls>) {
    let loaded = config::load(&config.file);
    if let Some(fresh) = loaded.config {
        office.set_policy(fresh.policy());
        // Reports may have another way out now, or one at last.
        office.outgoing.ring_everything();
        warn_of_no_way_out(&fresh);
        logging::set_level(fresh.log_level);
        log::info!(target: TARGET, "reloaded");
    } else {
        for finding in loaded.report.findings() {
            let fault = loaded.report.show(finding);
            log::error!(target: TARGET, fault = fault; "reload-refused");
        }
    }
    if let Some(tls) = tls {
        renew(tls, true);
    }
}

fn renew(tls: &ServerTls, forced: bool) {
    match tls.reload(forced) {
        Ok(false) => {}
        Ok(true) => log::info!(target: TARGET, "certificate-loaded"),
        Err(error) => log::error!(target: TARGET, error = error; "certificate-refused"),
    }
}

/// Background work until the order to stop.
async fn upkeep(office: Arc<Office>, tls: Option<Arc<ServerTls>>, stop: Stop) {
    loop {
        let pause = office.world.wait(UPKEEP_PAUSE);
        if let Either::Right(_) = select(pause, Box::pin(stop.given())).await {
            return;
        }
        if let Some(tls) = &tls {
            renew(tls, false);
        }
        if let Err(error) = office.store.maintain().await {
            let error = error.to_string();
            log::error!(target: TARGET, what = "maintain", error = error; "store-trouble");
        }
    }
}

fn warn_of_no_way_out(config: &Config) {
    if config.relay.route == Route::None {
        let detail = "relay.route is \"none\": reports to foreign addresses wait until they expire";
        log::warn!(target: TARGET, detail = detail; "no-way-out");
    }
}

/// The calls that we made ourselves: each holds one of these while it lasts.
#[derive(Clone, Default)]
struct Calls(Arc<()>);

impl Calls {
    /// Is ready when no call is under way. Looks now and then, since that is asked once in a process's life.
    async fn over(&self) {
        // One is the phone's, one is ours.
        while Arc::strong_count(&self.0) > 2 {
            task::sleep(LOOK_PAUSE).await;
        }
    }
}

/// A phone whose calls are counted until their leases are handed back.
struct Counting {
    phone: Phone,
    calls: Calls,
}

impl Caller for Counting {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<LastDrain, CallError>> {
        let (calls, work) = (self.calls.clone(), self.phone.call(call));
        Box::pin(async move {
            let outcome = work.await;
            drop(calls);
            outcome
        })
    }
}

/// The ETRN path and the way out; answers the calls under way.
fn call_out(config: &Config, office: &Arc<Office>, stop: &Stop) -> Calls {
    warn_of_no_way_out(config);
    let (resolver, calls) = (Resolver::of_the_system(), Calls::default());
    let phone = Phone::new(office.clone(), resolver, Reach::default(), stop.clone());
    let phone: Arc<dyn Caller> = Arc::new(Counting { phone, calls: calls.clone() });
    for rounds in
        [Rounds::etrn(office.clone(), phone.clone()), Rounds::relay(office.clone(), phone.clone())]
    {
        let stop = stop.clone();
        // Drains under way hear the order themselves and come to their next safe point.
        task::spawn(async move {
            select(Box::pin(rounds.run()), Box::pin(farewell(stop))).await;
        });
    }
    calls
}

/// Is ready when the order to stop was given and running calls have had their time.
async fn farewell(stop: Stop) {
    stop.given().await;
    task::sleep(FAREWELL).await;
}

/// What is owed to senders is told until the order to stop.
async fn reports(office: Arc<Office>, stop: Stop) {
    let reporter = Reporter::new(office);
    // What is cut off here is found again at the next start.
    select(Box::pin(reporter.run()), Box::pin(stop.given())).await;
}

/// What was not collected in time is given up.
async fn expiries(office: Arc<Office>, stop: Stop) {
    loop {
        let pause = office.world.wait(expiry::pause(office.policy().expire_after));
        if let Either::Right(_) = select(pause, Box::pin(stop.given())).await {
            return;
        }
        if let Err(error) = expiry::expire(&office).await {
            let error = error.to_string();
            log::error!(target: TARGET, what = "expire", error = error; "store-trouble");
        }
    }
}
