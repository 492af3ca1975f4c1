//! Where a command's question goes: to the running provider, or to the store itself when none runs.
//!
//! Called by the administrative commands; both ways give the same answers.

use std::path::Path;
use std::sync::Arc;

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
        if let Some(client) = Client::connect(&config.control_socket())? {
            return Ok(Self::Running(client));
        }
        own_files_only(&config.data_dir)?;
        let (store, directory) = open_store(config)?;
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

/// Opens the store below `data_dir`; makes the folder, mode 0700, if there is none.
///
/// # Errors
/// As when another process has it open.
pub fn open_store(config: &Config) -> Result<Engine, Refused> {
    make_folder(&config.data_dir)?;
    let durability = match config.durability {
        config::Durability::Fsync => sled::Durability::Fsync,
        config::Durability::Relaxed => sled::Durability::Relaxed,
    };
    let options = sled::Options { durability, ..sled::Options::default() };
    let folder = config.data_dir.join("store");
    let store = SledStore::open(&folder, options).map_err(|error| {
        let mend = match &error {
            StoreError::Transient(_) => "if a provider runs on it, wait until it is up, or stop it",
            _ => "docs/operator.md says what to do about a store that does not open",
        };
        Refused::new(format!("{}: {error}", folder.display()), mend)
    })?;
    let store = Arc::new(store);
    Ok((store.clone(), store))
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
