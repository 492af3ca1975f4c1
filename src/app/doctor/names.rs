//! The DNS: our own name, TLSA, and where the mail of each customer's domain goes.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use sha2::{Digest, Sha256, Sha512};

use super::{Notes, Patient};
use crate::mail::Domain;
use crate::net::dns::Resolver;
use crate::net::patience::within;
use crate::net::tls::Shown;
use crate::provider::route::Found;

/// How long one name may take.
const PATIENCE: Duration = Duration::from_secs(12);
/// Names that are asked for at the same time.
const AT_ONCE: usize = 16;
/// Domains that are looked up; with more, the rest is said to be left out.
const DOMAINS_MAX: usize = 1000;

pub(super) async fn look(patient: &Patient<'_>, notes: &mut Notes<'_>) {
    let (resolver, hostname) = (patient.resolver, &patient.config.hostname);
    match asked(resolver.addresses(hostname.as_str())).await {
        Ok(found) if found.is_empty() => notes.fault(
            format!("{hostname} has no address: no mail can come here"),
            format!("in the DNS: {hostname}. IN A (and AAAA) with this machine's address"),
        ),
        Ok(found) => {
            let list: Vec<String> = found.iter().map(ToString::to_string).collect();
            notes.ok(format!("{hostname} is {}", list.join(", ")));
        }
        Err(why) => {
            let servers: Vec<String> = resolver.servers().iter().map(ToString::to_string).collect();
            let what = format!("the name server {} gives no answer: {why}", servers.join(", "));
            return notes.fault(
                what,
                "see /etc/resolv.conf; without it nothing else here can be looked up",
            );
        }
    }
    if let Some(shown) = &patient.shown {
        tlsa(resolver, hostname, shown, notes).await;
    }
    let domains: Vec<&Domain> = patient.customers.iter().flat_map(|c| &c.domains).collect();
    if domains.is_empty() && patient.status.is_some() {
        notes.warning("no customer has a domain yet", "restante customer add NAME --domain DOMAIN");
    }
    let mut answers =
        stream::iter(domains.iter().take(DOMAINS_MAX).map(|domain| async move {
            (*domain, asked(resolver.exchangers(domain.as_str())).await)
        }))
        .buffered(AT_ONCE);
    while let Some((domain, answer)) = answers.next().await {
        match answer {
            Ok(found) => exchangers(domain, hostname, found, notes),
            Err(why) => notes.warning(format!("MX of {domain}: {why}"), "try again later"),
        }
    }
    if let Some(left) = domains.len().checked_sub(DOMAINS_MAX).filter(|left| *left > 0) {
        notes.warning(format!("{left} more domains were not looked up"), "");
    }
}

async fn asked<T>(work: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match within(PATIENCE, work).await {
        Some(outcome) => outcome.map_err(|error| error.to_string()),
        None => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Whether mail for this domain comes here.
fn exchangers(domain: &Domain, hostname: &Domain, found: Found, notes: &mut Notes<'_>) {
    let mend = format!("in the DNS: {domain}. IN MX 10 {hostname}.");
    if !found.exists {
        return notes.fault(format!("{domain} does not exist"), mend);
    }
    let is_ours = |name: &str| name.eq_ignore_ascii_case(hostname.as_str());
    let names: Vec<String> =
        found.exchangers.iter().map(|(preference, name)| format!("{preference} {name}.")).collect();
    let list = names.join(", ");
    let Some(ours) =
        found.exchangers.iter().filter(|(_, name)| is_ours(name)).map(|(p, _)| *p).min()
    else {
        let what = match found.exchangers.as_slice() {
            [] => format!("{domain} has no MX record: its mail does not come here"),
            [(_, root)] if root.is_empty() => {
                format!("{domain} says that it takes no mail (null MX)")
            }
            _ => format!("MX of {domain} is {list}: its mail does not come here"),
        };
        return notes.fault(what, mend);
    };
    let better = found.exchangers.iter().any(|(p, name)| *p < ours && !is_ours(name));
    if better {
        let what = format!("MX of {domain} is {list}: others come before {hostname}");
        return notes.warning(
            what,
            "good if this provider is the one for bad days; else give it the lowest number",
        );
    }
    notes.ok(format!("MX of {domain} is {list}"));
}

/// TLSA records for mail (RFC 7672): if there are any, one must fit the certificate.
async fn tlsa(resolver: &Resolver, hostname: &Domain, shown: &Shown, notes: &mut Notes<'_>) {
    let name = format!("_25._tcp.{hostname}");
    let records = match asked(resolver.tlsa(&name)).await {
        Ok(records) => records,
        Err(why) => return notes.warning(format!("TLSA of {name}: {why}"), "try again later"),
    };
    if records.is_empty() {
        return notes.ok(format!("{name} has no TLSA records; none are needed"));
    }
    let fits = |usage: u8, selector: u8, matching: u8, data: &[u8]| {
        let of = if selector == 0 { &shown.der } else { &shown.key_der };
        usage == 3
            && selector <= 1
            && match matching {
                0 => of.as_slice() == data,
                1 => Sha256::digest(of).as_slice() == data,
                2 => Sha512::digest(of).as_slice() == data,
                _ => false,
            }
    };
    if records.iter().any(|(u, s, m, data)| fits(*u, *s, *m, data)) {
        notes.ok(format!("a TLSA record of {name} fits the certificate"));
    } else if records.iter().any(|(usage, ..)| *usage == 2) {
        let what =
            format!("{name} names an authority (usage 2); whether it fits was not looked at");
        notes.warning(what, "compare it with the chain by hand");
    } else {
        let key = crate::net::tls::hex(&shown.key);
        notes.fault(
            format!(
                "no TLSA record of {name} fits the certificate: senders with DANE do not deliver"
            ),
            format!("in the DNS: {name}. IN TLSA 3 1 1 {key}"),
        );
    }
}
