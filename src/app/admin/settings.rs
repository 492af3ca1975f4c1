//! The settings of a customer by name: section 4 of the interface, read, checked, written and shown.
//!
//! Called by `customer set`, `unset` and `show`. It changes a record in memory and stores nothing.

use std::collections::BTreeSet;

use crate::app::config::place::nearest;
use crate::app::config::units;
use crate::mail::{
    ClientProfile, Domain, EtrnTls, ForwardPath, Network, RecipientPolicy, RejectPolicy, Seconds,
    Settings,
};

/// All settings with the form of their values.
pub const KEYS: &[(&str, &str)] = &[
    ("etrn-host", "host:port or [address]:port; the only place where the ETRN path delivers"),
    ("etrn-from", "networks that ETRN may come from, as in 192.0.2.0/24,2001:db8::/32"),
    ("etrn-tls", "none, opportunistic, required or verify"),
    ("require-tls", "yes or no; yes: ATRN on an encrypted connection only"),
    ("wait-for-mail", "a time such as 5m: ATRN on empty queues waits so long before 453"),
    (
        "hold-open",
        "a time such as 1h: the reversed connection stays so long after the last message",
    ),
    ("client-profile", "auto, standard or fetchmail-tls"),
    ("expire-after", "a time such as 30d: undelivered mail is given up then"),
    ("quota-bytes", "a size such as 10 GiB: more mail gets 452 at RCPT"),
    ("quota-messages", "a number: more mail gets 452 at RCPT"),
    ("message-bytes-max", "a size such as 20 MiB: larger messages are refused"),
    ("recipients", "any, or @FILE with one known address (or @domain) a line"),
    ("reject-policy", "report or retry; what a 5xx from the customer's server means"),
    ("certificate", "SHA-256 of the SubjectPublicKeyInfo in hex; set it again to add another"),
];

/// Most addresses in a list of recipients.
pub const RECIPIENTS_MAX: usize = 1_000_000;

/// Sets `key` to `value`. `lines` is the content of the file when `value` is `@FILE`.
///
/// # Errors
/// What is wrong and how to write it.
pub fn set(
    settings: &mut Settings,
    key: &str,
    value: &str,
    lines: Option<&[String]>,
) -> Result<(), String> {
    let value = value.trim();
    match key {
        "etrn-host" => settings.etrn_host = Some(host_and_port(value)?.into()),
        "etrn-from" => settings.etrn_from = networks(value)?,
        "etrn-tls" => settings.etrn_tls = Some(word::<EtrnTls>(value)?),
        "require-tls" => settings.require_tls = Some(yes_or_no(value)?),
        "wait-for-mail" => settings.drain.wait_for_mail = Some(time(value)?),
        "hold-open" => settings.drain.hold_open = Some(time(value)?),
        "client-profile" => settings.client_profile = Some(word::<ClientProfile>(value)?),
        "expire-after" => settings.expire_after = Some(time(value)?),
        "quota-bytes" => settings.quota_bytes = Some(units::size(value)?),
        "quota-messages" => settings.quota_messages = Some(number(value)?),
        "message-bytes-max" => settings.message_bytes_max = Some(units::size(value)?),
        "recipients" => settings.recipients = Some(recipients(value, lines)?),
        "reject-policy" => settings.reject_policy = Some(word::<RejectPolicy>(value)?),
        "certificate" => {
            let key = fingerprint(value)?;
            if !settings.certificate.contains(&key) {
                settings.certificate.push(key);
            }
        }
        _ => return Err(unknown(key)),
    }
    Ok(())
}

/// Puts `key` back to its default.
///
/// # Errors
/// There is no such setting.
pub fn unset(settings: &mut Settings, key: &str) -> Result<(), String> {
    match key {
        "etrn-host" => settings.etrn_host = None,
        "etrn-from" => settings.etrn_from.clear(),
        "etrn-tls" => settings.etrn_tls = None,
        "require-tls" => settings.require_tls = None,
        "wait-for-mail" => settings.drain.wait_for_mail = None,
        "hold-open" => settings.drain.hold_open = None,
        "client-profile" => settings.client_profile = None,
        "expire-after" => settings.expire_after = None,
        "quota-bytes" => settings.quota_bytes = None,
        "quota-messages" => settings.quota_messages = None,
        "message-bytes-max" => settings.message_bytes_max = None,
        "recipients" => settings.recipients = None,
        "reject-policy" => settings.reject_policy = None,
        "certificate" => settings.certificate.clear(),
        _ => return Err(unknown(key)),
    }
    Ok(())
}

