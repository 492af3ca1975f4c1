//! Customers, their logins and their domains.

use std::sync::Arc;

use super::password::{self, Password};
use super::view::{self, Added, DomainRow, NewLogin};
use super::{Done, Item, Items, Refused, settings};
use crate::app::config::keys::pending;
use crate::mail::{Customer, CustomerName, Domain, Login, Settings};
use crate::provider::Office;
use crate::store::{DirectoryError, Filter, QueueAction};

/// Records read at once.
const PAGE: usize = 500;
/// How often a change is tried again after somebody else's.
const TRIES: usize = 8;

pub(super) async fn add(
    office: &Office,
    name: CustomerName,
    mut domains: Vec<Domain>,
    given: Option<Password>,
) -> Result<Done, Refused> {
    domains.sort();
    domains.dedup();
    domains.iter().try_for_each(usable)?;
    let world = &*office.world;
    let (password, shown) = chosen(office, given);
    let created = world.now();
    let credential = password::credential(world, "", &password, created).await?;
    let customer = Customer {
        name: name.clone(),
        domains: domains.clone(),
        suspended: false,
        credentials: vec![credential],
        settings: Settings::default(),
        created,
        revision: 0,
    };
    office.directory.create(customer).await?;
    Ok(Done::Added(Added { name, domains, password: shown }))
}

/// The password, and the same if the operator has yet to see it.
fn chosen(office: &Office, given: Option<Password>) -> (Password, Option<Password>) {
    match given {
        Some(password) => (password, None),
        None => {
            let made = Password::generate(&*office.world);
            (made.clone(), Some(made))
        }
    }
}

/// RFC 2645 §5.2.1: a domain in ATRN has two labels at least.
fn usable(domain: &Domain) -> Result<(), Refused> {
    if domain.has_two_labels() {
        return Ok(());
    }
    Err(Refused::new(
        format!("`{domain}` has one label only and could not be asked for by ATRN"),
        "write the whole domain, as in example.org",
    ))
}

pub(super) async fn list(office: &Office, items: &mut dyn Items) -> Result<Done, Refused> {
    let mut after = None;
    loop {
        let page = office.directory.customers(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(Done::Listed) };
        after = Some(last.name.clone());
        for customer in &page {
            items.put(Item::Customer(viewed(office, customer).await?)).await?;
        }
    }
}

async fn viewed(office: &Office, customer: &Customer) -> Result<view::Customer, Refused> {
    let waiting = office.store.usage(&customer.name).await?;
    Ok(view::Customer::new(customer, &waiting))
}

async fn known(office: &Office, name: &CustomerName) -> Result<Arc<Customer>, Refused> {
    office.directory.customer(name).await?.ok_or_else(|| {
        Refused::new(format!("there is no customer `{name}`"), "see `restante customer list`")
    })
}

pub(super) async fn show(office: &Office, name: &CustomerName) -> Result<Done, Refused> {
    let customer = known(office, name).await?;
    Ok(Done::Customer(viewed(office, &customer).await?))
}

/// Changes a record as it is now; starts over when somebody else was faster.
async fn change(
    office: &Office,
    name: &CustomerName,
    edit: impl Fn(&mut Customer) -> Result<(), Refused> + Send,
) -> Result<(), Refused> {
    for _ in 0..TRIES {
        let mut customer = Customer::clone(&*known(office, name).await?);
        edit(&mut customer)?;
        match office.directory.update(customer).await {
            Err(DirectoryError::Outdated) => {}
            answer => return answer.map_err(Refused::from),
        }
    }
    Err(Refused::new(format!("customer {name} is being changed by somebody else"), "try again"))
}

fn changed(subject: impl ToString, result: &str, note: Option<String>) -> Done {
    Done::Changed { subject: subject.to_string(), result: result.to_owned(), note }
}

pub(super) async fn passwd(
    office: &Office,
    name: &CustomerName,
    given: Option<Password>,
) -> Result<Done, Refused> {
    known(office, name).await?;
    let (password, shown) = chosen(office, given);
    let made = password::credential(&*office.world, "", &password, office.world.now()).await?;
    change(office, name, |customer| {
        customer.credentials.retain(|credential| !credential.label.is_empty());
        customer.credentials.insert(0, made.clone());
        Ok(())
    })
    .await?;
    let login = name.to_string();
    Ok(Done::NewLogin(NewLogin {
        name: name.clone(),
        label: String::new(),
        login,
        password: shown,
    }))
}

pub(super) async fn suspend(
    office: &Office,
    name: &CustomerName,
    suspended: bool,
) -> Result<Done, Refused> {
    change(office, name, |customer| {
        customer.suspended = suspended;
        Ok(())
    })
    .await?;
    let (result, note) = if suspended {
        ("suspended", "logins and new mail are refused; queued mail stays")
    } else {
        ("resumed", "")
    };
    Ok(changed(name, result, Some(note.to_owned()).filter(|note| !note.is_empty())))
}

