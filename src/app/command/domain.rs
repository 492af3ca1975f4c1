//! `restante domain …`: which domains belong to whom.

use super::{Failure, ask, changed, unexpected};
use crate::app::admin::{Item, Refused, Request};
use crate::app::backend::Backend;
use crate::app::cli::DomainCommand;
use crate::app::config::units;
use crate::app::output::Out;
use crate::mail::{CustomerName, Domain};

pub(super) fn run(
    command: DomainCommand,
    desk: &mut Backend,
    out: &mut Out,
) -> Result<(), Failure> {
    match command {
        DomainCommand::Add { customer, domain } => {
            changed(&ask(desk, Request::DomainAdd { customer, domain })?, out)?;
        }
        DomainCommand::Remove { names, discard_mail } => {
            let (customer, domain) = read(&names)?;
            changed(&ask(desk, Request::DomainRemove { customer, domain, discard_mail })?, out)?;
        }
        DomainCommand::List { customer } => list(customer, desk, out)?,
    }
    Ok(())
}

/// `[CUSTOMER] DOMAIN`
fn read(names: &[String]) -> Result<(Option<CustomerName>, Domain), Failure> {
    let usage =
        |name: &str, why: String| Failure::Usage(Refused::new(format!("`{name}`: {why}"), ""));
    let (customer, domain) = match names {
        [customer, domain] => (Some(customer), domain),
        [domain] => (None, domain),
        _ => return Err(usage("domain remove", "name a domain".into())),
    };
    let customer = customer
        .map(|name| CustomerName::parse(name).map_err(|error| usage(name, error.to_string())))
        .transpose()?;
    let domain = Domain::parse(domain).map_err(|error| usage(domain, error.to_string()))?;
    Ok((customer, domain))
}

fn list(customer: Option<CustomerName>, desk: &mut Backend, out: &mut Out) -> Result<(), Refused> {
    let mut rows = Vec::new();
    out.begin_list("domains")?;
    desk.ask(Request::DomainList { customer }, &mut |item| match item {
        Item::Domain(row) if out.is_text() => {
            rows.push(vec![
                row.domain.to_string(),
                row.customer.to_string(),
                row.messages.to_string(),
                units::about_size(row.bytes),
            ]);
            Ok(())
        }
        Item::Domain(row) => out.element(&row),
        _ => Err(unexpected()),
    })?;
    out.end_list()?;
    match (out.is_text(), rows.is_empty()) {
        (true, true) => out.line("no domains"),
        (true, false) => out.table(&["DOMAIN", "CUSTOMER", "MESSAGES", "SIZE"], &rows, &[2, 3]),
        _ => Ok(()),
    }
}
