//! What each customer's server last announced: its name, its limits, its extensions.
//!
//! Written by the drain after EHLO, read by the intake, which refuses at RCPT what could only come back later, and
//! by the reports, which name the server. Forgotten at a restart, and learnt again with the next drain.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mail::CustomerName;
use crate::smtp::sender::Extensions;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it called itself in its greeting.
    pub name: Option<String>,
    /// What it offered in its last answer to EHLO.
    pub offers: Extensions,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Servers(Mutex<HashMap<CustomerName, Known>>);

impl Servers {
    fn locked(&self) -> MutexGuard<'_, HashMap<CustomerName, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The customer's server said this. What the way out meets belongs to nobody and is not kept.
    pub fn met(&self, customer: &CustomerName, name: Option<&str>, offers: &Extensions) {
        if customer.as_str() == CustomerName::RELAY {
            return;
        }
        let known = Known { name: name.map(str::to_owned), offers: offers.clone() };
        self.locked().insert(customer.clone(), known);
    }

    /// What is known of this customer's server.
    #[must_use]
    pub fn of(&self, customer: &CustomerName) -> Option<Known> {
        self.locked().get(customer).cloned()
    }

    /// What it called itself.
    #[must_use]
    pub fn name_of(&self, customer: &CustomerName) -> Option<String> {
        self.locked().get(customer).and_then(|known| known.name.clone())
    }
}
