//! The configuration: one TOML file, read whole, every fault with its place and its mend.
//!
//! Called by every command. Keeps section 2 of the interface. A [`Config`] exists only if the file has no fault;
//! relative paths are looked up beside the file. Secrets never stand in it, only files that hold them.

mod cross;
pub mod keys;
mod pair;
pub mod place;
mod read;
mod show;
pub mod units;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::mail::{Domain, Durations, EtrnTls, Network, Seconds, Secret};
use crate::provider::Policy;
use crate::provider::call::HostPort;
use crate::provider::policy::{self, RelayRoute};
use place::Report;
use read::Values;
use value::Value;

/// The listeners' names, in the order of the file.
pub const LISTENERS: [&str; 5] = ["mx", "mxs", "odmr", "odmrs", "http"];

/// Where the configuration is looked for without `-c` and without [`VARIABLE`].
pub const DEFAULT_FILE: &str = "/etc/restante/restante.toml";
/// The environment variable that names it.
pub const VARIABLE: &str = "RESTANTE_CONFIG";

/// `[listen]`: addresses by door; an empty list switches the door off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// Mail for customers' domains.
    pub mx: Vec<SocketAddr>,
    /// The same under implicit TLS.
    pub mxs: Vec<SocketAddr>,
    /// RFC 2645.
    pub odmr: Vec<SocketAddr>,
    /// The same under implicit TLS.
    pub odmrs: Vec<SocketAddr>,
    /// Metrics, health and status page.
    pub http: Vec<SocketAddr>,
}

/// `[tls]`: files that exist and fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The chain, PEM.
    pub certificate: PathBuf,
    /// The key, PEM.
    pub private_key: PathBuf,
    /// More pairs: chain and key.
    pub also: Vec<(PathBuf, PathBuf)>,
    /// Authority of client certificates, PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether TLS 1.2 is refused.
    pub only_tls13: bool,
}

/// What a 250 after the content promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The message survives a power cut.
    Fsync,
    /// It survives a crash of the program.
    Relaxed,
}

/// `[relay]`: the way out for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Where they go.
    pub route: Route,
    /// Login name, and the file with the password on its first line.
    pub login: Option<(String, PathBuf)>,
    /// TLS towards a relay that is named.
    pub tls: EtrnTls,
}

/// `relay.route`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// By the MX records of the recipient's domain.
    Mx,
    /// By this host.
    Host(HostPort),
    /// Nowhere: reports are kept.
    None,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `time level event key=value …`
    Text,
    /// One JSON object a line.
    Json,
    /// The words of Postfix.
    Postfix,
}

/// The effective configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// Our public name.
    pub hostname: Domain,
    /// The folder of everything that lasts.
    pub data_dir: PathBuf,
    /// The listeners; those that need a certificate are empty without one.
    pub listen: Listen,
    /// Certificate and key, if there are any.
    pub tls: Option<Tls>,
    /// Delays for addresses and accounts that fail; the last repeats.
    pub delay_after_failures: Vec<Seconds>,
    /// What a 250 promises.
    pub durability: Durability,
    /// The way out.
    pub relay: Relay,
    /// Least important line that is written.
    pub log_level: log::LevelFilter,
    /// How lines look.
    pub log_format: LogFormat,
    policy: Policy,
    values: Values,
}

impl Config {
    /// The rules for sessions, drains and expiry.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy.clone()
    }

    /// The control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.data_dir.join("control.sock")
    }

    /// The effective settings as TOML, each with where it comes from.
    #[must_use]
    pub fn show(&self, report: &Report) -> String {
        show::toml(&self.values, report)
    }

    /// The effective settings as JSON: sections with keys; absent values are null.
    #[must_use]
    pub fn show_json(&self) -> serde_json::Value {
        show::json(&self.values)
    }
}

/// What became of a file.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration, if there was no fault.
    pub config: Option<Config>,
    /// Faults and warnings.
    pub report: Report,
}

/// Where to look: what `-c` said, else the environment, else the usual place.
#[must_use]
pub fn locate(chosen: Option<PathBuf>) -> PathBuf {
    chosen
        .or_else(|| std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| DEFAULT_FILE.into())
}

