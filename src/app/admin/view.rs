//! What answers look like: the field names that scripts rely on. A field, once shipped, keeps its name.

use crate::mail::{self, CustomerName, Domain, RecipientState, Timestamp};
use crate::provider::Board;
use crate::provider::board::{LastDrain, Listener, Sessions};
use crate::store::{Count, Head, Health, HeldRecipient, QueueAction};

use super::{Password, settings};

/// `customer add`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Added {
    /// The customer, and the login.
    pub name: CustomerName,
    /// Its domains.
    pub domains: Vec<Domain>,
    /// The password if it was generated; null if it was given.
    pub password: Option<Password>,
}

/// `customer passwd`, `customer credential add`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NewLogin {
    /// The customer.
    pub name: CustomerName,
    /// The label; empty for the customer's own login.
    pub label: String,
    /// What the client has to give as its user name.
    pub login: String,
    /// The password if it was generated; null if it was given.
    pub password: Option<Password>,
}

/// `customer list`, `customer show`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Customer {
    /// The name.
    pub name: CustomerName,
    /// The domains.
    pub domains: Vec<Domain>,
    /// Whether login and mail are refused.
    pub suspended: bool,
    /// The logins.
    pub credentials: Vec<Credential>,
    /// What differs from the defaults, as it would be typed.
    pub settings: std::collections::BTreeMap<String, String>,
    /// When it was created, RFC 3339.
    pub created_at: String,
    /// Messages waiting; one in two domains counts twice.
    pub messages: u64,
    /// Their octets.
    pub bytes: u64,
    /// Messages refused for good by the customer's server.
    pub failed: u64,
    /// The client profile that `auto` has learnt, if it learnt one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learnt_profile: Option<String>,
}

impl Customer {
    /// The record with what waits for it and what was learnt about its client.
    pub(super) fn new(
        customer: &mail::Customer,
        waiting: &Count,
        learnt: mail::ClientProfile,
    ) -> Self {
        let settings = settings::show(&customer.settings).into_iter();
        Self {
            name: customer.name.clone(),
            domains: customer.domains.clone(),
            suspended: customer.suspended,
            credentials: customer
                .credentials
                .iter()
                .map(|c| Credential::new(customer, c))
                .collect(),
            settings: settings.map(|(key, value)| (key.to_owned(), value)).collect(),
            created_at: customer.created.rfc3339(),
            messages: waiting.messages,
            bytes: waiting.bytes,
            failed: waiting.failed,
            learnt_profile: (learnt != mail::ClientProfile::Auto)
                .then(|| settings::spelled(&learnt)),
        }
    }
}

/// `customer credential list`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Credential {
    /// What the client gives as its user name.
    pub login: String,
    /// The label; empty for the customer's own login.
    pub label: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
}

impl Credential {
    pub(super) fn new(customer: &mail::Customer, credential: &mail::Credential) -> Self {
        let login =
            mail::Login { customer: customer.name.clone(), label: credential.label.clone() };
        Self {
            login: login.to_string(),
            label: credential.label.to_string(),
            created_at: credential.created.rfc3339(),
        }
    }
}

/// `domain list`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DomainRow {
    /// The domain.
    pub domain: Domain,
    /// Whose it is.
    pub customer: CustomerName,
    /// Messages waiting.
    pub messages: u64,
    /// Their octets.
    pub bytes: u64,
}

/// Where a message or a recipient stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waiting, never refused.
    Queued,
    /// On its way to the customer right now.
    Draining,
    /// Waiting after a 4xx of the customer's server.
    Deferred,
    /// Held by the operator.
    Held,
    /// Refused for good by the customer's server.
    Failed,
}

impl State {
    /// The word in tables and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Draining => "draining",
            Self::Deferred => "deferred",
            Self::Held => "held",
            Self::Failed => "failed",
        }
    }

    fn of(held: &HeldRecipient) -> Self {
        match &held.state {
            RecipientState::Failed(_) => Self::Failed,
            // Delivered; only the report is on its way.
            RecipientState::Relayed(_) => Self::Draining,
            _ if held.held => Self::Held,
            RecipientState::Deferred(_) => Self::Deferred,
            RecipientState::Queued => Self::Queued,
        }
    }

    /// A message stands where the recipient stands that a drain would move first.
    fn of_all(recipients: &[HeldRecipient]) -> Self {
        let states: Vec<Self> = recipients.iter().map(Self::of).collect();
        [Self::Deferred, Self::Queued, Self::Held, Self::Failed]
            .into_iter()
            .find(|state| states.contains(state))
            .unwrap_or(Self::Draining)
    }
}

/// A message in one domain's queue (`queue list`), or as a whole (`queue show`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Its id.
    pub id: mail::QueueId,
    /// Whose.
    pub customer: CustomerName,
    /// In which queue; the first of them in `queue show`.
    pub domain: Domain,
    /// Octets of content.
    pub size: u64,
    /// When it arrived, RFC 3339.
    pub queued_at: String,
    /// When it is given up, RFC 3339.
    pub expires_at: String,
    /// How often it was offered.
    pub attempts: u32,
    /// Where it stands.
    pub state: State,
    /// Where reports go; empty for the null reverse-path.
    pub reverse_path: String,
    /// Its recipients.
    pub forward_paths: Vec<ForwardPath>,
    /// Seconds since it arrived.
    pub age_seconds: u64,
    /// Its Message-ID, if it has one.
    pub message_id: Option<String>,
    /// How often a line broke while it was on its way.
    pub line_breaks: u32,
    /// So often that it goes last in its queue.
    #[serde(default)]
    pub goes_last: bool,
}

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ForwardPath {
    /// The address.
    pub address: String,
    /// Where it stands.
    pub state: State,
    /// The last reply of the customer's server; null if there was none.
    pub reply: Option<String>,
    /// Whose it is.
    pub customer: CustomerName,
}

