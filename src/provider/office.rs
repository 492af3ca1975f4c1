//! The post office: store, directory, world and rules, shared by every session of a running provider.
//!
//! Made once by the program; the desk, the drains and the administration work on it. It holds no connection.

use std::sync::{Arc, PoisonError, RwLock};

use super::board::Board;
use super::policy::Policy;
use super::world::World;
use crate::store::{Directory, Store};

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
    policy: RwLock<Arc<Policy>>,
}

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
        Self { store, directory, world, board: Board::default(), policy }
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