/// Reads the file.
#[must_use]
pub fn load(file: &Path) -> Loaded {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let mut report = Report::new(file, "");
            let mend = format!(
                "name the file with -c FILE or {VARIABLE}; `restante quickstart` writes a commented one to start from"
            );
            report.fault(None, format!("the configuration cannot be read: {error}"), mend);
            return Loaded { config: None, report };
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => parse(file, &text),
        Err(error) => {
            let sound = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let mut report = Report::new(file, &text);
            report.fault(sound..sound + 1, "this is not UTF-8", "save the file as UTF-8");
            Loaded { config: None, report }
        }
    }
}

/// Reads `text` as if it stood in `file`.
#[must_use]
pub fn parse(file: &Path, text: &str) -> Loaded {
    let mut report = Report::new(file, text);
    let (mut values, is_toml) = read::read(text, &mut report);
    if !is_toml {
        return Loaded { config: None, report };
    }
    let folder = folder_of(file);
    cross::check(&mut values, &folder, &mut report);
    let config = if report.faults() == 0 { assemble(file, &folder, values) } else { None };
    Loaded { config, report }
}

/// The folder of a file, absolute if the working folder is known.
fn folder_of(file: &Path) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    absolute.parent().map(Path::to_owned).unwrap_or_default()
}

/// `path` as seen from `folder`.
fn beside(folder: &Path, path: &str) -> PathBuf {
    folder.join(path)
}

/// The checked values, typed. Every key with a default is in `values`, since the reader puts it there; the
/// fall-backs below are never taken.
fn assemble(file: &Path, folder: &Path, values: Values) -> Option<Config> {
    let pick = Pick { values: &values, folder };
    let Some(Value::Domain(hostname)) = pick.value("hostname").cloned() else { return None };
    let tls = pick.path("tls.certificate").zip(pick.path("tls.private_key")).map(
        |(certificate, private_key)| Tls {
            certificate,
            private_key,
            also: pick.folders("tls.also").iter().map(|folder| pair::in_folder(folder)).collect(),
            client_ca: pick.path("tls.client_ca"),
            only_tls13: pick.word("tls.minimum") == "1.3",
        },
    );
    let config = Config {
        file: file.to_owned(),
        data_dir: pick.path("data_dir")?,
        listen: Listen {
            mx: pick.addresses("listen.mx"),
            mxs: pick.addresses("listen.mxs"),
            odmr: pick.addresses("listen.odmr"),
            odmrs: pick.addresses("listen.odmrs"),
            http: pick.addresses("listen.http"),
        },
        delay_after_failures: pick.times("auth.delay_after_failures"),
        durability: match pick.word("queue.durability") {
            "relaxed" => Durability::Relaxed,
            _ => Durability::Fsync,
        },
        relay: pick.relay(),
        log_level: pick.word("log.level").parse().unwrap_or(log::LevelFilter::Info),
        log_format: match pick.word("log.format") {
            "json" => LogFormat::Json,
            "postfix" => LogFormat::Postfix,
            _ => LogFormat::Text,
        },
        policy: pick.policy(&hostname, tls.is_some()),
        tls,
        hostname,
        values: values.clone(),
    };
    Some(config)
}

/// The secret on the first line of a file; empty if it cannot be read.
fn first_line(file: &Path) -> Secret {
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(file).unwrap_or_default());
    Secret::from(text.lines().next().unwrap_or_default())
}

/// Typed looks at checked values.
struct Pick<'a> {
    values: &'a Values,
    folder: &'a Path,
}

