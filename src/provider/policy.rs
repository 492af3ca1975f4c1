//! What the operator decided; the effective values of the configuration as the provider uses them.

use std::net::IpAddr;
use std::time::Duration;

use super::call::HostPort;
use crate::mail::{
    ClientProfile, Customer, Domain, Durations, EtrnTls, Network, RejectPolicy, Seconds, Secret,
};
use crate::smtp::{Door, Terms};

/// The provider's rules. Replaced as a whole when the configuration is loaded again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Our public name.
    pub hostname: Domain,
    /// SIZE, octets.
    pub message_bytes_max: u64,
    /// Recipients in one transaction.
    pub recipients_max: usize,
    /// Hops.
    pub received_max: u32,
    /// Free octets on the store's disk below which MAIL gets 452.
    pub disk_free_min: u64,
    /// When undelivered mail is given up.
    pub expire_after: Seconds,
    /// Login only under TLS.
    pub auth_requires_tls: bool,
    /// Mechanisms, strongest first, from [`crate::smtp::MECHANISMS`].
    pub mechanisms: Vec<&'static str>,
    /// Failed logins in a session.
    pub auth_failures_max: u32,
    /// How long a verdict waits after the first, second, … failure of an address, or a refusal after those of a
    /// name; the last repeats.
    pub delay_after_failures: Vec<Duration>,
    /// ATRN in vain, per customer and minute; then 450.
    pub turns_per_minute: u32,
    /// Whether a certificate is configured.
    pub tls_available: bool,
    /// `wait-for-mail` and `hold-open` for customers that set none.
    pub drain: Durations,
    /// Silence on a held connection after which NOOP is said.
    pub noop_after: Seconds,
    /// Silence in a group of commands, under TLS, that tells a client which reads one line of each record.
    pub stall_after: Seconds,
    /// Pauses between attempts of the ETRN path, the last repeats; `None`: ETRN is off.
    pub etrn: Option<Vec<Seconds>>,
    /// The way out for reports.
    pub relay: Relay,
    /// How much may be on its way to a customer and not yet recorded.
    pub window: Window,
    /// Sessions on all listeners together.
    pub sessions_max: usize,
    /// Sessions from one address.
    pub sessions_per_address: usize,
    /// Networks that may come to the ODMR door; empty: any.
    pub odmr_from: Vec<Network>,
    /// Load balancers that say who the client behind them is; nobody else is believed.
    pub proxy_from: Vec<Network>,
}

impl Policy {
    /// The defaults of section 2 of the interface for a provider of this name, without TLS.
    #[must_use]
    pub fn new(hostname: Domain) -> Self {
        Self {
            hostname,
            message_bytes_max: 50 << 20,
            recipients_max: 1000,
            received_max: 100,
            disk_free_min: 1 << 30,
            expire_after: Seconds(30 * 86_400),
            auth_requires_tls: true,
            mechanisms: crate::smtp::MECHANISMS.to_vec(),
            auth_failures_max: 3,
            delay_after_failures: [0, 0, 1, 2, 5].map(Duration::from_secs).to_vec(),
            turns_per_minute: 120,
            tls_available: false,
            drain: Durations { wait_for_mail: Some(Seconds(0)), hold_open: Some(Seconds(0)) },
            noop_after: Seconds(240),
            stall_after: Seconds(90),
            etrn: Some([60, 300, 900, 3600].map(Seconds).to_vec()),
            relay: Relay::default(),
            window: Window::default(),
            sessions_max: 10_000,
            sessions_per_address: 20,
            odmr_from: Vec::new(),
            proxy_from: Vec::new(),
        }
    }

    /// What a session behind `door` offers.
    #[must_use]
    pub fn terms(&self, door: Door) -> Terms {
        let _ = door;
        Terms {
            hostname: self.hostname.clone(),
            message_bytes_max: self.message_bytes_max,
            recipients_max: self.recipients_max,
            received_max: self.received_max,
            tls_available: self.tls_available,
            etrn: self.etrn.is_some() && self.tls_available,
            auth_requires_tls: self.auth_requires_tls,
            mechanisms: self.mechanisms.clone(),
            auth_failures_max: self.auth_failures_max,
            errors_max: 20,
        }
    }

