//! The certificates: names, dates, who vouches for them. That key and certificate fit, the configuration's check says.

use std::path::Path;

use super::Notes;
use crate::app::config::Config;
use crate::mail::Timestamp;
use crate::net::clock::RealWorld;
use crate::net::tls::{Shown, hex};
use crate::provider::World;

/// So long before the end is the time to see to it.
const SOON_DAYS: u64 = 21;
const DAY: u64 = 86_400;

/// Looks at all of them; gives the first, which is shown to whoever asks for no other.
pub(super) fn look(config: &Config, notes: &mut Notes<'_>) -> Option<Shown> {
    let Some(tls) = &config.tls else {
        notes.warning(
            "there is none: no STARTTLS, no ETRN, and mail comes in clear text",
            "get one for your host name (any ACME client), and set tls.certificate and tls.private_key",
        );
        return None;
    };
    let first = one(&tls.certificate, config, notes);
    let mut is_named = first.as_ref().is_some_and(|shown| shown.names_host(&config.hostname));
    for (file, _) in &tls.also {
        let shown = one(file, config, notes);
        is_named |= shown.is_some_and(|shown| shown.names_host(&config.hostname));
    }
    if first.is_some() && !is_named {
        notes.fault(
            format!(
                "no certificate names {}: whoever checks it will not talk to us",
                config.hostname
            ),
            "get one for this name, or set hostname to the name in the certificate",
        );
    }
    if let Some(shown) = &first {
        look_at_trust(shown, config, notes);
    }
    first
}

fn one(file: &Path, config: &Config, notes: &mut Notes<'_>) -> Option<Shown> {
    let shown = match Shown::read(file, &config.hostname) {
        Ok(shown) => shown,
        Err(why) => {
            notes.fault(why, "get the file anew from whoever issued it");
            return None;
        }
    };
    let now = RealWorld::default().now();
    let place = file.display();
    let names = if shown.names.is_empty() { "no name".into() } else { shown.names.join(", ") };
    let days = |from: Timestamp, to: Timestamp| to.since(from).0 / DAY;
    let ends = shown.ends.rfc3339();
    if shown.ends <= now {
        let what = format!("{place} ({names}): expired {} days ago", days(shown.ends, now));
        notes.fault(what, "renew it; the running provider notices the new file by itself");
    } else if shown.begins > now {
        let what = format!("{place} ({names}): valid only from {} on", shown.begins.rfc3339());
        notes.fault(what, "set the clock, or get the certificate that is valid today");
    } else if days(now, shown.ends) <= SOON_DAYS {
        let what = format!("{place} ({names}): ends in {} days, {ends}", days(now, shown.ends));
        notes.warning(what, "renew it now; something should do so by itself");
    } else {
        notes.ok(format!("{place} ({names}): valid until {ends}, key {}", hex(&shown.key)));
    }
    Some(shown)
}

fn look_at_trust(shown: &Shown, config: &Config, notes: &mut Notes<'_>) {
    match &shown.distrust {
        None => notes.ok(format!("the system's authorities vouch for {}", config.hostname)),
        Some(why) => notes.warning(
            format!("this system's authorities do not vouch for it: {why}"),
            "customers need your authority (--ca) or the key above (--pin); a public one (ACME) spares them that",
        ),
    }
}
