//! Which recipients of a message share a transaction, where the customer's server names limits.
//!
//! Called by the feed, once for each message. It forgets nobody and decides nobody's fate.

use crate::mail::Domain;
use crate::smtp::sender::Extensions;
use crate::store::HeldRecipient;

/// Recipients in a transaction where the server names no limit (RFC 5321 §4.5.3.1.8).
const RECIPIENTS_MAX: usize = 100;

/// Whether all recipients go in one transaction, as [`by_limits`] would have it; some of what it would put together
/// is left to it.
fn is_one_transaction(all: &[HeldRecipient], offers: &Extensions) -> bool {
    let [first, others @ ..] = all else { return false };
    let kind = |held: &HeldRecipient| offers.smtputf8 || held.recipient.forward_path.is_ascii();
    let domain = first.recipient.forward_path.domain();
    all.len() <= recipients_max(offers)
        && others
            .iter()
            .all(|held| held.recipient.forward_path.domain() == domain && kind(held) == kind(first))
}

fn recipients_max(offers: &Extensions) -> usize {
    limit(offers.recipients_max).clamp(1, RECIPIENTS_MAX)
}

fn limit(max: Option<u64>) -> usize {
    max.map_or(usize::MAX, |max| max.try_into().unwrap_or(usize::MAX))
}

/// The recipients of each transaction: no more of them, and in no more domains, than the server takes (RFC 9422
/// §4). Their order stays, but for those that have to wait for a transaction of their domain.
pub(super) fn transactions(
    all: Vec<HeldRecipient>,
    offers: &Extensions,
) -> Vec<Vec<HeldRecipient>> {
    // Most messages, and no more is looked at then.
    if is_one_transaction(&all, offers) {
        return vec![all];
    }
    by_limits(&all, offers).into_iter().map(|some| some.into_iter().cloned().collect()).collect()
}

fn by_limits<'a>(all: &'a [HeldRecipient], offers: &Extensions) -> Vec<Vec<&'a HeldRecipient>> {
    let domain_of = |held: &'a HeldRecipient| held.recipient.forward_path.domain();
    let mut domains: Vec<&Domain> = Vec::new();
    for domain in all.iter().map(domain_of) {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    let at_once = limit(offers.domains_max).min(domains.len()).max(1);
    let most = recipients_max(offers);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{CustomerName, ForwardPath, Recipient, RecipientState, Timestamp};

    fn held(path: &str) -> HeldRecipient {
        let forward_path = ForwardPath::parse(path).expect("valid");
        HeldRecipient {
            index: 0,
            recipient: Recipient { forward_path, notify: None, orcpt: None },
            owner: CustomerName::parse("bar").expect("valid"),
            state: RecipientState::Queued,
            held: false,
            expires: Timestamp(0),
            attempts: 0,
        }
    }

    #[test]
    fn what_is_one_transaction_at_a_glance_is_one_by_the_rules() {
        let paths = ["a@a.example", "b@a.example", "c@b.example", "ü@a.example", "ö@a.example"];
        let limits = ["x", "x\nLIMITS RCPTMAX=2", "x\nLIMITS RCPTDOMAINMAX=1", "x\nSMTPUTF8"];
        let (mut at_a_glance, mut others) = (0, 0);
        for offers in limits.map(Extensions::parse) {
            for chosen in 0..1 << paths.len() {
                let bits = (0..paths.len()).filter(|bit| chosen >> bit & 1 == 1);
                let all: Vec<HeldRecipient> = bits.map(|bit| held(paths[bit])).collect();
                let shares = by_limits(&all, &offers);
                assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), all.len(), "nobody is lost");
                if is_one_transaction(&all, &offers) {
                    assert_eq!(shares, [all.iter().collect::<Vec<_>>()]);
                    at_a_glance += 1;
                } else {
                    others += 1;
                }
            }
        }
        assert!(at_a_glance > 20 && others > 20);
    }
}
