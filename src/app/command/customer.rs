//! `restante customer …`: who collects mail here, and how they log in.

use super::{Failure, ask, changed, new_login, password, show_password, unexpected};
use crate::app::admin::{Added, Credential, Customer, Done, Item, Refused, Request};
use crate::app::backend::Backend;
use crate::app::cli::{CredentialCommand, CustomerCommand};
use crate::app::config::units;
use crate::app::output::Out;

pub(super) fn run(
    command: CustomerCommand,
    desk: &mut Backend,
    out: &mut Out,
) -> Result<(), Failure> {
    use CustomerCommand as C;
    match command {
        C::Add { name, domains, password_stdin } => {
            let password = password(password_stdin)?;
            match ask(desk, Request::CustomerAdd { name, domains, password })? {
                Done::Added(added) => added_customer(&added, out)?,
                _ => return Err(unexpected().into()),
            }
        }
        C::List => list(desk, out)?,
        C::Show { name } => match ask(desk, Request::CustomerShow { name })? {
            Done::Customer(customer) => show(&customer, out)?,
            _ => return Err(unexpected().into()),
        },
        C::Passwd { name, password_stdin } => {
            let password = password(password_stdin)?;
            login(ask(desk, Request::CustomerPasswd { name, password })?, out)?;
        }
        C::Suspend { name } => {
            changed(&ask(desk, Request::CustomerSuspend { name, suspended: true })?, out)?;
        }
        C::Resume { name } => {
            changed(&ask(desk, Request::CustomerSuspend { name, suspended: false })?, out)?;
        }
        C::Remove { name, discard_mail } => {
            changed(&ask(desk, Request::CustomerRemove { name, discard_mail })?, out)?;
        }
        C::Set { name, key, value } => {
            let lines = lines_of(&key, &value)?;
            changed(&ask(desk, Request::CustomerSet { name, key, value, lines })?, out)?;
        }
        C::Unset { name, key } => changed(&ask(desk, Request::CustomerUnset { name, key })?, out)?,
        C::Credential(command) => credential(command, desk, out)?,
        // It needs the configuration too and has a file of its own.
        C::Kit { .. } => return Err(unexpected().into()),
    }
    Ok(())
}

fn login(done: Done, out: &mut Out) -> Result<(), Refused> {
    match done {
        Done::NewLogin(login) => new_login(&login, out),
        _ => Err(unexpected()),
    }
}

/// The file behind `recipients @FILE`, read by us: the provider may not be allowed to, or run elsewhere.
fn lines_of(key: &str, value: &str) -> Result<Option<Vec<String>>, Refused> {
    let Some(file) = value.strip_prefix('@').filter(|_| key == "recipients") else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(file).map_err(|error| {
        Refused::new(
            format!("{file} cannot be read: {error}"),
            "name a text file with one address a line",
        )
    })?;
    Ok(Some(text.lines().map(str::to_owned).collect()))
}

fn added_customer(added: &Added, out: &mut Out) -> Result<(), Refused> {
    if !out.is_text() {
        return out.json(added);
    }
    out.line(&format!("customer  {}", added.name))?;
    out.line(&format!("domains   {}", joined(&added.domains)))?;
    show_password(added.password.as_ref(), out)
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn list(desk: &mut Backend, out: &mut Out) -> Result<(), Refused> {
    let mut rows = Vec::new();
    out.begin_list("customers")?;
    desk.ask(Request::CustomerList, &mut |item| match item {
        Item::Customer(customer) if out.is_text() => {
            rows.push(vec![
                customer.name.to_string(),
                if customer.suspended { "suspended" } else { "active" }.into(),
                customer.messages.to_string(),
                units::about_size(customer.bytes),
                customer.failed.to_string(),
                joined(&customer.domains),
            ]);
            Ok(())
        }
        Item::Customer(customer) => out.element(&customer),
        _ => Err(unexpected()),
    })?;
    out.end_list()?;
    match (out.is_text(), rows.is_empty()) {
        (true, true) => {
            out.line("no customers; add one: restante customer add NAME --domain DOMAIN")
        }
        (true, false) => out.table(
            &["NAME", "STATE", "MESSAGES", "SIZE", "FAILED", "DOMAINS"],
            &rows,
            &[2, 3, 4],
        ),
        _ => Ok(()),
    }
}

fn show(customer: &Customer, out: &mut Out) -> Result<(), Refused> {
    if !out.is_text() {
        return out.json(customer);
    }
    out.line(&format!("customer  {}", customer.name))?;
    out.line(&format!("state     {}", if customer.suspended { "suspended" } else { "active" }))?;
    out.line(&format!("created   {}", customer.created_at))?;
    out.line(&format!("domains   {}", joined(&customer.domains)))?;
    let logins: Vec<&str> = customer.credentials.iter().map(|c| c.login.as_str()).collect();
    out.line(&format!("logins    {}", logins.join(", ")))?;
    let (messages, size) = (customer.messages, units::about_size(customer.bytes));
    out.line(&format!("waiting   {messages} messages, {size}"))?;
    if customer.failed > 0 {
        out.line(&format!(
            "failed    {} messages, see: restante queue list --failed",
            customer.failed
        ))?;
    }
    if let Some(profile) = &customer.learnt_profile {
        out.line(&format!("learnt    client-profile {profile}"))?;
    }
    for (key, value) in &customer.settings {
        out.line(&format!("setting   {key} = {value}"))?;
    }
    Ok(())
}

fn credential(
    command: CredentialCommand,
    desk: &mut Backend,
    out: &mut Out,
) -> Result<(), Failure> {
    match command {
        CredentialCommand::Add { name, label, password_stdin } => {
            let password = password(password_stdin)?;
            login(ask(desk, Request::CredentialAdd { name, label, password })?, out)?;
        }
        CredentialCommand::List { name } => {
            let mut rows = Vec::new();
            out.begin_list("credentials")?;
            desk.ask(Request::CredentialList { name }, &mut |item| match item {
                Item::Credential(Credential { login, created_at, .. }) if out.is_text() => {
                    rows.push(vec![login, created_at]);
                    Ok(())
                }
                Item::Credential(credential) => out.element(&credential),
                _ => Err(unexpected()),
            })?;
            out.end_list()?;
            if out.is_text() {
                out.table(&["LOGIN", "CREATED"], &rows, &[])?;
            }
        }
        CredentialCommand::Revoke { name, label } => {
            changed(&ask(desk, Request::CredentialRevoke { name, label })?, out)?;
        }
    }
    Ok(())
}
