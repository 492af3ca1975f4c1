//! The table of keys: every key of the configuration with its form, its default and one sentence.
//!
//! The reader checks a file against it, `check --show` prints from it, and the reference in `docs/operator.md`
//! is compared with it by a test. It is the one place to add a key, and [`PENDING`] the one place that says
//! which keys and settings are read but have no effect in this version.

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A domain name.
    Domain,
    /// A folder or file; a relative one is looked up beside the configuration file.
    Path,
    /// A list of `address:port`.
    Addresses,
    /// A list of networks in CIDR form.
    Networks,
    /// A list of folders.
    Folders,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of these words, each once.
    Choices(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// A whole number in this range; the third is the least that the RFCs ask for.
    Count(u64, u64, u64),
    /// A size with a unit; the least that the RFCs ask for, in octets.
    Size(u64),
    /// A time with a unit.
    Time,
    /// A list of times, each with a unit, at least one.
    Times,
    /// `mx`, `none` or `host:port`.
    Route,
    /// Any text without control characters.
    Text,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.name`, or just `name` at the top of the file.
    pub path: &'static str,
    /// What its value must look like.
    pub kind: Kind,
    /// The default as TOML; empty when there is none.
    pub default: &'static str,
    /// One sentence.
    pub about: &'static str,
}

impl Key {
    /// The section; empty at the top of the file.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name within its section.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }
}

/// Keys and settings that are read and checked but do not act yet: the name, what happens instead, and the
/// value (as TOML) that says just that and therefore holds. `check` warns of every one that a file sets
/// otherwise, and `customer set` of every such setting. Shrinks to nothing.
pub const PENDING: &[(&str, &str, &str)] = &[];

/// What happens instead, if `key` has no effect in this version.
#[must_use]
pub fn pending(key: &str) -> Option<&'static str> {
    PENDING.iter().find(|(name, ..)| *name == key).map(|(_, instead, _)| *instead)
}

/// The value of a pending key that holds all the same, as TOML.
#[must_use]
pub fn holds(key: &str) -> Option<&'static str> {
    PENDING.iter().find(|(name, ..)| *name == key).map(|(.., kept)| *kept).filter(|k| !k.is_empty())
}

/// All sections in the order of the file; the empty one is the top.
pub const SECTIONS: [&str; 10] =
    ["", "listen", "tls", "auth", "limits", "queue", "drain", "etrn", "relay", "log"];

/// The words of `log.level`.
pub const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

const fn key(path: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Key {
    Key { path, kind, default, about }
}

/// Where a certificate is looked for when the file names none.
pub const DEFAULT_CERTIFICATE: &str = "/etc/restante/tls/fullchain.pem";
/// Where its key is looked for.
pub const DEFAULT_PRIVATE_KEY: &str = "/etc/restante/tls/privkey.pem";

/// All keys, in the order of the file.
pub const KEYS: &[Key] = &[
    key("hostname", Kind::Domain, "", "Public name: greeting, EHLO, Received, certificates."),
    key("data_dir", Kind::Path, "", "Folder of the queue, the customers and the control socket."),
    key("listen.mx", Kind::Addresses, "[\"[::]:25\"]", "Mail for customers' domains."),
    key(
        "listen.mxs",
        Kind::Addresses,
        "[\"[::]:465\"]",
        "The same under implicit TLS; needs a certificate.",
    ),
    key("listen.odmr", Kind::Addresses, "[\"[::]:366\"]", "On-Demand Mail Relay, RFC 2645."),
    key("listen.odmrs", Kind::Addresses, "[]", "The same under implicit TLS (fetchmail --ssl)."),
    key(
        "listen.odmr_from",
        Kind::Networks,
        "[]",
        "Networks that may come to `odmr` and `odmrs`; empty: any. Others get 554.",
    ),
    key(
        "listen.proxy_from",
        Kind::Networks,
        "[]",
        "Load balancers that send a PROXY header of version 2; nobody else is believed.",
    ),
    key("listen.http", Kind::Addresses, "[\"127.0.0.1:9366\"]", "Metrics, health and status page."),
    key(
        "tls.certificate",
        Kind::Path,
        "\"/etc/restante/tls/fullchain.pem\"",
        "Certificate chain, PEM, the server's own first; the default holds where the file exists.",
    ),
    key(
        "tls.private_key",
        Kind::Path,
        "\"/etc/restante/tls/privkey.pem\"",
        "Its private key, PEM, readable by the service only.",
    ),
    key(
        "tls.also",
        Kind::Folders,
        "[]",
        "More certificates, chosen by the name the client asks for: folders with fullchain.pem and privkey.pem.",
    ),
    key("tls.client_ca", Kind::Path, "", "CA whose client certificates may log in by EXTERNAL."),
    key("tls.minimum", Kind::Choice(&["1.2", "1.3"]), "\"1.2\"", "Oldest TLS version."),
    key(
        "auth.require_tls",
        Kind::Bool,
        "true",
        "`false`: CRAM-MD5 and SCRAM also in clear text (old fetchmail); PLAIN never.",
    ),
    key(
        "auth.mechanisms",
        Kind::Choices(&crate::smtp::MECHANISMS),
        "[\"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\", \"CRAM-MD5\", \"PLAIN\", \"EXTERNAL\"]",
        "Login mechanisms that may be used.",
    ),
    key(
        "auth.failures_max",
        Kind::Count(1, 1000, 3),
        "3",
        "Failed logins in one session, then 421.",
    ),
    key(
        "auth.delay_after_failures",
        Kind::Times,
        "[\"0s\", \"0s\", \"1s\", \"2s\", \"5s\"]",
        "Delays after the first, second, … failure of an address or an account; the last repeats.",
    ),
    key(
        "limits.message_bytes_max",
        Kind::Size(64 << 10),
        "\"50 MiB\"",
        "Largest message, announced as SIZE.",
    ),
    key("limits.recipients_max", Kind::Count(1, 10_000, 100), "1000", "Recipients of one message."),
    key(
        "limits.sessions_max",
        Kind::Count(1, 1_000_000, 1),
        "10000",
        "Sessions on all listeners together; beyond it 421.",
    ),
    key(
        "limits.sessions_per_address",
        Kind::Count(1, 1_000_000, 1),
        "20",
        "Sessions from one address (IPv6: from one /64).",
    ),
    key(
        "limits.received_max",
        Kind::Count(1, 10_000, 100),
        "100",
        "Received lines (hops); beyond it 554, a loop.",
    ),
    key(
        "limits.turns_per_minute",
        Kind::Count(1, 1_000_000, 1),
        "120",
        "ATRN in vain, for each customer and minute; then 450. Calls that move mail are not counted.",
    ),
    key("limits.disk_free_min", Kind::Size(0), "\"1 GiB\"", "Free disk below which MAIL gets 452."),
    key("queue.expire_after", Kind::Time, "\"30d\"", "Age at which undelivered mail is given up."),
    key(
        "queue.durability",
        Kind::Choice(&["fsync", "relaxed"]),
        "\"fsync\"",
        "`fsync`: 250 means that the message survives a power cut.",
    ),
    key(
        "drain.wait_for_mail",
        Kind::Time,
        "\"0s\"",
        "How long ATRN on empty queues may wait for mail before 453.",
    ),
    key(
        "drain.hold_open",
        Kind::Time,
        "\"0s\"",
        "How long the reversed connection stays after the last message.",
    ),
    key(
        "drain.window_messages",
        Kind::Count(1, 100_000, 1),
        "512",
        "Messages on their way to a customer and not yet recorded; at most so many come twice after a cut.",
    ),
    key(
        "drain.window_bytes",
        Kind::Size(0),
        "\"16 MiB\"",
        "The same in octets of their contents; a larger message travels alone.",
    ),
    key(
        "drain.noop_after",
        Kind::Time,
        "\"4m\"",
        "Silence on such a connection after which NOOP is said; below the idle limit of customers' servers (Postfix, \
         Exim: 5m).",
    ),
    key(
        "drain.stall_after",
        Kind::Time,
        "\"90s\"",
        "Silence in the middle of a group of commands, under TLS, after which `client-profile auto` takes the \
         client for one that reads a line of each record only.",
    ),
    key("etrn.enabled", Kind::Bool, "true", "Offer ETRN to customers with an `etrn-host`."),
    key(
        "etrn.retry",
        Kind::Times,
        "[\"1m\", \"5m\", \"15m\", \"1h\"]",
        "Pauses after a failed connection; the last repeats.",
    ),
    key(
        "relay.route",
        Kind::Route,
        "\"mx\"",
        "Way out for delivery reports: `mx`, `host:port`, or `none`.",
    ),
    key("relay.username", Kind::Text, "", "Login at the relay."),
    key("relay.password_file", Kind::Path, "", "File whose first line is the relay's password."),
    key(
        "relay.tls",
        Kind::Choice(&["opportunistic", "required", "verify"]),
        "\"required\"",
        "TLS towards a relay given as host:port.",
    ),
    key("log.level", Kind::Choice(LEVELS), "\"info\"", "Least important line that is written."),
    key(
        "log.format",
        Kind::Choice(&["text", "json", "postfix"]),
        "\"text\"",
        "`postfix` is read by existing log analysers.",
    ),
];

/// The key of this path.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_unique_and_in_known_sections() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(SECTIONS.contains(&key.section()), "{}", key.path);
            assert!(KEYS[..index].iter().all(|other| other.path != key.path), "{}", key.path);
        }
    }

    #[test]
    fn pending_keys_exist() {
        for (name, ..) in PENDING {
            let setting = crate::app::admin::settings::KEYS.iter().any(|(key, _)| key == name);
            assert!(find(name).is_some() || setting, "{name}");
        }
    }
}
