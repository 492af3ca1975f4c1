//! Customers: added, listed, shown, changed, removed.

use std::sync::Arc;

use super::password::{self, Password};
use super::view::{self, Added, NewLogin};
use super::{Done, Item, Items, Refused, settings};
use crate::app::config::keys::pending;
use crate::mail::{ClientProfile, Customer, CustomerName, Domain, Settings};
use crate::provider::Office;
use crate::store::{DirectoryError, Filter, QueueAction};

/// Records read at once.
pub(super) const PAGE: usize = 500;
/// How often a change is tried again after somebody else's.
const TRIES: usize = 8;

pub(super) async fn add(
    office: &Office,
    name: CustomerName,
    mut domains: Vec<Domain>,
    given: Option<Password>,
) -> Result<Done, Refused> {
    if name.as_str() == CustomerName::RELAY {
        return Err(Refused::new(
            format!(
                "the name `{name}` is taken: reports on their way to other hosts are queued under it"
            ),
            "choose another name",
        ));
    }
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
pub(super) fn chosen(office: &Office, given: Option<Password>) -> (Password, Option<Password>) {
    match given {
        Some(password) => (password, None),
        None => {
            let made = Password::generate(&*office.world);
            (made.clone(), Some(made))
        }
    }
}

/// RFC 2645 §5.2.1: a domain in ATRN has two labels at least.
pub(super) fn usable(domain: &Domain) -> Result<(), Refused> {
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
    let learnt = office.servers.learnt_profile(&customer.name);
    Ok(view::Customer::new(customer, &waiting, learnt))
}

pub(super) async fn known(office: &Office, name: &CustomerName) -> Result<Arc<Customer>, Refused> {
    office.directory.customer(name).await?.ok_or_else(|| {
        Refused::new(format!("there is no customer `{name}`"), "see `restante customer list`")
    })
}

pub(super) async fn show(office: &Office, name: &CustomerName) -> Result<Done, Refused> {
    let customer = known(office, name).await?;
    Ok(Done::Customer(viewed(office, &customer).await?))
}

/// Changes a record as it is now; starts over when somebody else was faster.
pub(super) async fn change(
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

pub(super) fn changed(subject: impl ToString, result: &str, note: Option<String>) -> Done {
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
    office.servers.forget(name);
    if discard_mail {
        // What was already past RCPT when the customer was suspended.
        office.store.apply(mine, QueueAction::Remove).await?;
    }
    Ok(changed(name, "removed", (waiting > 0).then(|| format!("{waiting} message(s) discarded"))))
}

/// How many messages a filter means, failed and held ones included. Counts no further than one page: the caller
/// wants to know whether there are any, and roughly how many.
pub(super) async fn held_messages(office: &Office, filter: &Filter) -> Result<u64, Refused> {
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
    forget_profile(office, name, key).await;
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
    forget_profile(office, name, key).await;
    Ok(changed(format!("{name} {key}"), "unset", None))
}

/// Whoever writes a profile, or takes one back, knows better than what an earlier drain taught.
async fn forget_profile(office: &Office, name: &CustomerName, key: &str) {
    if key == "client-profile" && office.servers.learn_profile(name, ClientProfile::Auto) {
        office.keep_lesson(name, true).await;
    }
}

fn setting_refused(said: String) -> Refused {
    match said.split_once("; ") {
        Some((what, mend)) => Refused::new(what, mend),
        None => Refused::new(said, ""),
    }
}