pub(super) async fn remove(
    office: &Office,
    name: &CustomerName,
    discard_mail: bool,
) -> Result<Done, Refused> {
    known(office, name).await?;
    let mine = Filter { customer: Some(name.clone()), ..Filter::default() };
    let waiting = held_messages(office, &mine).await?;
    if waiting > 0 && !discard_mail {
        return Err(Refused::new(
            format!("customer {name} has {waiting} queued message(s)"),
            "let them be collected, or repeat with --discard-mail to lose them",
        ));
    }
    if discard_mail {
        // Nothing new may arrive between the removal of the mail and that of the customer.
        suspend(office, name, true).await?;
        office.store.apply(mine.clone(), QueueAction::Remove).await?;
    }
    office.directory.remove(name).await?;
    if discard_mail {
        // What was already past RCPT when the customer was suspended.
        office.store.apply(mine, QueueAction::Remove).await?;
    }
    Ok(changed(name, "removed", (waiting > 0).then(|| format!("{waiting} message(s) discarded"))))
}

/// How many messages a filter means, failed and held ones included. Counts no further than one page: the caller
/// wants to know whether there are any, and roughly how many.
async fn held_messages(office: &Office, filter: &Filter) -> Result<u64, Refused> {
    let mut total = 0;
    let mut after = None;
    loop {
        let page = office.store.query(filter.clone(), after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(total) };
        total += page.len() as u64;
        after = Some(last.id);
    }
}

pub(super) async fn set(
    office: &Office,
    name: &CustomerName,
    key: &str,
    value: &str,
    lines: Option<&[String]>,
) -> Result<Done, Refused> {
    change(office, name, |customer| {
        settings::set(&mut customer.settings, key, value, lines).map_err(setting_refused)
    })
    .await?;
    let note =
        pending(key).map(|instead| format!("`{key}` has no effect in this version: {instead}"));
    Ok(changed(format!("{name} {key}"), "set", note))
}

pub(super) async fn unset(
    office: &Office,
    name: &CustomerName,
    key: &str,
) -> Result<Done, Refused> {
    change(office, name, |customer| {
        settings::unset(&mut customer.settings, key).map_err(setting_refused)
    })
    .await?;
    Ok(changed(format!("{name} {key}"), "unset", None))
}

fn setting_refused(said: String) -> Refused {
    match said.split_once("; ") {
        Some((what, mend)) => Refused::new(what, mend),
        None => Refused::new(said, ""),
    }
}

pub(super) async fn credential_add(
    office: &Office,
    name: &CustomerName,
    label: &str,
    given: Option<Password>,
) -> Result<Done, Refused> {
    let login = format!("{name}/{label}");
    if label.is_empty() || Login::parse(&login).is_err() {
        return Err(Refused::new(
            format!("`{label}` is no label"),
            "use 1 to 64 printable ASCII characters without spaces and slashes",
        ));
    }
    known(office, name).await?;
    let (password, shown) = chosen(office, given);
    let made = password::credential(&*office.world, label, &password, office.world.now()).await?;
    change(office, name, |customer| {
        if customer.credentials.iter().any(|credential| *credential.label == *label) {
            return Err(Refused::new(
                format!("the login {login} exists"),
                format!("revoke it first: restante customer credential revoke {name} {label}"),
            ));
        }
        customer.credentials.push(made.clone());
        Ok(())
    })
    .await?;
    let label = label.to_owned();
    Ok(Done::NewLogin(NewLogin { name: name.clone(), label, login, password: shown }))
}

pub(super) async fn credential_list(
    office: &Office,
    name: &CustomerName,
    items: &mut dyn Items,
) -> Result<Done, Refused> {
    let customer = known(office, name).await?;
    for credential in &customer.credentials {
        items.put(Item::Credential(view::Credential::new(&customer, credential))).await?;
    }
    Ok(Done::Listed)
}

pub(super) async fn credential_revoke(
    office: &Office,
    name: &CustomerName,
    label: &str,
) -> Result<Done, Refused> {
    change(office, name, |customer| {
        let before = customer.credentials.len();
        customer.credentials.retain(|credential| *credential.label != *label);
        if customer.credentials.len() < before {
            return Ok(());
        }
        Err(Refused::new(
            format!("customer {name} has no login with label `{label}`"),
            format!("see `restante customer credential list {name}`"),
        ))
    })
    .await?;
    let login = if label.is_empty() { name.to_string() } else { format!("{name}/{label}") };
    Ok(changed(login, "revoked", None))
}

pub(super) async fn domain_add(
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

pub(super) async fn domain_remove(
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

pub(super) async fn domain_list(
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
