//! Where a command's question goes: to the running provider, or to the store itself when none runs.
//!
//! Called by the administrative commands; both ways give the same answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::future::BoxFuture;

use super::admin::{self, Done, Item, Items, Refused, Request};
use super::config::{self, Config};
use super::control::client::{Client, Feed};
use super::output::tell;
use crate::net::call::{Phone, Reach};
use crate::net::clock::RealWorld;
use crate::net::dns::Resolver;
use crate::net::stop::Stop;
use crate::provider::board::LastDrain;
use crate::provider::report::Reporter;
use crate::provider::{Office, outing};
use crate::store::sled::offline::Offline;
use crate::store::{Directory, SledStore, Store, StoreError, sled};

/// How long a provider may be between opening its store and its socket, or between closing the one and the other.
const BETWEEN_MAX: Duration = Duration::from_secs(45);
/// Pause between two looks.
const BETWEEN_PAUSE: Duration = Duration::from_millis(50);

/// Takes the items of an answer.
pub type Each<'a> = dyn FnMut(Item) -> Result<(), Refused> + Send + 'a;

/// Somebody who answers.
pub enum Backend {
    /// The running provider.
    Running(Client),
    /// The store, opened by this command.
    Direct(Arc<Office>),
}

impl Backend {
    /// Finds who answers. A provider that is just starting or stopping is waited for: it has the store open
    /// and no socket.
    ///
    /// # Errors
    /// Nobody runs and the store cannot be opened.
    pub fn open(config: &Config) -> Result<Self, Refused> {
        let mut turn = Turn::begin();
        loop {
            if let Some(client) = Client::connect(&config.control_socket())? {
                return Ok(Self::Running(client));
            }
            own_files_only(&config.data_dir)?;
            let Some((store, directory)) = turn.try_open(config)? else { continue };
            let world = Arc::new(RealWorld::default());
            let office = Office::new(store, directory, world, config.policy());
            block_on(office.recall())?;
            return Ok(Self::Direct(Arc::new(office)));
        }
    }

    /// Asks, and gives each item of the answer to `each`.
    ///
    /// # Errors
    /// The refusal, or that of `each`.
    pub fn ask(&mut self, request: Request, each: &mut Each<'_>) -> Result<Done, Refused> {
        self.ask_with(request, &mut || Ok(None), each)
    }

    /// The same for a request behind which something is sent.
    ///
    /// # Errors
    /// The refusal, or that of `feed` or `each`.
    pub fn ask_with(
        &mut self,
        request: Request,
        feed: &mut Feed<'_>,
        each: &mut Each<'_>,
    ) -> Result<Done, Refused> {
        match self {
            Self::Running(client) => client.ask(request, feed, each),
            Self::Direct(office) => {
                let who = format!("uid={}", rustix::process::geteuid().as_raw());
                block_on(admin::perform(office, &who, request, &mut Given { each, feed }))
            }
        }
    }

    /// Writes the reports that are owed, if no running provider does it. They go out when one runs.
    pub fn report_now(&self) {
        if let Self::Direct(office) = self {
            block_on(Reporter::new(office.clone()).round());
        }
    }

    /// Makes the call that was just asked for, if no running provider does it; `None` if there was nothing to do.
    ///
    /// # Errors
    /// The host could not be reached.
    pub fn call_now(&self) -> Result<Option<LastDrain>, Refused> {
        let Self::Direct(office) = self else { return Ok(None) };
        let (_giver, stop) = Stop::new();
        let phone = Phone::new(office.clone(), Resolver::of_the_system(), Reach::default(), stop);
        block_on(outing::once(office, &phone)).map_err(|why| Refused::new(why, "try again later"))
    }

    /// Ends in order.
    ///
    /// # Errors
    /// The store could not be closed; what was answered is durable all the same.
    pub fn close(self) -> Result<(), Refused> {
        match self {
            Self::Running(_) => Ok(()),
            Self::Direct(office) => Ok(block_on(office.store.close())?),
        }
    }
}

struct Given<'a, 'b> {
    each: &'a mut Each<'b>,
    feed: &'a mut Feed<'b>,
}

impl Items for Given<'_, '_> {
    fn put(&mut self, item: Item) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(std::future::ready((self.each)(item)))
    }

    fn take(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, Refused>> {
        Box::pin(std::future::ready((self.feed)()))
    }
}

/// A store written by root would be closed to the service's own user.
fn own_files_only(data_dir: &Path) -> Result<(), Refused> {
    use std::os::unix::fs::MetadataExt;
    let Ok(facts) = std::fs::metadata(data_dir) else { return Ok(()) };
    let me = rustix::process::geteuid().as_raw();
    if me != 0 || facts.uid() == 0 {
        return Ok(());
    }
    Err(Refused::new(
        format!(
            "no provider runs, and {} belongs to user {}: what root writes there it could not read",
            data_dir.display(),
            facts.uid()
        ),
        format!(
            "run this command as that user: setpriv --reuid {} --clear-groups restante …",
            facts.uid()
        ),
    ))
}

/// An engine, as mail and as directory.
pub type Engine = (Arc<dyn Store>, Arc<dyn Directory>);

