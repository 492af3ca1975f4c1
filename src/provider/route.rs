//! The route to a foreign domain: which of its mail exchangers to try, in which order, or that there is none.
//!
//! Called by the shell with what the DNS said. Pure; it resolves nothing.
//!
//! Keeps RFC 5321 §5.1 (preference, equal ones in any order, no MX means the domain itself, never to ourselves),
//! RFC 7505 (null MX).

use std::net::IpAddr;

use crate::mail::Domain;

/// What the DNS said about a domain's mail exchangers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Found {
    /// Whether the domain exists.
    pub exists: bool,
    /// Preference and name; the root's name is empty.
    pub exchangers: Vec<(u16, String)>,
}

/// Where mail for a domain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchangers {
    /// These hosts, best first.
    Hosts(Vec<String>),
    /// Nowhere, for good; the words begin with an enhanced code.
    Nobody(String),
}

/// Puts the exchangers of `domain` in order. `us`: our own name. `chance`: turns the order of equals.
#[must_use]
pub fn choose(found: Found, domain: &Domain, us: &Domain, chance: u128) -> Exchangers {
    if !found.exists {
        return Exchangers::Nobody(format!("5.1.2 The domain {domain} does not exist"));
    }
    if found.exchangers.is_empty() {
        return Exchangers::Hosts(vec![domain.as_str().to_owned()]);
    }
    if matches!(found.exchangers.as_slice(), [(_, root)] if root.is_empty()) {
        return Exchangers::Nobody(format!("5.1.10 The domain {domain} takes no mail (null MX)"));
    }
    let mut ranked: Vec<(u16, u64, String)> = found
        .exchangers
        .into_iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(preference, name)| (preference, mixed(&name, chance), name.to_ascii_lowercase()))
        .collect();
    // Exchangers that are no better than we are would only give it back to us.
    let ours = ranked.iter().filter(|(_, _, name)| name == us.as_str()).map(|(p, ..)| *p).min();
    ranked.retain(|(preference, ..)| ours.is_none_or(|ours| *preference < ours));
    ranked.sort();
    ranked.dedup_by(|one, other| one.2 == other.2);
    if ranked.is_empty() {
        return Exchangers::Nobody(format!(
            "5.4.6 The mail exchanger of {domain} is this server, and nobody here has the domain"
        ));
    }
    Exchangers::Hosts(ranked.into_iter().map(|(_, _, name)| name).collect())
}

/// A number that depends on the name and on chance (FNV-1a).
fn mixed(name: &str, chance: u128) -> u64 {
    let seed = (chance as u64) ^ 0xcbf2_9ce4_8422_2325;
    let hash = name
        .bytes()
        .fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether an address lies outside of this machine and its link: only such ones are followed when a name leads to
/// them.
#[must_use]
pub fn is_elsewhere(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(four) => {
            !(four.is_loopback()
                || four.is_unspecified()
                || four.is_link_local()
                || four.is_multicast()
                || four.is_broadcast())
        }
        IpAddr::V6(six) => {
            let is_link_local = six.segments()[0] & 0xffc0 == 0xfe80;
            !(six.is_loopback() || six.is_unspecified() || six.is_multicast() || is_link_local)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(exchangers: &[(u16, &str)], chance: u128) -> Result<Vec<String>, String> {
        let exchangers = exchangers.iter().map(|(p, name)| (*p, (*name).to_owned())).collect();
        let found = Found { exists: true, exchangers };
        let domain = |text| Domain::parse(text).expect("valid");
        match choose(found, &domain("foo.example"), &domain("mx.provider.example"), chance) {
            Exchangers::Hosts(hosts) => Ok(hosts),
            Exchangers::Nobody(why) => Err(why),
        }
    }

    // covers: S-30, W-10, W-11
    #[test]
    fn preference_and_the_domain_itself_and_null() {
        assert_eq!(
            hosts(&[(20, "b.example"), (10, "A.example"), (30, "c.example")], 0),
            Ok(vec!["a.example".into(), "b.example".into(), "c.example".into()])
        );
        assert_eq!(hosts(&[], 0), Ok(vec!["foo.example".into()]));
        assert!(hosts(&[(0, "")], 0).expect_err("null MX").starts_with("5.1.10 "));
        assert_eq!(hosts(&[(0, ""), (5, "a.example")], 0), Ok(vec!["a.example".into()]));
        let gone = Found::default();
        let domain = Domain::parse("foo.example").expect("valid");
        assert!(matches!(choose(gone, &domain, &domain, 0), Exchangers::Nobody(_)));
    }

    // covers: W-12
    #[test]
    fn never_to_ourselves_or_worse() {
        let us = "MX.provider.example";
        assert_eq!(
            hosts(&[(10, "a.example"), (20, us), (20, "b.example"), (30, "c.example")], 0),
            Ok(vec!["a.example".into()])
        );
        assert!(
            hosts(&[(10, us), (20, "b.example")], 0).expect_err("a loop").starts_with("5.4.6 ")
        );
    }

    // covers: W-10
    #[test]
    fn equals_take_turns() {
        let equal = [(10, "a.example"), (10, "b.example"), (10, "c.example")];
        let mut first = std::collections::BTreeMap::new();
        for chance in 0..3000u128 {
            let order = hosts(&equal, chance.wrapping_mul(0x1234_5678_9abc_def1)).expect("hosts");
            assert_eq!(order.len(), 3);
            *first.entry(order[0].clone()).or_insert(0u32) += 1;
        }
        assert!(first.len() == 3 && first.values().all(|count| *count > 500), "{first:?}");
    }

    // covers: D10
    #[test]
    fn addresses_that_a_name_may_not_lead_to() {
        for near in [
            "127.0.0.1",
            "::1",
            "169.254.1.1",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!is_elsewhere(near.parse().expect("valid")), "{near}");
        }
        for far in ["192.0.2.1", "2001:db8::1", "10.0.0.1"] {
            assert!(is_elsewhere(far.parse().expect("valid")), "{far}");
        }
    }
}
