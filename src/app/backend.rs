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
use super::control::client::Client;
use crate::net::clock::RealWorld;
use crate::provider::Office;
use crate::store::{Directory, SledStore, Store, StoreError, sled};

/// Takes the items of an answer.
pub type Each<'a> = dyn FnMut(Item) -> Result<(), Refused> + Send + 'a;

/// Somebody who answers.
pub enum Backend {
    /// The running provider.
    Running(Client),
    /// The store, opened by this command.
    Direct(Box<Office>),
}

impl Backend {
    /// Finds who answers.
    ///
    /// # Errors
    /// Nobody runs and the store cannot be opened.
    pub fn open(config: &Config) -> Result<Self, Refused> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        // A provider that starts or stops has the store but no socket for a moment: neither way is open then.
        let (store, directory) = loop {
            if let Some(client) = Client::connect(&config.control_socket())? {
                return Ok(Self::Running(client));
            }
            own_files_only(&config.data_dir)?;
            match try_open(config)? {
                Ok(engine) => break engine,
                Err(StoreError::Transient(_)) if Instant::now() < deadline => pause(),
                Err(error) => return Err(cannot_open(config, &error)),
            }
        };
        let world = Arc::new(RealWorld::default());
        Ok(Self::Direct(Box::new(Office::new(store, directory, world, config.policy()))))
    }

    /// Asks, and gives each item of the answer to `each`.
    ///
    /// # Errors
    /// The refusal, or that of `each`.
    pub fn ask(&mut self, request: Request, each: &mut Each<'_>) -> Result<Done, Refused> {
        match self {
            Self::Running(client) => client.ask(request, each),
            Self::Direct(office) => {
                let who = format!("uid={}", rustix::process::geteuid().as_raw());
                block_on(admin::perform(office, &who, request, &mut Given(each)))
            }
        }
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

struct Given<'a, 'b>(&'a mut Each<'b>);

impl Items for Given<'_, '_> {
    fn put(&mut self, item: Item) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(std::future::ready((self.0)(item)))
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

/// How long a store that another process has open is waited for: a command beside us is done soon.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Opens the store below `data_dir`; makes the folder, mode 0700, if there is none.
///
/// # Errors
/// As when another process has it open and keeps it.
pub fn open_store(config: &Config) -> Result<Engine, Refused> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match try_open(config)? {
            Ok(engine) => return Ok(engine),
            Err(StoreError::Transient(_)) if Instant::now() < deadline => pause(),
            Err(error) => return Err(cannot_open(config, &error)),
        }
    }
}

fn try_open(config: &Config) -> Result<Result<Engine, StoreError>, Refused> {
    make_folder(&config.data_dir)?;
    let durability = match config.durability {
        config::Durability::Fsync => sled::Durability::Fsync,
        config::Durability::Relaxed => sled::Durability::Relaxed,
    };
    let options = sled::Options { durability, ..sled::Options::default() };
    let opened = SledStore::open(&store_folder(config), options);
    Ok(opened.map(|store| {
        let store = Arc::new(store);
        (store.clone() as Arc<dyn Store>, store as Arc<dyn Directory>)
    }))
}

/// Where the store is.
#[must_use]
pub fn store_folder(config: &Config) -> PathBuf {
    config.data_dir.join("store")
}

fn cannot_open(config: &Config, error: &StoreError) -> Refused {
    let mend = match error {
        StoreError::Transient(_) => "stop the other process, or use its control socket",
        _ => "docs/operator.md says what to do about a store that does not open",
    };
    Refused::new(format!("{}: {error}", store_folder(config).display()), mend)
}

fn make_folder(folder: &Path) -> Result<(), Refused> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Refused::new(
            format!("data_dir {} cannot be made: {error}", folder.display()),
            "make it by hand, owned by the user that runs restante, mode 0700",
        )),
        _ => Ok(()),
    }
}