    /// Whether this address may come to this door.
    #[must_use]
    pub fn admits(&self, door: Door, peer: IpAddr) -> bool {
        let is_listed = self.odmr_from.iter().any(|network| network.contains(peer));
        door != Door::Odmr || self.odmr_from.is_empty() || is_listed
    }

    /// Whether this address is a load balancer of ours.
    #[must_use]
    pub fn is_balancer(&self, peer: IpAddr) -> bool {
        self.proxy_from.iter().any(|network| network.contains(peer))
    }

    /// The rules of a drain that belongs to no customer: on the way out, everybody is an ordinary server.
    #[must_use]
    pub fn relay_rules(&self) -> DrainRules {
        DrainRules {
            wait_for_mail: Duration::ZERO,
            hold_open: Duration::ZERO,
            profile: ClientProfile::Standard,
            rejects: RejectPolicy::default(),
            window: self.window,
            noop_after: self.noop_after.into(),
            stall_after: self.stall_after.into(),
        }
    }

    /// The rules of one customer's drains: its own settings over ours.
    #[must_use]
    pub fn drain_rules(&self, customer: &Customer) -> DrainRules {
        let own = &customer.settings;
        let pick = |own: Option<Seconds>, ours: Option<Seconds>| -> Duration {
            own.or(ours).unwrap_or_default().into()
        };
        DrainRules {
            wait_for_mail: pick(own.drain.wait_for_mail, self.drain.wait_for_mail),
            hold_open: pick(own.drain.hold_open, self.drain.hold_open),
            profile: own.client_profile.unwrap_or_default(),
            rejects: own.reject_policy.unwrap_or_default(),
            window: self.window,
            noop_after: self.noop_after.into(),
            stall_after: self.stall_after.into(),
        }
    }
}

/// `[relay]`: where reports to foreign addresses go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The route.
    pub route: RelayRoute,
    /// TLS towards a smart host.
    pub tls: EtrnTls,
    /// Name and password at a smart host; used under TLS only.
    pub login: Option<(String, Secret)>,
}

impl Default for Relay {
    /// Mail exchangers; a smart host only under TLS.
    fn default() -> Self {
        Self { route: RelayRoute::default(), tls: EtrnTls::Required, login: None }
    }
}

/// `relay.route`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum RelayRoute {
    /// To the mail exchangers of the recipient's domain.
    #[default]
    Exchangers,
    /// To this host.
    Host(HostPort),
    /// Nowhere: reports wait until they expire.
    Nowhere,
}

impl std::fmt::Display for RelayRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exchangers => f.write_str("mx"),
            Self::Host(HostPort { host, port }) if host.contains(':') => {
                write!(f, "[{host}]:{port}")
            }
            Self::Host(HostPort { host, port }) => write!(f, "{host}:{port}"),
            Self::Nowhere => f.write_str("none"),
        }
    }
}

/// How much may be on its way to a customer before it is recorded as delivered. After a cut at the wrong moment,
/// so many messages at most may come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Messages; with 1, each is recorded before the next MAIL.
    pub messages: u64,
    /// Octets of their contents; a single message may be larger.
    pub bytes: u64,
}

impl Default for Window {
    /// 512 messages, 16 MiB: more than a line of 40 ms and 100 Mbit/s holds.
    fn default() -> Self {
        Self { messages: 512, bytes: 16 << 20 }
    }
}

/// How one customer is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainRules {
    /// How long ATRN on empty queues may hold its reply.
    pub wait_for_mail: Duration,
    /// How long the reversed connection stays after the last message.
    pub hold_open: Duration,
    /// How the customer's client carries the stream.
    pub profile: ClientProfile,
    /// What a 5yz means.
    pub rejects: RejectPolicy,
    /// How much may be in doubt after a cut.
    pub window: Window,
    /// Silence on a held connection after which NOOP is said.
    pub noop_after: Duration,
    /// Silence in a group of commands, under TLS, that tells a client which reads one line of each record.
    pub stall_after: Duration,
}
