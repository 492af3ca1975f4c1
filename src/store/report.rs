//! A report on its way into the store, which enters as what it tells of leaves.
//!
//! Made by the provider, taken by [`super::Store::conclude`].

use std::fmt;

use super::{BodyWriter, NewMessage};

/// A report ready to enter a queue in the same breath as the recipients it tells of leave theirs.
pub struct Report {
    /// Its envelope and owners.
    pub message: NewMessage,
    /// Its content, written to the end.
    pub body: Box<dyn BodyWriter>,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("message", &self.message).finish_non_exhaustive()
    }
}
