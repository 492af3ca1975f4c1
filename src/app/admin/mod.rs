//! Administration: what an operator may ask, and what is answered.
//!
//! Called by the control socket's server for a running provider and by the commands themselves when none runs;
//! both get the same answers. Works on the office's store, directory and board. It prints nothing and never
//! sees a socket.

mod customers;
mod domains;
pub mod exchange;
mod logins;
mod password;
mod queue;
pub mod settings;
mod status;
mod upkeep;
mod view;

use std::fmt;

use futures::future::BoxFuture;

use crate::mail::{CustomerName, Domain, QueueId, Timestamp};
use crate::provider::ledger::TARGET;
use crate::provider::watch::{Seen, Want};
use crate::provider::{Office, etrn};
use crate::store::dump::Summary;
use crate::store::{DirectoryError, Filter, QueueAction, StateFilter, StoreError};

pub use exchange::{Exported, Sent};
pub use password::Password;
pub use view::{
    Added, Credential, Customer, DomainRow, Drain, ForwardPath, Message, NewLogin, Queue, Stage,
    State, Status,
};

/// What an operator asks. The fields are the arguments of the commands.
#[allow(missing_docs, reason = "a field is named as the command's argument")]
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// `customer add`; without a password one is made.
    CustomerAdd { name: CustomerName, domains: Vec<Domain>, password: Option<Password> },
    /// `customer list`
    CustomerList,
    /// `customer show`
    CustomerShow { name: CustomerName },
    /// `customer passwd`: replaces the customer's own login.
    CustomerPasswd { name: CustomerName, password: Option<Password> },
    /// `customer suspend` and `resume`
    CustomerSuspend { name: CustomerName, suspended: bool },
    /// `customer remove`; refused while mail is queued, unless it is to be discarded.
    CustomerRemove { name: CustomerName, discard_mail: bool },
    /// `customer set`; `lines` is the content of the file if the value was `@FILE`.
    CustomerSet { name: CustomerName, key: String, value: String, lines: Option<Vec<String>> },
    /// `customer unset`
    CustomerUnset { name: CustomerName, key: String },
    /// `customer credential add`
    CredentialAdd { name: CustomerName, label: String, password: Option<Password> },
    /// `customer credential list`
    CredentialList { name: CustomerName },
    /// `customer credential revoke`
    CredentialRevoke { name: CustomerName, label: String },
    /// `domain add`
    DomainAdd { customer: CustomerName, domain: Domain },
    /// `domain remove`; refused while mail is queued, unless it is to be discarded.
    DomainRemove { customer: Option<CustomerName>, domain: Domain, discard_mail: bool },
    /// `domain list`, of one customer or of all.
    DomainList { customer: Option<CustomerName> },
    /// `queue list`
    QueueList { filter: Select },
    /// `queue show`; with `body` the content follows as octets.
    QueueShow { id: QueueId, body: bool },
    /// How many messages `filter` means.
    QueueCount { filter: Select },
    /// `queue hold`, `release`, `remove`
    QueueApply { filter: Select, action: QueueAction },
    /// `queue bounce`
    QueueBounce { filter: Select },
    /// `queue export`: envelopes, each followed by its content.
    QueueExport { filter: Select },
    /// `queue import`: one message; the asker sends its content behind, see [`Items::take`].
    QueueImport { envelope: Box<Exported> },
    /// `flush`: start the ETRN path for a domain.
    Flush { domain: Domain },
    /// `status`
    Status,
    /// `dump`: everything as octets.
    Dump,
    /// `store verify`
    StoreVerify,
    /// `store compact`
    StoreCompact,
    /// `trace`: events until the asker goes.
    Trace { want: Want },
    /// `doctor`: what only the store can say about its clock.
    Examine,
}