/// What is set, as it would be typed, in the order of [`KEYS`].
#[must_use]
pub fn show(settings: &Settings) -> Vec<(&'static str, String)> {
    KEYS.iter().filter_map(|(key, _)| shown(settings, key).map(|value| (*key, value))).collect()
}

fn shown(settings: &Settings, key: &str) -> Option<String> {
    let time = |seconds: Option<Seconds>| seconds.map(|s| units::show_time(s.0));
    match key {
        "etrn-host" => settings.etrn_host.as_deref().map(str::to_owned),
        "etrn-from" => joined(settings.etrn_from.iter().map(ToString::to_string)),
        "etrn-tls" => settings.etrn_tls.as_ref().map(spelled),
        "require-tls" => settings.require_tls.map(|yes| if yes { "yes" } else { "no" }.to_owned()),
        "wait-for-mail" => time(settings.drain.wait_for_mail),
        "hold-open" => time(settings.drain.hold_open),
        "client-profile" => settings.client_profile.as_ref().map(spelled),
        "expire-after" => time(settings.expire_after),
        "quota-bytes" => settings.quota_bytes.map(units::show_size),
        "quota-messages" => settings.quota_messages.map(|number| number.to_string()),
        "message-bytes-max" => settings.message_bytes_max.map(units::show_size),
        "recipients" => settings.recipients.as_ref().map(|policy| match policy {
            RecipientPolicy::Any => "any".to_owned(),
            RecipientPolicy::Listed(list) => format!("{} listed", list.len()),
        }),
        "reject-policy" => settings.reject_policy.as_ref().map(spelled),
        "certificate" => joined(settings.certificate.iter().map(ToString::to_string)),
        _ => None,
    }
}

fn joined(items: impl Iterator<Item = String>) -> Option<String> {
    Some(items.collect::<Vec<_>>().join(",")).filter(|text| !text.is_empty())
}

/// The word that serde writes for an enum.
pub(super) fn spelled<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn word<T: serde::de::DeserializeOwned>(value: &str) -> Result<T, String> {
    serde_json::from_value(value.into()).map_err(|error| {
        let said = error.to_string().replace("unknown variant ", "");
        said.replace(", expected one of", " is not one of").replace(", expected", " is not")
    })
}

fn unknown(key: &str) -> String {
    let keys = || KEYS.iter().map(|(key, _)| *key);
    match nearest(key, keys()) {
        Some(near) => format!("there is no setting `{key}`; did you mean `{near}`?"),
        None => {
            format!(
                "there is no setting `{key}`; there are {}",
                keys().collect::<Vec<_>>().join(", ")
            )
        }
    }
}

fn time(value: &str) -> Result<Seconds, String> {
    units::time(value).map(Seconds)
}

fn number(value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("`{value}` is not a whole number"))
}

fn yes_or_no(value: &str) -> Result<bool, String> {
    match value {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("`{value}` is neither yes nor no")),
    }
}

fn networks(value: &str) -> Result<Vec<Network>, String> {
    let parts = value.split([',', ' ']).filter(|part| !part.is_empty());
    let list: Vec<Network> = parts.map(str::parse).collect::<Result<_, _>>()?;
    if list.is_empty() { Err("name at least one network".into()) } else { Ok(list) }
}

fn host_and_port(value: &str) -> Result<String, String> {
    let wanted =
        || format!("`{value}` is not host:port or [address]:port, as in mail.example.com:25");
    let (host, port) = value.rsplit_once(':').ok_or_else(wanted)?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(wanted)?;
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: std::net::IpAddr = address.parse().map_err(|_| wanted())?;
        return Ok(format!("[{address}]:{port}"));
    }
    if host.contains(':') {
        return Err(wanted());
    }
    if let Ok(address) = host.parse::<std::net::IpAddr>() {
        return Ok(format!("{address}:{port}"));
    }
    let host = Domain::parse(host).map_err(|error| format!("`{host}`: {error}"))?;
    Ok(format!("{host}:{port}"))
}

