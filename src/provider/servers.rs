//! What was learnt about each customer's side: its server's name, limits and extensions, and how its client must be
//! spoken to.
//!
//! Written by the drain after EHLO and when it stalls, read by the intake, which refuses at RCPT what could only come
//! back later, by the next drain, and by the reports, which name the server. Kept in the directory beyond a restart;
//! what a power cut takes of it, or a kill of the latest that was not dear, is learnt again with the next drain.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mail::{ClientProfile, CustomerName};
use crate::smtp::sender::Extensions;

/// One customer's side.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Known {
    /// What it called itself in its greeting.
    pub name: Option<String>,
    /// What it offered in its last answer to EHLO; `None` before there was one.
    pub offers: Option<Extensions>,
    /// How its client must be spoken to; `Auto` if nothing was learnt.
    pub profile: ClientProfile,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Servers(Mutex<HashMap<CustomerName, Known>>);

impl Servers {
    fn locked(&self) -> MutexGuard<'_, HashMap<CustomerName, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known; true if that made a difference. What the way out meets belongs to nobody and is not
    /// kept.
    fn change(&self, customer: &CustomerName, edit: impl FnOnce(&mut Known)) -> bool {
        if customer.as_str() == CustomerName::RELAY {
            return false;
        }
        let mut all = self.locked();
        let before = all.get(customer).cloned().unwrap_or_default();
        let mut now = before.clone();
        edit(&mut now);
        let is_new = now != before;
        if is_new {
            all.insert(customer.clone(), now);
        }
        is_new
    }

    /// The customer's server said this; true if it had said something else before.
    pub fn met(&self, customer: &CustomerName, name: Option<&str>, offers: &Extensions) -> bool {
        self.change(customer, |known| {
            known.name = name.map(str::to_owned);
            known.offers = Some(offers.clone());
        })
    }

    /// A drain showed how this customer's client must be spoken to; true if that is new. `Auto` forgets it.
    pub fn learn_profile(&self, customer: &CustomerName, profile: ClientProfile) -> bool {
        self.change(customer, |known| known.profile = profile)
    }

    /// What was learnt about the client; [`ClientProfile::Auto`] if nothing.
    #[must_use]
    pub fn learnt_profile(&self, customer: &CustomerName) -> ClientProfile {
        self.locked().get(customer).map(|known| known.profile).unwrap_or_default()
    }

    /// What is known of this customer's side.
    #[must_use]
    pub fn of(&self, customer: &CustomerName) -> Option<Known> {
        self.locked().get(customer).cloned()
    }

    /// What its server called itself.
    #[must_use]
    pub fn name_of(&self, customer: &CustomerName) -> Option<String> {
        self.locked().get(customer).and_then(|known| known.name.clone())
    }

    /// The customer is gone.
    pub fn forget(&self, customer: &CustomerName) {
        self.locked().remove(customer);
    }

    /// What is known, as the directory keeps it; `None` if there is nothing.
    #[must_use]
    pub fn lesson(&self, customer: &CustomerName) -> Option<String> {
        serde_json::to_string(self.locked().get(customer)?).ok()
    }

    /// Takes back what the directory kept. A lesson that is not understood, as one of a later version, is passed
    /// over: it will be learnt again.
    pub fn recall(&self, lessons: Vec<(CustomerName, String)>) {
        let mut all = self.locked();
        for (customer, lesson) in lessons {
            if let Ok(known) = serde_json::from_str(&lesson) {
                all.entry(customer).or_insert(known);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learnt_is_the_same_after_a_restart() {
        let acme = CustomerName::parse("acme").expect("valid");
        let (before, after) = (Servers::default(), Servers::default());
        assert_eq!(before.lesson(&acme), None);
        let offers = Extensions { size: Some(1000), smtputf8: true, ..Extensions::default() };
        assert!(before.met(&acme, Some("mail.acme.example"), &offers));
        assert!(!before.met(&acme, Some("mail.acme.example"), &offers), "nothing new");
        assert!(before.learn_profile(&acme, ClientProfile::FetchmailTls));
        let lesson = before.lesson(&acme).expect("a lesson");
        let bolt = CustomerName::parse("bolt").expect("valid");
        after.recall(vec![(acme.clone(), lesson), (bolt.clone(), "of a later version".into())]);
        assert_eq!(after.of(&acme), before.of(&acme));
        assert_eq!(after.learnt_profile(&acme), ClientProfile::FetchmailTls);
        assert_eq!(after.of(&bolt), None);
        after.forget(&acme);
        assert_eq!(after.learnt_profile(&acme), ClientProfile::Auto);
    }
}