impl Request {
    /// What is done to whom, for the log; `None` for a question that changes nothing. Never a password.
    #[must_use]
    pub fn change(&self) -> Option<String> {
        Some(match self {
            Self::CustomerAdd { name, .. } => format!("customer add {name}"),
            Self::CustomerPasswd { name, .. } => format!("customer passwd {name}"),
            Self::CustomerSuspend { name, suspended: true } => format!("customer suspend {name}"),
            Self::CustomerSuspend { name, .. } => format!("customer resume {name}"),
            Self::CustomerRemove { name, discard_mail } => {
                format!(
                    "customer remove {name}{}",
                    if *discard_mail { " --discard-mail" } else { "" }
                )
            }
            Self::CustomerSet { name, key, value, .. } => {
                format!("customer set {name} {key} {value}")
            }
            Self::CustomerUnset { name, key } => format!("customer unset {name} {key}"),
            Self::CredentialAdd { name, label, .. } => format!("credential add {name}/{label}"),
            Self::CredentialRevoke { name, label } => format!("credential revoke {name}/{label}"),
            Self::DomainAdd { customer, domain } => format!("domain add {customer} {domain}"),
            Self::DomainRemove { domain, .. } => format!("domain remove {domain}"),
            Self::QueueApply { filter, action } => {
                format!("queue {} {}", view::action_word(*action), filter.describe())
            }
            Self::QueueBounce { filter } => format!("queue bounce {}", filter.describe()),
            Self::QueueImport { envelope } => match envelope.id {
                Some(id) => format!("queue import {id}"),
                None => "queue import".into(),
            },
            Self::Flush { domain } => format!("flush {domain}"),
            Self::Dump => "dump".into(),
            Self::StoreCompact => "store compact".into(),
            _ => return None,
        })
    }
}

/// Which messages are meant: the filter options of `queue`, combined by and.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Select {
    /// Only these.
    pub ids: Vec<QueueId>,
    /// `--customer`
    pub customer: Option<CustomerName>,
    /// `--domain`
    pub domain: Option<Domain>,
    /// `--sender`: part of the reverse-path, `<>` for the null one.
    pub sender: Option<String>,
    /// `--recipient`: part of a forward-path.
    pub recipient: Option<String>,
    /// `--older`, seconds.
    pub older: Option<u64>,
    /// `--newer`, seconds.
    pub newer: Option<u64>,
    /// `--larger`, octets.
    pub larger: Option<u64>,
    /// `--state` and `--failed`
    pub state: Option<State>,
}

impl Select {
    /// The filter as the store knows it; `draining` is the board's to say.
    fn filter(&self, now: Timestamp) -> Filter {
        let ago = |seconds: u64| Timestamp(now.0.saturating_sub(seconds.saturating_mul(1000)));
        Filter {
            ids: self.ids.clone(),
            customer: self.customer.clone(),
            domain: self.domain.clone(),
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            before: self.older.map(ago),
            since: self.newer.map(ago),
            larger: self.larger,
            state: match self.state {
                None | Some(State::Draining) => None,
                Some(State::Queued) => Some(StateFilter::Queued),
                Some(State::Deferred) => Some(StateFilter::Deferred),
                Some(State::Held) => Some(StateFilter::Held),
                Some(State::Failed) => Some(StateFilter::Failed),
            },
        }
    }

    /// The filter in the words of the command line.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut words: Vec<String> = self.ids.iter().map(ToString::to_string).collect();
        let mut option = |name: &str, value: Option<String>| {
            words.extend(value.map(|value| format!("--{name} {value}")));
        };
        option("customer", self.customer.as_ref().map(ToString::to_string));
        option("domain", self.domain.as_ref().map(ToString::to_string));
        option("sender", self.sender.clone());
        option("recipient", self.recipient.clone());
        option("older", self.older.map(|s| format!("{s}s")));
        option("newer", self.newer.map(|s| format!("{s}s")));
        option("larger", self.larger.map(|b| format!("{b}B")));
        option("state", self.state.map(|s| s.word().to_owned()));
        if words.is_empty() { "--all".into() } else { words.join(" ") }
    }
}

