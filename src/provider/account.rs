//! Accounts: does this login belong to somebody, and may it proceed?
//!
//! Called by the desk during AUTH. Unknown user, wrong password and suspended customer come out the same, and
//! cost the same (RFC 4954 §6): for a name that nobody has, a dummy credential goes through the same motions.

use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::lock::{Mutex, MutexGuard};

use super::office::Office;
use crate::mail::{Account, Credential, Customer, Domain, Login, Secret, TlsFacts};
use crate::smtp::{LoginRequest, Proof, Refusal, sasl};

/// How many customers are looked at together when a certificate names none.
const PAGE: usize = 256;

/// What there is under a name. Finding nothing takes the same steps as finding something.
struct Known {
    /// Whose login it is; `None` if it is nobody's.
    owner: Option<(Login, Arc<Customer>)>,
    /// What is stored, or a dummy that nobody can tell from it.
    credential: Box<Credential>,
}

async fn known(office: &Office, name: &str) -> Result<Known, Refusal> {
    let key = office.directory.server_key().await.map_err(|_| Refusal::LoginTrouble)?;
    let mut credential = Box::new(sasl::dummy_credential(&key, name));
    let mut owner = None;
    if let Ok(login) = Login::parse(name) {
        let found = office.directory.customer(&login.customer).await;
        if let Some(customer) = found.map_err(|_| Refusal::LoginTrouble)?
            && let Some(own) = customer.credentials.iter().find(|own| own.label == login.label)
        {
            *credential = own.clone();
            owner = Some((login, customer));
        }
    }
    Ok(Known { owner, credential })
}

/// The stored credential for `name`, or a dummy that nobody can tell from a real one.
pub(super) async fn credential(office: &Office, name: &str) -> Result<Box<Credential>, Refusal> {
    Ok(known(office, name).await?.credential)
}

/// The provider's verdict on a finished exchange with `peer`. It waits longer the more logins failed, see
/// [`super::abuse`].
pub(super) async fn login(
    office: &Office,
    request: LoginRequest,
    peer: IpAddr,
    tls: Option<&TlsFacts>,
) -> Result<Box<Account>, Refusal> {
    let (abuse, world) = (&office.abuse, &office.world);
    let wait = abuse.before_verdict(peer, world.monotonic());
    if !wait.is_zero() {
        world.wait(wait).await;
    }
    // Labels are guesses on the same account.
    let account = request.name.split('/').next().unwrap_or_default().to_owned();
    let outcome = verdict(office, request, tls).await;
    if outcome == Err(Refusal::LoginFailed) {
        let delays = &office.policy().delay_after_failures;
        let wait = abuse.failed(peer, &account, world.monotonic(), delays);
        if !wait.is_zero() {
            world.wait(wait).await;
        }
    }
    outcome
}

async fn verdict(
    office: &Office,
    request: LoginRequest,
    tls: Option<&TlsFacts>,
) -> Result<Box<Account>, Refusal> {
    let owner = match request.proof {
        Proof::Certificate => {
            by_certificate(office, &request.name, tls.ok_or(Refusal::LoginFailed)?).await?
        }
        // Also for a wrong proof what there is under the name is looked up: a suspended customer, whose proof may be
        // right, costs no more than one that does not exist.
        proof => {
            let Known { owner, credential } = known(office, &request.name).await?;
            let is_right = match proof {
                Proof::Password(password) => {
                    let _turn = office.derivations.turn().await;
                    is_password(password, credential).await
                }
                // What was proved holds only while the credential is there.
                Proof::Proven(login) => owner.as_ref().is_some_and(|(own, _)| *own == login),
                Proof::Wrong | Proof::Certificate => false,
            };
            owner.filter(|_| is_right)
        }
    };
    let (login, customer) =
        owner.filter(|(_, customer)| !customer.suspended).ok_or(Refusal::LoginFailed)?;
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

/// How many passwords are computed at once: half of the processors at most. Anybody may start a computation by saying a
/// password, and a thousand at once would leave the processors to guessers alone.
pub(super) struct Derivations {
    places: Vec<Mutex<()>>,
    next: AtomicUsize,
}

impl Default for Derivations {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let places = (0..(processors / 2).max(1)).map(|_| Mutex::new(())).collect();
        Self { places, next: AtomicUsize::new(0) }
    }
}

impl Derivations {
    /// Waits for a place, which is free again when the answer is dropped.
    async fn turn(&self) -> MutexGuard<'_, ()> {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.places.len();
        self.places[place].lock().await
    }
}

/// PLAIN: derives the key from the password on a thread of its own, also for a name that nobody has.
async fn is_password(password: Secret, credential: Box<Credential>) -> bool {
    blocking::unblock(move || sasl::verify_password(&password, &credential.scram)).await
}

/// EXTERNAL: the customer that this certificate stands for. A name that was given must be among those; without
/// one there must be a single customer.
async fn by_certificate(
    office: &Office,
    name: &str,
    tls: &TlsFacts,
) -> Result<Option<(Login, Arc<Customer>)>, Refusal> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page =
            office.directory.customers(after, PAGE).await.map_err(|_| Refusal::LoginTrouble)?;
        found.extend(page.iter().filter(|customer| stands_for(tls, customer)).cloned());
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.name.clone()),
            _ => break,
        }
    }
    if !name.is_empty() {
        found.retain(|customer| customer.name.as_str() == name);
    }
    let customer = match (found.pop(), found.is_empty()) {
        (Some(only), true) => only,
        _ => return Ok(None),
    };
    Ok(Some((Login { customer: customer.name.clone(), label: "".into() }, customer)))
}

/// Whether the certificate of the TLS layer stands for this customer: its key is pinned; or the operator's own
/// authority signed it for the customer's name (as the common name) or for one of its domains (as a DNS name).
fn stands_for(tls: &TlsFacts, customer: &Customer) -> bool {
    let is_pinned = tls
        .peer_key
        .as_deref()
        .is_some_and(|key| customer.settings.certificate.iter().any(|pin| **pin == *key));
    let is_named = tls.verified.as_ref().is_some_and(|peer| {
        let by_name = peer.common_name.as_deref() == Some(customer.name.as_str());
        let names = peer.dns_names.iter().filter_map(|name| Domain::parse(name).ok());
        by_name || names.into_iter().any(|name| customer.domains.contains(&name))
    });
    is_pinned || is_named
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn half_of_the_processors_compute_passwords_at_most() {
        let derivations = Arc::new(Derivations::default());
        let most = derivations.places.len();
        let (busy, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..most * 4 {
                scope.spawn(|| {
                    let _turn = futures::executor::block_on(derivations.turn());
                    seen.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::park_timeout(Duration::from_millis(5));
                    busy.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!((1..=most).contains(&seen.load(Ordering::SeqCst)));
        assert!(most <= std::thread::available_parallelism().map_or(1, NonZero::get));
    }
}
