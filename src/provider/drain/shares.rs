//! Which recipients of a message share a transaction, where the customer's server names limits.
//!
//! Called by the feed, once for each message. It forgets nobody and decides nobody's fate.

use crate::mail::Domain;
use crate::smtp::sender::Extensions;
use crate::store::HeldRecipient;

/// Recipients in a transaction where the server names no limit (RFC 5321 §4.5.3.1.8).
const RECIPIENTS_MAX: usize = 100;

/// The recipients of each transaction: no more of them, and in no more domains, than the server takes (RFC 9422
/// §4). Their order stays, but for those that have to wait for a transaction of their domain.
pub(super) fn transactions<'a>(
    all: &'a [HeldRecipient],
    offers: &Extensions,
) -> Vec<Vec<&'a HeldRecipient>> {
    let limit =
        |max: Option<u64>| max.map_or(usize::MAX, |max| max.try_into().unwrap_or(usize::MAX));
    let domain_of = |held: &'a HeldRecipient| held.recipient.forward_path.domain();
    let mut domains: Vec<&Domain> = Vec::new();
    for domain in all.iter().map(domain_of) {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    let at_once = limit(offers.domains_max).min(domains.len()).max(1);
    let most = limit(offers.recipients_max).clamp(1, RECIPIENTS_MAX);
    let mut found = Vec::new();
    for some in domains.chunks(at_once) {
        // Without SMTPUTF8 a UTF-8 address must not keep the others from getting their mail (RFC 6531 §3.5).
        let (plain, others): (Vec<_>, Vec<_>) = all
            .iter()
            .filter(|held| some.contains(&domain_of(held)))
            .partition(|held| offers.smtputf8 || held.recipient.forward_path.is_ascii());
        found.extend(plain.chunks(most).chain(others.chunks(most)).map(<[_]>::to_vec));
    }
    found
}