/// A part of an answer that may be long.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// Of `customer list`.
    Customer(Customer),
    /// Of `customer credential list`.
    Credential(Credential),
    /// Of `domain list`.
    Domain(DomainRow),
    /// Of `queue list`: one message in one domain's queue.
    Message(Message),
    /// Of `queue show --body` and `queue export`: the next octets of the content; of `dump`, of the dump.
    Body(#[serde(with = "view::octets")] Vec<u8>),
    /// Of `queue export`: the next message; its content follows.
    Envelope(Box<Exported>),
    /// Of `queue export`: this message cannot be read, or not to its end.
    Spoiled(QueueId),
    /// How far it is.
    Stage(Stage),
    /// Of `trace`.
    Seen(Seen),
}

/// How an answer ends.
#[allow(missing_docs, reason = "the variants say what their fields mean")]
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// All items have been given.
    Listed,
    /// A customer was added.
    Added(Added),
    /// A login was made or replaced.
    NewLogin(NewLogin),
    /// One customer, whole.
    Customer(Customer),
    /// One message, whole.
    Message(Message),
    /// Something was changed: what, in a past participle and its subject, and what to know about it.
    Changed { subject: String, result: String, note: Option<String> },
    /// So many messages are meant, or were touched.
    Count { messages: u64 },
    /// The snapshot.
    Status(Box<Status>),
    /// What is in the dump.
    Dumped(Summary),
    /// All mail was read; what is damaged, one line each.
    Verified { messages: u64, bytes: u64, damage: Vec<String> },
    /// So many segments were compacted; octets on disk before and after.
    Compacted { segments: u64, before: u64, after: u64 },
    /// A message was taken, or is here already.
    Imported { id: QueueId, is_new: bool },
    /// Messages returned to their senders; of the others, those being drained and those without a sender.
    Bounced { messages: u64, busy: u64, untold: u64 },
    /// Messages whose time of arrival lies ahead of the clock (at most 1000 are counted), and the furthest, RFC 3339.
    Examined { ahead: u64, furthest: Option<String> },
}

/// Why a request was not done: one line that names the cause, and the mend.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// The cause.
    pub what: String,
    /// What to do about it; may be empty.
    pub mend: String,
}

impl Refused {
    /// A refusal with its mend.
    pub fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: what.into(), mend: mend.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, "; {}", self.mend) }
    }
}

impl std::error::Error for Refused {}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        let mend = match &error {
            StoreError::Transient(_) => "try again",
            StoreError::Full(_) => "make room on the disk",
            StoreError::Broken(_) => {
                "look at `restante status` and the log, and restart the provider"
            }
            _ => "",
        };
        Self::new(error.to_string(), mend)
    }
}

impl From<DirectoryError> for Refused {
    fn from(error: DirectoryError) -> Self {
        let mend = match error {
            DirectoryError::Store(error) => return error.into(),
            DirectoryError::Exists => "choose another name, or see `restante customer list`",
            DirectoryError::DomainTaken(..) => {
                "a domain belongs to one customer only; remove it there first"
            }
            DirectoryError::Outdated => "",
            DirectoryError::Missing => "see `restante customer list`",
        };
        Self::new(error.to_string(), mend)
    }
}

/// Takes the items of an answer, one after the other, at its own pace.
pub trait Items: Send {
    /// Takes one.
    ///
    /// # Errors
    /// Nobody wants more: the answer ends here.
    fn put(&mut self, item: Item) -> BoxFuture<'_, Result<(), Refused>>;

