//! Accounts: does this login belong to somebody, and may it proceed?
//!
//! Called by the desk during AUTH. Unknown user, wrong password and suspended customer come out the same, and
//! cost the same (RFC 4954 §6): for a name that nobody has, a dummy credential goes through the same motions.

use std::sync::Arc;

use super::office::Office;
use crate::mail::{Account, Credential, Customer, Login, Secret};
use crate::smtp::{LoginRequest, Proof, Refusal, sasl};

/// How many customers are looked at together when a certificate names none.
const PAGE: usize = 256;

/// The stored credential for `name`, or a dummy that nobody can tell from a real one.
pub(super) async fn credential(office: &Office, name: &str) -> Result<Box<Credential>, Refusal> {
    let known = match Login::parse(name) {
        Ok(login) => lookup(office, &login).await?,
        Err(_) => None,
    };
    match known {
        Some((_, credential)) => Ok(Box::new(credential)),
        None => dummy(office, name).await,
    }
}

async fn dummy(office: &Office, name: &str) -> Result<Box<Credential>, Refusal> {
    let key = office.directory.server_key().await.map_err(|_| Refusal::LoginTrouble)?;
    Ok(Box::new(sasl::dummy_credential(&key, name)))
}

async fn lookup(
    office: &Office,
    login: &Login,
) -> Result<Option<(Arc<Customer>, Credential)>, Refusal> {
    let found =
        office.directory.customer(&login.customer).await.map_err(|_| Refusal::LoginTrouble)?;
    Ok(found.and_then(|customer| {
        let credential = customer.credentials.iter().find(|c| c.label == login.label)?.clone();
        Some((customer, credential))
    }))
}

/// The provider's verdict on a finished exchange. `peer_key` is the key of the TLS layer's client certificate.
pub(super) async fn login(
    office: &Office,
    request: LoginRequest,
    peer_key: Option<&str>,
) -> Result<Box<Account>, Refusal> {
    let proven = match request.proof {
        Proof::Proven(login) => Some(login),
        Proof::Wrong => None,
        Proof::Password(password) => check_password(office, &request.name, password).await?,
        Proof::Certificate => {
            let key = peer_key.ok_or(Refusal::LoginFailed)?;
            by_certificate(office, &request.name, key).await?
        }
    };
    let login = proven.ok_or(Refusal::LoginFailed)?;
    let customer =
        office.directory.customer(&login.customer).await.map_err(|_| Refusal::LoginTrouble)?;
    let customer = customer.filter(|c| !c.suspended).ok_or(Refusal::LoginFailed)?;
    let wanted = request.authzid.as_deref().filter(|id| !id.is_empty());
    if wanted.is_some_and(|id| id != customer.name.as_str() && id != request.name) {
        return Err(Refusal::LoginFailed);
    }
    Ok(Box::new(Account {
        login,
        domains: customer.domains.clone(),
        require_tls: customer.settings.require_tls.unwrap_or(false),
    }))
}

/// PLAIN: derives the key from the password on a thread of its own, also for a name that nobody has.
async fn check_password(
    office: &Office,
    name: &str,
    password: Secret,
) -> Result<Option<Login>, Refusal> {
    let login = Login::parse(name).ok();
    let known = match &login {
        Some(login) => lookup(office, login).await?.map(|(_, credential)| credential),
        None => None,
    };
    let is_known = known.is_some();
    let credential = match known {
        Some(credential) => credential,
        None => *dummy(office, name).await?,
    };
    let right =
        blocking::unblock(move || sasl::verify_password(&password, &credential.scram)).await;
    Ok(login.filter(|_| is_known && right))
}

/// EXTERNAL: the customer that pinned this key; a name that was given must be that customer's.
async fn by_certificate(office: &Office, name: &str, key: &str) -> Result<Option<Login>, Refusal> {
    let has = |customer: &Customer| customer.settings.certificate.iter().any(|k| **k == *key);
    let mut after = None;
    loop {
        let page =
            office.directory.customers(after, PAGE).await.map_err(|_| Refusal::LoginTrouble)?;
        if let Some(customer) = page.iter().find(|customer| has(customer)) {
            let fits = name.is_empty() || name == customer.name.as_str();
            let login = Login { customer: customer.name.clone(), label: "".into() };
            return Ok(fits.then_some(login));
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.name.clone()),
            _ => return Ok(None),
        }
    }
}
