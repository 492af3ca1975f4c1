//! Domains of customers: added, removed, listed. A domain belongs to one customer only.

use super::customers::{PAGE, change, changed, held_messages, known, usable};
use super::view::DomainRow;
use super::{Done, Item, Items, Refused};
use crate::mail::{Customer, CustomerName, Domain};
use crate::provider::Office;
use crate::store::{Filter, QueueAction};

pub(super) async fn add(
    office: &Office,
    name: &CustomerName,
    domain: Domain,
) -> Result<Done, Refused> {
    usable(&domain)?;
    change(office, name, |customer| {
        if customer.domains.contains(&domain) {
            let what = format!("{domain} is a domain of customer {name} already");
            return Err(Refused::new(what, "nothing to do"));
        }
        customer.domains.push(domain.clone());
        customer.domains.sort();
        Ok(())
    })
    .await?;
    Ok(changed(&domain, "added", Some(format!("to customer {name}"))))
}

pub(super) async fn remove(
    office: &Office,
    expected: Option<&CustomerName>,
    domain: &Domain,
    discard_mail: bool,
) -> Result<Done, Refused> {
    let owner = office.directory.owner(domain).await?.ok_or_else(|| {
        Refused::new(format!("{domain} is no customer's domain"), "see `restante domain list`")
    })?;
    if let Some(expected) = expected.filter(|name| **name != owner.name) {
        return Err(Refused::new(
            format!("{domain} belongs to customer {}, not to {expected}", owner.name),
            "see `restante domain list`",
        ));
    }
    let queue = Filter { domain: Some(domain.clone()), ..Filter::default() };
    let waiting = held_messages(office, &queue).await?;
    if waiting > 0 && !discard_mail {
        return Err(Refused::new(
            format!("{waiting} message(s) are queued for {domain}"),
            "let them be collected, or repeat with --discard-mail to lose them",
        ));
    }
    change(office, &owner.name, |customer| {
        customer.domains.retain(|other| other != domain);
        Ok(())
    })
    .await?;
    if discard_mail {
        office.store.apply(queue, QueueAction::Remove).await?;
    }
    Ok(changed(domain, "removed", Some(format!("from customer {}", owner.name))))
}

pub(super) async fn list(
    office: &Office,
    only: Option<&CustomerName>,
    items: &mut dyn Items,
) -> Result<Done, Refused> {
    if let Some(name) = only {
        let customer = known(office, name).await?;
        list_domains_of(office, &customer, items).await?;
        return Ok(Done::Listed);
    }
    let mut after = None;
    loop {
        let page = office.directory.customers(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(Done::Listed) };
        after = Some(last.name.clone());
        for customer in &page {
            list_domains_of(office, customer, items).await?;
        }
    }
}

async fn list_domains_of(
    office: &Office,
    customer: &Customer,
    items: &mut dyn Items,
) -> Result<(), Refused> {
    for domain in &customer.domains {
        let count = office.store.count(domain).await?;
        let row = DomainRow {
            domain: domain.clone(),
            customer: customer.name.clone(),
            messages: count.messages,
            bytes: count.bytes,
        };
        items.put(Item::Domain(row)).await?;
    }
    Ok(())
}