fn fingerprint(value: &str) -> Result<Box<str>, String> {
    let plain: String = value.chars().filter(|c| *c != ':').collect::<String>().to_lowercase();
    if plain.len() == 64 && plain.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(plain.into())
    } else {
        Err(format!("`{value}` is not a SHA-256 in hex (64 digits)"))
    }
}

fn recipients(value: &str, lines: Option<&[String]>) -> Result<RecipientPolicy, String> {
    let Some(lines) = lines else {
        return match value {
            "any" => Ok(RecipientPolicy::Any),
            _ => Err(format!("`{value}` is neither `any` nor `@FILE`")),
        };
    };
    let mut list = BTreeSet::new();
    for (number, line) in lines.iter().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let address =
            recipient(line).map_err(|why| format!("line {}: `{line}`: {why}", number + 1))?;
        list.insert(address);
    }
    match list.len() {
        0 => Err("the file lists no address; `recipients any` accepts all".into()),
        1..=RECIPIENTS_MAX => Ok(RecipientPolicy::Listed(list)),
        many => Err(format!("the file lists {many} addresses, more than {RECIPIENTS_MAX}")),
    }
}

/// `local@domain` with the local part as written and the domain in its normal form, or `@domain`.
fn recipient(line: &str) -> Result<Box<str>, String> {
    if let Some(domain) = line.strip_prefix('@') {
        let domain = Domain::parse(domain).map_err(|error| error.to_string())?;
        return Ok(format!("@{domain}").into());
    }
    let path = ForwardPath::parse(line).map_err(|error| error.to_string())?;
    Ok(format!("{}@{}", path.local_part(), path.domain()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_set_shown_and_unset() {
        let values = [
            ("etrn-host", "Mail.Example.com:25", "mail.example.com:25"),
            ("etrn-from", "192.0.2.0/24, 2001:db8::/32", "192.0.2.0/24,2001:db8::/32"),
            ("etrn-tls", "verify", "verify"),
            ("require-tls", "yes", "yes"),
            ("wait-for-mail", "5m", "5m"),
            ("hold-open", "3600s", "1h"),
            ("client-profile", "fetchmail-tls", "fetchmail-tls"),
            ("expire-after", "30d", "30d"),
            ("quota-bytes", "10 GiB", "10 GiB"),
            ("quota-messages", "1000", "1000"),
            ("message-bytes-max", "20 MiB", "20 MiB"),
            ("recipients", "any", "any"),
            ("reject-policy", "retry", "retry"),
            ("certificate", &"aB".repeat(32), &"ab".repeat(32)),
        ];
        assert_eq!(values.map(|v| v.0).to_vec(), KEYS.iter().map(|k| k.0).collect::<Vec<_>>());
        let mut settings = Settings::default();
        for (key, value, _) in values {
            set(&mut settings, key, value, None).expect(key);
        }
        let shown = show(&settings);
        assert_eq!(shown, values.map(|(key, _, shown)| (key, shown.to_owned())).to_vec());
        for (key, ..) in values {
            unset(&mut settings, key).expect(key);
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn wrong_values_say_what_is_wanted() {
        let mut settings = Settings::default();
        for (key, value, part) in [
            ("etrn-host", "mail.example.com", "host:port"),
            ("etrn-host", "2001:db8::1:25", "[address]:port"),
            ("etrn-tls", "maybe", "is not one of"),
            ("hold-open", "5", "write \"5s\""),
            ("quota-bytes", "10 GB", "GiB"),
            ("recipients", "all", "neither"),
            ("certificate", "ab", "64 digits"),
            ("hold_open", "5m", "did you mean `hold-open`"),
        ] {
            let said = set(&mut settings, key, value, None).expect_err(key);
            assert!(said.contains(part), "{key} {value}: {said}");
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn listed_recipients_keep_their_local_parts() {
        let lines = ["# staff".to_owned(), "Ann@Example.COM".into(), "@b.example".into()];
        let mut settings = Settings::default();
        set(&mut settings, "recipients", "@list", Some(&lines)).expect("valid");
        let Some(RecipientPolicy::Listed(list)) = settings.recipients else { panic!("a list") };
        assert_eq!(
            list.iter().map(|a| &**a).collect::<Vec<_>>(),
            ["@b.example", "Ann@example.com"]
        );
        let said = set(&mut Settings::default(), "recipients", "@list", Some(&["x".into()]));
        assert!(said.expect_err("invalid").starts_with("line 1"));
    }
}
