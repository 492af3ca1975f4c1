//! Messages out of the queue with all that is known of them, and into it again.
//!
//! Called for `queue export` and `queue import`. An envelope is what stands in the file beside a message; a field,
//! once shipped, keeps its name. What comes in is somebody's file: it is checked like mail from a stranger, and
//! whose it is, is decided by today's customers.

use super::view;
use super::{Done, Item, Items, Refused, Select, queue};
use crate::mail::{
    BodyKind, CustomerName, DsnRequest, Envelope, ForwardPath, Notify, QueueId, Recipient,
    RecipientState, ReplyText, Ret, ReversePath, Timestamp,
};
use crate::provider::Office;
use crate::provider::rounds::Flush;
use crate::smtp::Refusal;
use crate::smtp::data::Content;
use crate::store::{Archived, Filter, Head, HeldRecipient, Position, StoreError};

/// The envelope of an exported message. Only `reverse_path` and the addresses must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exported {
    /// Its id; without one it gets a new one.
    #[serde(default)]
    pub id: Option<QueueId>,
    /// Where reports go; empty for the null reverse-path.
    pub reverse_path: String,
    /// Its recipients, as far as they were meant.
    pub forward_paths: Vec<ExportedPath>,
    /// When it arrived, RFC 3339.
    #[serde(default)]
    pub queued_at: Option<String>,
    /// Octets of content.
    #[serde(default)]
    pub size: Option<u64>,
    /// BODY= of MAIL: `7bit` or `8bitmime`.
    #[serde(default)]
    pub body: Body,
    /// Whether MAIL carried SMTPUTF8.
    #[serde(default)]
    pub smtputf8: bool,
    /// ENVID= of MAIL, in xtext.
    #[serde(default)]
    pub envid: Option<String>,
    /// RET= of MAIL: `full` or `hdrs`.
    #[serde(default)]
    pub ret: Option<Return>,
}

/// BODY=
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// No parameter, or 7BIT.
    #[default]
    #[serde(rename = "7bit")]
    SevenBit,
    /// 8BITMIME.
    #[serde(rename = "8bitmime")]
    EightBitMime,
}

/// RET=
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Return {
    /// The whole message.
    Full,
    /// Its header section.
    Hdrs,
}

/// One recipient in an envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExportedPath {
    /// The address.
    pub address: String,
    /// Whose it was. Import looks it up anew; only `relay`, mail to foreign hosts, is believed.
    #[serde(default)]
    pub customer: Option<CustomerName>,
    /// `queued`, `deferred`, `failed` or `relayed`.
    #[serde(default)]
    pub state: Word,
    /// The last reply of the customer's server.
    #[serde(default)]
    pub reply: Option<String>,
    /// Held by the operator.
    #[serde(default)]
    pub held: bool,
    /// How often it was offered.
    #[serde(default)]
    pub attempts: u32,
    /// When it is given up, RFC 3339; without it, as for new mail.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// NOTIFY= of RCPT: `success`, `failure`, `delay`; the empty list is NEVER, null that it was absent.
    #[serde(default)]
    pub notify: Option<Vec<Event>>,
    /// ORCPT= of RCPT, in xtext.
    #[serde(default)]
    pub orcpt: Option<String>,
}

/// A recipient's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Waiting, never refused.
    #[default]
    Queued,
    /// Waiting after a 4xx.
    Deferred,
    /// Refused for good, its report owed.
    Failed,
    /// Delivered, the report of it owed.
    Relayed,
}

/// A word of NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// Report delivery.
    Success,
    /// Report failure.
    Failure,
    /// Report delay.
    Delay,
}

impl Exported {
    fn of(head: &Head) -> Self {
        let envelope = &head.envelope;
        Self {
            id: Some(head.id),
            reverse_path: envelope.reverse_path.as_str().to_owned(),
            forward_paths: head.recipients.iter().map(ExportedPath::of).collect(),
            queued_at: Some(head.arrived.rfc3339()),
            size: Some(head.facts.size),
            body: match envelope.body {
                BodyKind::SevenBit => Body::SevenBit,
                BodyKind::EightBitMime => Body::EightBitMime,
            },
            smtputf8: envelope.smtputf8,
            envid: envelope.dsn.envid.as_deref().map(str::to_owned),
            ret: envelope.dsn.ret.map(|ret| match ret {
                Ret::Full => Return::Full,
                Ret::Headers => Return::Hdrs,
            }),
        }
    }

