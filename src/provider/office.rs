//! The post office: store, directory, world and rules, shared by every session of a running provider.
//!
//! Made once by the program; the desk, the drains and the administration work on it. It holds no connection.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::abuse::Abuse;
use super::account::Derivations;
use super::age::Age;
use super::bell::Bell;
use super::board::Board;
use super::policy::Policy;
use super::rounds::Flush;
use super::servers::Servers;
use super::watch::Watch;
use super::world::World;
use crate::mail::{CustomerName, QueueId, Timestamp};
use crate::store::{Directory, Health, Store, StoreError};

/// What all sessions share.
pub struct Office {
    /// The mail.
    pub store: Arc<dyn Store>,
    /// The customers.
    pub directory: Arc<dyn Directory>,
    /// Clocks and chance.
    pub world: Arc<dyn World>,
    /// What goes on.
    pub board: Board,
    /// Failures and calls in vain.
    pub abuse: Abuse,
    /// Messages with recipients that a report is owed for.
    pub owed: Bell<QueueId>,
    /// Queues whose delivery was asked for by ETRN or by hand.
    pub flushes: Bell<Flush>,
    /// Foreign domains that a report waits for.
    pub outgoing: Bell<Flush>,
    /// What the customers' servers last announced.
    pub servers: Servers,
    /// Places for the computing of passwords.
    pub(super) derivations: Derivations,
    /// Who watches sessions.
    pub watch: Watch,
    age: Age,
    policy: RwLock<Arc<Policy>>,
    last_id: Mutex<u128>,
    health: Mutex<Option<(Duration, Health)>>,
}

/// How long a look at the store's health is believed.
const HEALTH_LASTS: Duration = Duration::from_secs(1);

impl Office {
    /// Opens the office.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        directory: Arc<dyn Directory>,
        world: Arc<dyn World>,
        policy: Policy,
    ) -> Self {
        let policy = RwLock::new(Arc::new(policy));
        let age = Age::new(&*world);
        let (last_id, health) = (Mutex::new(0), Mutex::new(None));
        Self {
            store,
            directory,
            world,
            board: Board::default(),
            abuse: Abuse::default(),
            owed: Bell::default(),
            flushes: Bell::default(),
            outgoing: Bell::default(),
            servers: Servers::default(),
            derivations: Derivations::default(),
            watch: Watch::default(),
            age,
            policy,
            last_id,
            health,
        }
    }

    /// A new queue id: greater than all before it in this process, and unpredictable to others.
    #[must_use]
    pub fn next_id(&self) -> QueueId {
        let mut rest = [0u8; 16];
        self.world.chance(&mut rest[6..]);
        // The top bits of the chance stay free, so that counting up never reaches the clock's part.
        let fresh = QueueId::at(self.world.now().0, u128::from_be_bytes(rest) >> 1).to_bits();
        let mut last = self.last_id.lock().unwrap_or_else(PoisonError::into_inner);
        *last = fresh.max(last.saturating_add(1));
        QueueId::from_bits(*last)
    }

    /// Takes up what was learnt about the customers' sides before the last restart. To be called once, at start.
    ///
    /// # Errors
    /// As [`Directory::learnt`].
    pub async fn recall(&self) -> Result<(), StoreError> {
        self.servers.recall(self.directory.learnt().await?);
        Ok(())
    }

    /// Keeps what is known of a customer's side now, beyond a kill at once if that is pressing. Nothing depends on it:
    /// trouble is logged.
    pub async fn keep_lesson(&self, customer: &CustomerName, is_pressing: bool) {
        let kept = async {
            let lesson = match self.directory.customer(customer).await? {
                Some(_) => self.servers.lesson(customer),
                None => return Ok(()),
            };
            self.directory.learn(customer, lesson, is_pressing).await
        };
        if let Err(error) = kept.await {
            let error = error.to_string();
            log::warn!(target: super::ledger::TARGET, what = "learn", error = error; "store-trouble");
        }
    }

    /// The time by which mail is given up: the wall clock, but never ahead of it by a jump (see [`Age`]).
    #[must_use]
    pub fn trusted_now(&self) -> Timestamp {
        self.age.now(&*self.world)
    }

    /// The store's health, at most a second old: asked for at every MAIL.
    ///
    /// # Errors
    /// As [`Store::health`].
    pub async fn health(&self) -> Result<Health, StoreError> {
        let now = self.world.monotonic();
        let known = self.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((when, health)) = known
            && now.saturating_sub(when) < HEALTH_LASTS
        {
            return Ok(health);
        }
        let health = self.store.health().await?;
        let mut known = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((now, health.clone()));
        Ok(health)
    }

    /// The rules as of now.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New rules, for all that begins from now on.
    pub fn set_policy(&self, policy: Policy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }
}
