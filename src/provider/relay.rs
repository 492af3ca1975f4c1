//! The way out: reports to addresses that are nobody's here.
//!
//! Part of the provider's rounds. It goes to a smart host or to the mail exchangers of the recipient's domain, by the
//! operator's `[relay]`; with the route `none` the reports wait, visible, until they expire. Reports are all that
//! leaves this way: nothing else is ever put into these queues.
//!
//! Keeps RFC 5321 §4.5.4.1 and §5.1, RFC 7505, RFC 7435 (opportunistic TLS).

use super::call::{HostPort, Identity, Place};
use super::drain::Way;
use super::office::Office;
use super::outing::lease;
use super::policy::{Policy, RelayRoute};
use super::rounds::Flush;
use crate::mail::{CustomerName, Domain, EtrnTls, Outcome, ReplyText, Seconds, Secret};
use crate::store::{Settlement, StoreError, Verdict};

/// Pauses between attempts at one destination; the last repeats.
pub(super) const RETRY: &[Seconds] =
    &[Seconds(60), Seconds(300), Seconds(900), Seconds(1800), Seconds(3600)];
/// Queues and messages read at once.
const PAGE: usize = 128;

type Order = (Option<(Place, EtrnTls, Identity)>, Option<(String, Secret)>);

/// The order for a call for this domain's reports, and the login there.
pub(super) fn order(policy: &Policy, domain: Option<&Domain>) -> Order {
    let relay = &policy.relay;
    match (&relay.route, domain) {
        (RelayRoute::Host(HostPort { host, port }), _) => {
            let place = Place::Host(HostPort { host: host.clone(), port: *port });
            let identity =
                if relay.tls == EtrnTls::Verify { Identity::Name } else { Identity::Any };
            (Some((place, relay.tls, identity)), relay.login.clone())
        }
        (RelayRoute::Exchangers, Some(domain)) => {
            let place = Place::Exchangers(domain.clone());
            (Some((place, EtrnTls::Opportunistic, Identity::Any)), None)
        }
        _ => (None, None),
    }
}

/// A page of the queues of the way out that hold something, after this domain, and the last domain looked at;
/// `None` at the end.
pub(super) async fn waiting_after(
    office: &Office,
    after: Option<Domain>,
) -> Result<(Vec<Flush>, Option<Domain>), StoreError> {
    let page = office.store.queues(after, PAGE).await?;
    let last = page.last().map(|(domain, ..)| domain.clone());
    let ours = page
        .into_iter()
        .filter(|(_, owner, count)| owner.as_str() == CustomerName::RELAY && count.ready > 0)
        .map(|(domain, customer, _)| Flush { customer, domain, by_hand: false });
    Ok((ours.collect(), last))
}

/// There is no way to these domains: what waits for them has failed.
pub(super) async fn give_up(
    office: &Office,
    customer: &CustomerName,
    domains: Vec<Domain>,
    why: &str,
) -> Result<(), StoreError> {
    let Some(lease) = lease(office, customer, domains, Way::Relay).await? else { return Ok(()) };
    let mut outcome = Ok(());
    while outcome.is_ok() {
        let heads = match office.store.next(&lease, None, PAGE).await {
            Ok(heads) => heads,
            // The lease is handed back whatever happens.
            Err(error) => {
                outcome = Err(error);
                break;
            }
        };
        if heads.is_empty() {
            break;
        }
        let reply = ReplyText::clean(why);
        let settlements = heads.iter().flat_map(|head| {
            head.recipients.iter().map(|held| Settlement {
                id: head.id,
                index: held.index,
                verdict: Verdict::Said(Outcome::Failed(reply.clone())),
            })
        });
        outcome = office.store.settle(&lease, settlements.collect()).await;
        heads.iter().for_each(|head| office.owed.ring(head.id));
    }
    office.store.release(lease).await?;
    outcome
}