    fn envelope(&self) -> Result<Envelope, Refused> {
        let reverse_path = ReversePath::parse(&self.reverse_path)
            .map_err(|why| wrong(format!("reverse_path {}: {why}", self.reverse_path)))?;
        let ret = self.ret.map(|ret| match ret {
            Return::Full => Ret::Full,
            Return::Hdrs => Ret::Headers,
        });
        Ok(Envelope {
            reverse_path,
            recipients: Vec::new(),
            body: match self.body {
                Body::SevenBit => BodyKind::SevenBit,
                Body::EightBitMime => BodyKind::EightBitMime,
            },
            smtputf8: self.smtputf8,
            dsn: DsnRequest { envid: self.envid.as_deref().map(Into::into), ret },
        })
    }
}

impl ExportedPath {
    fn of(held: &HeldRecipient) -> Self {
        let (state, reply) = match &held.state {
            RecipientState::Queued => (Word::Queued, None),
            RecipientState::Deferred(reply) => (Word::Deferred, Some(reply)),
            RecipientState::Failed(reply) => (Word::Failed, Some(reply)),
            RecipientState::Relayed(reply) => (Word::Relayed, Some(reply)),
        };
        let events = |wish: Notify| {
            let all = [
                (wish.success, Event::Success),
                (wish.failure, Event::Failure),
                (wish.delay, Event::Delay),
            ];
            all.into_iter().filter_map(|(wanted, event)| wanted.then_some(event)).collect()
        };
        Self {
            address: held.recipient.forward_path.as_str().to_owned(),
            customer: Some(held.owner.clone()),
            state,
            reply: reply.map(|reply| reply.as_str().to_owned()),
            held: held.held,
            attempts: held.attempts,
            expires_at: Some(held.expires.rfc3339()),
            notify: held.recipient.notify.map(events),
            orcpt: held.recipient.orcpt.as_deref().map(str::to_owned),
        }
    }

    /// The recipient in today's directory.
    async fn held(&self, office: &Office, index: u32) -> Result<HeldRecipient, Refused> {
        let forward_path = ForwardPath::parse(&self.address)
            .map_err(|why| wrong(format!("forward_path {}: {why}", self.address)))?;
        let policy = office.policy();
        let domain = forward_path.domain();
        let found = office.directory.owner(domain).await?;
        let own = found.as_ref().and_then(|customer| customer.settings.expire_after);
        let owner = match &found {
            Some(customer) => customer.name.clone(),
            None if self.customer == Some(CustomerName::relay()) => CustomerName::relay(),
            None if *domain == policy.hostname && forward_path.is_postmaster() => {
                CustomerName::postmaster()
            }
            None => {
                let mend = format!("give it to one: restante domain add CUSTOMER {domain}");
                return Err(Refused::new(format!("the domain {domain} is no customer's"), mend));
            }
        };
        let reply = ReplyText::clean(self.reply.as_deref().unwrap_or_default());
        let expires = match &self.expires_at {
            Some(text) => time("expires_at", text)?,
            None => office.world.now().after(own.unwrap_or(policy.expire_after)),
        };
        let notify = self.notify.as_ref().map(|events| Notify {
            success: events.contains(&Event::Success),
            failure: events.contains(&Event::Failure),
            delay: events.contains(&Event::Delay),
        });
        Ok(HeldRecipient {
            index,
            recipient: Recipient {
                notify,
                orcpt: self.orcpt.as_deref().map(Into::into),
                forward_path,
            },
            owner,
            state: match self.state {
                Word::Queued => RecipientState::Queued,
                Word::Deferred => RecipientState::Deferred(reply),
                Word::Failed => RecipientState::Failed(reply),
                Word::Relayed => RecipientState::Relayed(reply),
            },
            held: self.held,
            expires,
            attempts: self.attempts,
        })
    }
}

fn wrong(what: String) -> Refused {
    Refused::new(what, "mend the envelope beside the message")
}

fn time(field: &str, text: &str) -> Result<Timestamp, Refused> {
    let read = Timestamp::parse_rfc3339(text);
    read.ok_or_else(|| wrong(format!("{field} {text} is no time of RFC 3339")))
}

