//! Logins of a customer besides its own: NAME/label, each with a password of its own.

use super::customers::{change, changed, chosen, known};
use super::password::{self, Password};
use super::view::{self, NewLogin};
use super::{Done, Item, Items, Refused};
use crate::mail::{CustomerName, Login};
use crate::provider::Office;

pub(super) async fn add(
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

pub(super) async fn list(
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

pub(super) async fn revoke(
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