/// Opens the store below `data_dir` for a provider; makes the folder, mode 0700, if there is none. A command that
/// has it open for a moment is waited for. Blocks.
///
/// # Errors
/// As when another provider has it open.
pub fn open_store(config: &Config) -> Result<Engine, Refused> {
    let mut turn = Turn::begin();
    loop {
        if let Some(engine) = turn.try_open(config)? {
            return Ok(engine);
        }
        if matches!(Client::connect(&config.control_socket()), Ok(Some(_))) {
            return Err(Refused::new(
                format!("a provider runs on {} already", config.data_dir.display()),
                "look at it with `restante status`, or give this one another data_dir",
            ));
        }
    }
}

/// One process has the store open at a time; this one's turn to have it.
struct Turn {
    until: Instant,
    is_told: bool,
}

impl Turn {
    fn begin() -> Self {
        Self { until: Instant::now() + BETWEEN_MAX, is_told: false }
    }

    /// The engine, or nothing after a pause if somebody else still has it.
    fn try_open(&mut self, config: &Config) -> Result<Option<Engine>, Refused> {
        match open_engine(config) {
            Ok(engine) => return Ok(Some(engine)),
            Err(error) if is_taken(&error) && Instant::now() < self.until => {}
            Err(error) => return Err(unopened(config, error)),
        }
        if !std::mem::replace(&mut self.is_told, true) {
            tell("restante: another process has the store open; waiting for it");
        }
        std::thread::sleep(BETWEEN_PAUSE);
        Ok(None)
    }
}

fn open_engine(config: &Config) -> Result<Engine, StoreError> {
    let options = prepare(config)?;
    let store = Arc::new(SledStore::open(&store_folder(config), options)?);
    Ok((store.clone(), store))
}

/// Makes the data folder, and says how the store in it is opened.
fn prepare(config: &Config) -> Result<sled::Options, StoreError> {
    // The engine makes files of its own; nobody else is to read them, whatever the caller's habits.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    make_folder(&config.data_dir)?;
    let durability = match config.durability {
        config::Durability::Fsync => sled::Durability::Fsync,
        config::Durability::Relaxed => sled::Durability::Relaxed,
    };
    Ok(sled::Options { durability, ..sled::Options::default() })
}

/// The running provider, if there is one.
///
/// # Errors
/// Somebody answers, but not for us.
pub fn running(config: &Config) -> Result<Option<Backend>, Refused> {
    Ok(Client::connect(&config.control_socket())?.map(Backend::Running))
}

fn stopped_only(config: &Config, what: &str) -> Result<(), Refused> {
    if running(config)?.is_some() {
        let what = format!(
            "a provider runs on {}, and {what} needs the store for itself",
            config.data_dir.display()
        );
        return Err(Refused::new(what, "stop it first"));
    }
    own_files_only(&config.data_dir)
}

/// The store, empty and for `load` alone. Blocks.
///
/// # Errors
/// A provider runs, or there is something in it.
pub fn fill(config: &Config) -> Result<SledStore, Refused> {
    stopped_only(config, "load")?;
    let opened =
        prepare(config).and_then(|options| SledStore::open_to_fill(&store_folder(config), options));
    opened.map_err(|error| unopened(config, error))?.ok_or_else(not_empty)
}

/// Something is in the store that is to be loaded.
#[must_use]
pub fn not_empty() -> Refused {
    Refused::new(
        "the store is not empty, and load never mixes two",
        "give the configuration a new data_dir, or move the folder `store` in it away",
    )
}

/// Looks through the store without opening it. Blocks.
///
/// # Errors
/// Somebody has it open, or it is none.
pub fn look(config: &Config, progress: sled::Progress<'_>) -> Result<Offline, Refused> {
    let looked = sled::offline::verify(&store_folder(config), progress);
    looked.map_err(|error| unopened(config, error))
}

/// Makes the index again; answers messages, octets and damage. Blocks.
///
/// # Errors
/// A provider runs, or the store cannot be opened.
pub fn rebuild(
    config: &Config,
    progress: sled::Progress<'_>,
) -> Result<(u64, u64, Vec<String>), Refused> {
    stopped_only(config, "rebuild")?;
    let folder = store_folder(config);
    let opened =
        prepare(config).and_then(|options| SledStore::open_with(&folder, options, true, progress));
    let store = opened.map_err(|error| unopened(config, error))?;
    let health = block_on(store.health())?;
    let messages = store.messages();
    block_on(store.close())?;
    let damage = health.damage.into_iter().filter(|line| !line.starts_with("durability is"));
    Ok((messages, health.live_bytes, damage.collect()))
}

fn store_folder(config: &Config) -> PathBuf {
    config.data_dir.join("store")
}

/// Whether somebody else has the store open, which ends by itself.
fn is_taken(error: &StoreError) -> bool {
    matches!(error, StoreError::Transient(_))
}

fn unopened(config: &Config, error: StoreError) -> Refused {
    let folder = store_folder(config);
    let place = folder.display();
    if is_taken(&error) {
        let socket = config.control_socket();
        return Refused::new(
            format!(
                "the store in {place} is open in another process, which does not answer on {}",
                socket.display()
            ),
            "is a second provider running on this data_dir? Stop the other process, or wait for its end",
        );
    }
    match error {
        StoreError::Unready(why) => Refused::new(format!("the store {why}"), ""),
        StoreError::Broken(why) => Refused::new(
            format!("the store in {place} cannot be opened: {why}"),
            "the folder must belong to the user that runs restante, mode 0700",
        ),
        error => error.into(),
    }
}

fn make_folder(folder: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::Broken(format!("the folder cannot be made: {error}")))
        }
        _ => Ok(()),
    }
}