impl ForwardPath {
    fn new(held: &HeldRecipient, on_the_way: bool) -> Self {
        let state = match State::of(held) {
            State::Queued | State::Deferred if on_the_way => State::Draining,
            state => state,
        };
        let reply = match &held.state {
            RecipientState::Queued => None,
            RecipientState::Deferred(reply)
            | RecipientState::Failed(reply)
            | RecipientState::Relayed(reply) => Some(reply.as_str().to_owned()),
        };
        Self {
            address: held.recipient.forward_path.as_str().to_owned(),
            state,
            reply,
            customer: held.owner.clone(),
        }
    }
}

impl Message {
    /// One row for each domain among the recipients, in order of appearance.
    pub(super) fn rows(head: &Head, board: &Board, now: Timestamp) -> Vec<Self> {
        let mut domains: Vec<&Domain> = Vec::new();
        for held in &head.recipients {
            let domain = held.recipient.forward_path.domain();
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        let of = |domain: &Domain| {
            let here = |held: &&HeldRecipient| held.recipient.forward_path.domain() == domain;
            head.recipients.iter().filter(here).cloned().collect::<Vec<_>>()
        };
        domains.into_iter().filter_map(|domain| Self::new(head, &of(domain), board, now)).collect()
    }

    /// The message as far as `recipients` are concerned; nothing if there are none.
    pub(super) fn new(
        head: &Head,
        recipients: &[HeldRecipient],
        board: &Board,
        now: Timestamp,
    ) -> Option<Self> {
        let first = recipients.first()?;
        let on_the_way = board.is_on_the_way(head.id);
        let state = match State::of_all(recipients) {
            State::Queued | State::Deferred if on_the_way => State::Draining,
            state => state,
        };
        let expires = recipients.iter().map(|held| held.expires).max().unwrap_or_default();
        Some(Self {
            id: head.id,
            customer: first.owner.clone(),
            domain: first.recipient.forward_path.domain().clone(),
            size: head.facts.size,
            queued_at: head.arrived.rfc3339(),
            expires_at: expires.rfc3339(),
            attempts: recipients.iter().map(|held| held.attempts).max().unwrap_or_default(),
            state,
            reverse_path: head.envelope.reverse_path.as_str().to_owned(),
            forward_paths: recipients.iter().map(|h| ForwardPath::new(h, on_the_way)).collect(),
            age_seconds: now.since(head.arrived).0,
            message_id: head.facts.message_id.as_deref().map(str::to_owned),
            line_breaks: head.line_breaks,
            goes_last: head.position.rank > 0,
        })
    }
}

/// `status`
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// Of the program that answers.
    pub version: String,
    /// Our public name.
    pub hostname: String,
    /// Whether a provider answered; otherwise the store was read directly.
    pub running: bool,
    /// Bound sockets.
    pub listeners: Vec<Listener>,
    /// Sessions right now.
    pub sessions: Sessions,
    /// Every domain of every customer, empty queues too, and queues whose customer is gone.
    pub queues: Vec<Queue>,
    /// The last drain of each customer since the provider started.
    pub last_drains: Vec<Drain>,
    /// The way out for reports: `mx`, `host:port`, or `none`: then they wait.
    pub relay: String,
    /// How the store is doing.
    pub store: Health,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Queue {
    /// Whose.
    pub customer: CustomerName,
    /// For which domain.
    pub domain: Domain,
    /// Messages waiting, held ones included.
    pub messages: u64,
    /// Their octets.
    pub bytes: u64,
    /// Age of the oldest; 0 when nothing waits.
    pub oldest_seconds: u64,
    /// Of `messages`, those not held.
    pub ready: u64,
    /// Messages refused for good by the customer's server.
    pub failed: u64,
}

impl Queue {
    pub(super) fn new(
        customer: CustomerName,
        domain: Domain,
        count: &Count,
        now: Timestamp,
    ) -> Self {
        Self {
            customer,
            domain,
            messages: count.messages,
            bytes: count.bytes,
            oldest_seconds: count.oldest.map_or(0, |oldest| now.since(oldest).0),
            ready: count.ready,
            failed: count.failed,
        }
    }
}

/// How a drain ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Drain {
    /// When it began, RFC 3339.
    pub started_at: String,
    /// All else about it.
    #[serde(flatten)]
    pub drain: LastDrain,
}

impl From<LastDrain> for Drain {
    fn from(drain: LastDrain) -> Self {
        Self { started_at: drain.started.rfc3339(), drain }
    }
}

/// How far a long answer is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stage {
    /// What is counted.
    pub what: String,
    /// So many are done.
    pub done: u64,
    /// Of so many; 0 where nobody knows.
    pub total: u64,
}

/// The command of an action.
pub(super) fn action_word(action: QueueAction) -> &'static str {
    match action {
        QueueAction::Hold => "hold",
        QueueAction::Release => "release",
        QueueAction::Remove => "remove",
    }
}

/// Octets as base64 in JSON.
pub(in crate::app::admin) mod octets {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    pub(in crate::app::admin) fn serialize<S: serde::Serializer>(
        octets: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(octets))
    }

    pub(in crate::app::admin) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text: String = serde::Deserialize::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}
