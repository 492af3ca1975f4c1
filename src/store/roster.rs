//! The directory in memory: all customers by name, and the owner of each domain.
//!
//! Called by the engines, which make each change durable before they apply it here. It decides what a change
//! may do and never waits.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::mail::{Customer, CustomerName, Domain};

use super::DirectoryError;

/// All customers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    customers: BTreeMap<CustomerName, Arc<Customer>>,
    domains: HashMap<Domain, CustomerName>,
}

impl Roster {
    /// The customer of this name.
    pub(crate) fn customer(&self, name: &CustomerName) -> Option<Arc<Customer>> {
        self.customers.get(name).cloned()
    }

    /// Whose domain this is.
    pub(crate) fn owner(&self, domain: &Domain) -> Option<Arc<Customer>> {
        self.customer(self.domains.get(domain)?)
    }

    /// A page of customers by name.
    pub(crate) fn page(&self, after: Option<&CustomerName>, limit: usize) -> Vec<Arc<Customer>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.customers.range::<CustomerName, _>((from, Bound::Unbounded));
        range.take(limit).map(|(_, customer)| customer.clone()).collect()
    }

    /// The record to keep for a new customer.
    pub(crate) fn created(&self, customer: Customer) -> Result<Customer, DirectoryError> {
        if self.customers.contains_key(&customer.name) {
            return Err(DirectoryError::Exists);
        }
        self.checked(customer)
    }

    /// The record to keep for a changed customer.
    pub(crate) fn updated(&self, mut customer: Customer) -> Result<Customer, DirectoryError> {
        let old = self.customers.get(&customer.name).ok_or(DirectoryError::Missing)?;
        if old.revision != customer.revision {
            return Err(DirectoryError::Outdated);
        }
        customer.revision += 1;
        self.checked(customer)
    }

    fn checked(&self, mut customer: Customer) -> Result<Customer, DirectoryError> {
        customer.domains.sort_unstable();
        customer.domains.dedup();
        for domain in &customer.domains {
            if let Some(owner) = self.domains.get(domain).filter(|o| **o != customer.name) {
                return Err(DirectoryError::DomainTaken(domain.clone(), owner.clone()));
            }
        }
        Ok(customer)
    }

    /// Puts a checked record in the place of the old one, if any.
    pub(crate) fn put(&mut self, customer: Customer) {
        self.remove(&customer.name);
        for domain in &customer.domains {
            self.domains.insert(domain.clone(), customer.name.clone());
        }
        self.customers.insert(customer.name.clone(), Arc::new(customer));
    }

    /// Takes the record out; false if there is none.
    pub(crate) fn remove(&mut self, name: &CustomerName) -> bool {
        let Some(old) = self.customers.remove(name) else { return false };
        for domain in &old.domains {
            self.domains.remove(domain);
        }
        true
    }
}