/// Gives each message meant: its envelope, then its content. One that is delivered meanwhile is left out.
pub(super) async fn export(
    office: &Office,
    select: &Select,
    items: &mut dyn Items,
) -> Result<Done, Refused> {
    let mut messages = 0;
    let mut pages = queue::Pages::new(office, select);
    while let Some(page) = pages.next().await? {
        for head in &page {
            let mut reader = match office.store.open_body(head.id, 0).await {
                Ok(reader) => reader,
                Err(StoreError::Missing) => continue,
                Err(StoreError::Corrupt(id)) => {
                    items.put(Item::Spoiled(id)).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            items.put(Item::Envelope(Box::new(Exported::of(head)))).await?;
            messages += 1;
            loop {
                match reader.read().await {
                    Ok(chunk) if chunk.is_empty() => break,
                    Ok(chunk) => items.put(Item::Body(chunk.into())).await?,
                    Err(StoreError::Corrupt(id)) => {
                        messages -= 1;
                        items.put(Item::Spoiled(id)).await?;
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(Done::Count { messages })
}

/// Takes one message in, with the states of its recipients.
pub(super) async fn import(
    office: &Office,
    envelope: &Exported,
    items: &mut dyn Items,
) -> Result<Done, Refused> {
    let id = envelope.id.unwrap_or_else(|| office.next_id());
    let only = Filter { ids: vec![id], ..Filter::default() };
    if let Some(there) = office.store.query(only, None, 1).await?.first() {
        is_the_same(envelope, there)?;
        return Ok(Done::Imported { id, is_new: false });
    }
    let arrived = match &envelope.queued_at {
        Some(text) => time("queued_at", text)?,
        None => office.world.now(),
    };
    let mut recipients = Vec::new();
    for (index, path) in (0..).zip(&envelope.forward_paths) {
        recipients.push(path.held(office, index).await?);
    }
    let mut writer = office.store.begin_body(id, envelope.size.unwrap_or(0)).await?;
    let mut content = Content::new(0, u32::MAX);
    while let Some(octets) = items.take().await? {
        content.look(&octets);
        writer.write(&octets).await?;
    }
    let facts = content.finish().map_err(|refusal| {
        let what = match refusal {
            Refusal::ContentLine => "a line has more than 64 KiB",
            _ => "it has a CR without LF, or a NUL",
        };
        Refused::new(format!("the content cannot be kept: {what}"), "mend it, and import it again")
    })?;
    if let Some(size) = envelope.size.filter(|size| *size > facts.size) {
        let what =
            format!("it has {} octets, and its envelope says {size}: it was cut off", facts.size);
        return Err(Refused::new(
            what,
            "import the whole message, or correct `size` in its envelope",
        ));
    }
    let position = Position { rank: 0, id };
    let head = Head {
        id,
        envelope: envelope.envelope()?,
        recipients,
        facts,
        arrived,
        line_breaks: 0,
        position,
    };
    let flushes: Vec<Flush> = head
        .recipients
        .iter()
        .filter(|held| held.owner == CustomerName::relay())
        .map(|held| Flush {
            customer: held.owner.clone(),
            domain: held.recipient.forward_path.domain().clone(),
            by_hand: false,
        })
        .collect();
    let message = Archived::of(head).map_err(|why| wrong(why.to_string()))?;
    office.store.enter(message, writer).await?;
    office.owed.ring(id);
    flushes.into_iter().for_each(|flush| office.outgoing.ring(flush));
    Ok(Done::Imported { id, is_new: true })
}

/// A message whose id is in the queue already must not bring recipients whom that one does not have: an export by
/// domain keeps the id, and holds the recipients of that domain only.
fn is_the_same(envelope: &Exported, there: &Head) -> Result<(), Refused> {
    let has = |address: &str| {
        let mut all = there.recipients.iter().map(|held| held.recipient.forward_path.as_str());
        all.any(|one| one.eq_ignore_ascii_case(address))
    };
    match envelope.forward_paths.iter().find(|path| !has(&path.address)) {
        None => Ok(()),
        Some(path) => Err(Refused::new(
            format!(
                "message {} is in the queue, and {} is not, or no more, among its recipients",
                there.id, path.address
            ),
            "to bring it to that recipient all the same, take `id` out of the envelope and import it again",
        )),
    }
}

/// What the asker sends after `queue import`, in chunks.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sent {
    /// The next octets.
    Octets(#[serde(with = "view::octets")] Vec<u8>),
    /// There are no more.
    End,
    /// There will be no end: forget it.
    Abort,
}
