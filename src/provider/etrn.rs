//! ETRN: may this customer have its queue started, and the calls that follow from it.
//!
//! `request` is asked by the desk and answers at once; what follows from it is one of the provider's rounds. Mail
//! goes to the host that the operator set for the customer and nowhere else.
//!
//! Keeps RFC 1985 §5.1 (answer at once, deliver over another connection), §5.2 (4yz for policy), §5.3, §8.

use std::net::IpAddr;

use super::call::{HostPort, Identity, Place};
use super::ledger::TARGET;
use super::office::Office;
use super::outing::waiting;
use super::rounds::Flush;
use crate::mail::{Customer, Domain, EtrnTls};
use crate::smtp::etrn::Node;
use crate::smtp::{EtrnRequest, Refusal};
use crate::store::StoreError;

/// The verdict on ETRN: how many messages will be offered. Starts their delivery.
pub(super) async fn request(
    office: &Office,
    request: &EtrnRequest,
    peer: IpAddr,
) -> Result<u64, Refusal> {
    let name = &request.account.login.customer;
    let found = office.directory.customer(name).await.map_err(|error| trouble(&error))?;
    let customer = found.filter(|customer| !customer.suspended).ok_or(Refusal::NodeSuspended)?;
    let domains = allowed(&customer, &request.node).ok_or(Refusal::NodeNotYours)?;
    let from = &customer.settings.etrn_from;
    if !from.is_empty() && !from.iter().any(|network| network.contains(peer)) {
        return Err(Refusal::NodeNotFromHere);
    }
    if customer.settings.etrn_host.is_none() {
        return Err(Refusal::NodeWithoutHost);
    }
    let waiting = waiting(office, &domains).await.map_err(|error| trouble(&error))?;
    if waiting > 0 {
        for domain in domains {
            let customer = customer.name.clone();
            office.flushes.ring(Flush { customer, domain, by_hand: false });
        }
    }
    Ok(waiting)
}

/// The customer's domains that the node means; `None` if it means none, or reaches above what is the customer's
/// (RFC 1985 §8).
fn allowed(customer: &Customer, node: &Node) -> Option<Vec<Domain>> {
    let owns = |domain: &Domain| customer.domains.contains(domain);
    match node {
        Node::Domain(domain) => owns(domain).then(|| vec![domain.clone()]),
        Node::Within(above) => owns(above).then(|| {
            customer.domains.iter().filter(|domain| domain.is_within(above)).cloned().collect()
        }),
        Node::Queue(name) => (*name == customer.name && !customer.domains.is_empty())
            .then(|| customer.domains.clone()),
    }
}

fn trouble(error: &StoreError) -> Refusal {
    let error = error.to_string();
    log::error!(target: TARGET, what = "etrn", error = error; "store-trouble");
    Refusal::NodeTrouble
}

/// The operator asks for a queue to be delivered now; answers how many messages wait.
///
/// # Errors
/// One line that says why not, and the mend.
pub async fn flush(office: &Office, domain: &Domain) -> Result<u64, String> {
    let owner = office.directory.owner(domain).await.map_err(|error| error.to_string())?;
    let customer = owner.ok_or_else(|| format!("{domain} is no customer's domain"))?;
    if customer.settings.etrn_host.is_none() {
        return Err(format!(
            "customer {0} has no host for deliveries; set one: restante customer set {0} etrn-host HOST:PORT",
            customer.name
        ));
    }
    let waits = waiting(office, std::slice::from_ref(domain)).await;
    let waits = waits.map_err(|error| error.to_string())?;
    if waits > 0 {
        let (customer, domain) = (customer.name.clone(), domain.clone());
        office.flushes.ring(Flush { customer, domain, by_hand: true });
    }
    Ok(waits)
}

/// The order for a call to this customer's host, without its lease; `None` if there is nothing to call any more.
pub(super) fn order(customer: &Customer) -> Option<(Place, EtrnTls, Identity)> {
    let host = HostPort::parse(customer.settings.etrn_host.as_deref()?)?;
    if customer.suspended {
        return None;
    }
    let tls = customer.settings.etrn_tls.unwrap_or_default();
    let keys = &customer.settings.certificate;
    let identity = match tls {
        EtrnTls::Verify if keys.is_empty() => Identity::Name,
        EtrnTls::Verify => Identity::Keys(keys.clone()),
        _ => Identity::Any,
    };
    Some((Place::Host(host), tls, identity))
}