    /// What the asker sends behind a request that wants something, in chunks; nothing at the end.
    ///
    /// # Errors
    /// The asker gave up.
    fn take(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, Refused>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

impl Items for Vec<Item> {
    fn put(&mut self, item: Item) -> BoxFuture<'_, Result<(), Refused>> {
        self.push(item);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Does what is asked, and writes one line into the log if it changes anything; `who` is for that line.
///
/// # Errors
/// [`Refused`] names the cause and the mend; nothing was changed unless it says so.
pub async fn perform(
    office: &Office,
    who: &str,
    request: Request,
    items: &mut dyn Items,
) -> Result<Done, Refused> {
    let change = request.change();
    let answer = dispatch(office, request, items).await;
    if let Some(what) = change {
        match &answer {
            Ok(done) => {
                log::info!(target: TARGET, who = who, what = what, result = done.for_log(); "admin")
            }
            Err(refused) => {
                log::warn!(target: TARGET, who = who, what = what, result = refused.what.as_str(); "admin-refused")
            }
        }
    }
    answer
}

impl Done {
    /// In a word or two.
    fn for_log(&self) -> String {
        match self {
            Self::Count { messages } | Self::Bounced { messages, .. } => {
                format!("{messages} messages")
            }
            Self::Imported { id, is_new } => {
                format!("{id} {}", if *is_new { "taken" } else { "known" })
            }
            Self::Changed { result, .. } => result.clone(),
            _ => "done".into(),
        }
    }
}

async fn dispatch(
    office: &Office,
    request: Request,
    items: &mut dyn Items,
) -> Result<Done, Refused> {
    match request {
        Request::CustomerAdd { name, domains, password } => {
            customers::add(office, name, domains, password).await
        }
        Request::CustomerList => customers::list(office, items).await,
        Request::CustomerShow { name } => customers::show(office, &name).await,
        Request::CustomerPasswd { name, password } => {
            customers::passwd(office, &name, password).await
        }
        Request::CustomerSuspend { name, suspended } => {
            customers::suspend(office, &name, suspended).await
        }
        Request::CustomerRemove { name, discard_mail } => {
            customers::remove(office, &name, discard_mail).await
        }
        Request::CustomerSet { name, key, value, lines } => {
            customers::set(office, &name, &key, &value, lines.as_deref()).await
        }
        Request::CustomerUnset { name, key } => customers::unset(office, &name, &key).await,
        Request::CredentialAdd { name, label, password } => {
            logins::add(office, &name, &label, password).await
        }
        Request::CredentialList { name } => logins::list(office, &name, items).await,
        Request::CredentialRevoke { name, label } => logins::revoke(office, &name, &label).await,
        Request::DomainAdd { customer, domain } => domains::add(office, &customer, domain).await,
        Request::DomainRemove { customer, domain, discard_mail } => {
            domains::remove(office, customer.as_ref(), &domain, discard_mail).await
        }
        Request::DomainList { customer } => domains::list(office, customer.as_ref(), items).await,
        Request::QueueList { filter } => queue::list(office, &filter, items).await,
        Request::QueueShow { id, body } => queue::show(office, id, body, items).await,
        Request::QueueCount { filter } => queue::count(office, &filter).await,
        Request::QueueApply { filter, action } => queue::apply(office, &filter, action).await,
        Request::QueueBounce { filter } => queue::bounce(office, &filter).await,
        Request::QueueExport { filter } => exchange::export(office, &filter, items).await,
        Request::QueueImport { envelope } => exchange::import(office, &envelope, items).await,
        Request::Dump => upkeep::dumped(office, items).await,
        Request::StoreVerify => upkeep::verify(office, items).await,
        Request::StoreCompact => upkeep::compact(office, items).await,
        Request::Trace { want } => upkeep::trace(office, want, items).await,
        Request::Flush { domain } => flush(office, &domain).await,
        Request::Status => status::snapshot(office).await,
        Request::Examine => status::examine(office).await,
    }
}

async fn flush(office: &Office, domain: &Domain) -> Result<Done, Refused> {
    let waiting = etrn::flush(office, domain).await.map_err(|why| Refused::new(why, ""))?;
    let (result, note) = match waiting {
        0 => ("nothing to deliver", None),
        1 => ("delivery started", Some("1 message waits".to_owned())),
        many => ("delivery started", Some(format!("{many} messages wait"))),
    };
    Ok(Done::Changed { subject: domain.to_string(), result: result.to_owned(), note })
}