impl Pick<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key).map(|found| &found.value)
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        match self.value(key)? {
            Value::Path(text) => Some(beside(self.folder, text)),
            _ => None,
        }
    }

    fn addresses(&self, key: &str) -> Vec<SocketAddr> {
        match self.value(key) {
            Some(Value::Addresses(list)) => list.iter().map(|(address, _)| *address).collect(),
            _ => Vec::new(),
        }
    }

    fn words(&self, key: &str) -> &[String] {
        match self.value(key) {
            Some(Value::Words(words)) => words,
            _ => &[],
        }
    }

    fn folders(&self, key: &str) -> Vec<PathBuf> {
        self.words(key).iter().map(|text| beside(self.folder, text)).collect()
    }

    fn networks(&self, key: &str) -> Vec<Network> {
        // Each was parsed when it was read.
        self.words(key).iter().filter_map(|text| text.parse().ok()).collect()
    }

    fn word(&self, key: &str) -> &str {
        match self.value(key) {
            Some(Value::Word(word)) => word,
            _ => "",
        }
    }

    fn yes(&self, key: &str) -> bool {
        self.value(key) == Some(&Value::Bool(true))
    }

    fn number(&self, key: &str) -> u64 {
        match self.value(key) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        }
    }

    fn times(&self, key: &str) -> Vec<Seconds> {
        match self.value(key) {
            Some(Value::Numbers(times)) => times.iter().copied().map(Seconds).collect(),
            _ => Vec::new(),
        }
    }

    fn relay(&self) -> Relay {
        let route = match self.word("relay.route") {
            "none" => Route::None,
            "mx" | "" => Route::Mx,
            // The reader has checked its form.
            place => HostPort::parse(place).map_or(Route::None, Route::Host),
        };
        let name = Some(self.word("relay.username")).filter(|name| !name.is_empty());
        let login = name.map(str::to_owned).zip(self.path("relay.password_file"));
        let tls = match self.word("relay.tls") {
            "opportunistic" => EtrnTls::Opportunistic,
            "verify" => EtrnTls::Verify,
            _ => EtrnTls::Required,
        };
        Relay { route, login, tls }
    }

    fn policy(&self, hostname: &Domain, tls_available: bool) -> Policy {
        let count = |key: &str| usize::try_from(self.number(key)).unwrap_or(usize::MAX);
        let small = |key: &str| u32::try_from(self.number(key)).unwrap_or(u32::MAX);
        let allowed = match self.value("auth.mechanisms") {
            Some(Value::Words(words)) => words.clone(),
            _ => Vec::new(),
        };
        let mut policy = Policy::new(hostname.clone());
        policy.message_bytes_max = self.number("limits.message_bytes_max");
        policy.recipients_max = count("limits.recipients_max");
        policy.received_max = small("limits.received_max");
        policy.disk_free_min = self.number("limits.disk_free_min");
        policy.expire_after = Seconds(self.number("queue.expire_after"));
        policy.auth_requires_tls = self.yes("auth.require_tls");
        policy.mechanisms = crate::smtp::MECHANISMS
            .into_iter()
            .filter(|m| allowed.iter().any(|a| a == m))
            .collect();
        policy.auth_failures_max = small("auth.failures_max");
        policy.delay_after_failures =
            self.times("auth.delay_after_failures").into_iter().map(Into::into).collect();
        policy.tls_available = tls_available;
        policy.etrn = self.yes("etrn.enabled").then(|| self.times("etrn.retry"));
        let Relay { route, tls, login } = self.relay();
        let route = match route {
            Route::Mx => RelayRoute::Exchangers,
            Route::Host(place) => RelayRoute::Host(place),
            Route::None => RelayRoute::Nowhere,
        };
        // The cross checks have seen that the file can be read; a login that fails says so in the log.
        let login = login.map(|(name, file)| (name, first_line(&file)));
        policy.relay = policy::Relay { route, tls, login };
        policy.drain = Durations {
            wait_for_mail: Some(Seconds(self.number("drain.wait_for_mail"))),
            hold_open: Some(Seconds(self.number("drain.hold_open"))),
        };
        policy.window = policy::Window {
            messages: self.number("drain.window_messages"),
            bytes: self.number("drain.window_bytes"),
        };
        policy.noop_after = Seconds(self.number("drain.noop_after"));
        policy.stall_after = Seconds(self.number("drain.stall_after"));
        policy.turns_per_minute = small("limits.turns_per_minute");
        policy.odmr_from = self.networks("listen.odmr_from");
        policy.proxy_from = self.networks("listen.proxy_from");
        policy.sessions_max = count("limits.sessions_max");
        policy.sessions_per_address = count("limits.sessions_per_address");
        policy
    }
}
