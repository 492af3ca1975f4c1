//! Intake: is this mail ours, is there room, and when is it durable?
//!
//! Called by the desk for MAIL, RCPT, the content and its end. It takes mail for customers' domains only, never
//! as a relay (RFC 5321 §3.6.2), postmaster always (§4.5.1), and it answers with a queue id only after the store
//! has said that the message survives a power cut (§6.1).

use std::collections::HashMap;
use std::sync::Arc;

use super::office::Office;
use super::trace::Trace;
use crate::mail::{Customer, CustomerName, Domain, QueueId, RecipientPolicy, Timestamp};
use crate::smtp::{CommitRequest, ContentRequest, MailRequest, Receipt, RecipientRequest, Refusal};
use crate::store::{BodyWriter, NewMessage, StoreError};

/// One mail transaction after the other, on one session.
#[derive(Default)]
pub(super) struct Intake {
    owners: HashMap<Domain, Owner>,
    body: Option<Body>,
}

/// Whose a recipient is, and what that means for its message.
struct Owner {
    name: CustomerName,
    expires: Timestamp,
    message_bytes_max: u64,
}

/// A body on its way into the store.
struct Body {
    id: QueueId,
    writer: Box<dyn BodyWriter>,
    trace_bytes: u64,
    trouble: Option<Refusal>,
}

/// What the store's trouble means to the peer: always "later".
fn refusal_of(error: &StoreError) -> Refusal {
    match error {
        StoreError::Full(_) => Refusal::DiskFull,
        _ => Refusal::StoreTrouble,
    }
}

fn complain(what: &str, error: &StoreError) {
    let error = error.to_string();
    log::error!(target: super::ledger::TARGET, what = what, error = error; "store-trouble");
}

impl Intake {
    /// MAIL: room on the disk, a store that works.
    pub(super) async fn mail(
        &mut self,
        office: &Office,
        request: &MailRequest,
    ) -> Result<(), Refusal> {
        self.owners.clear();
        self.body = None;
        let health = office.health().await.map_err(|error| {
            complain("mail", &error);
            Refusal::StoreTrouble
        })?;
        if health.broken.is_some() {
            return Err(Refusal::StoreTrouble);
        }
        let needed = office.policy().disk_free_min.saturating_add(request.declared_size);
        match health.free_bytes {
            Some(free) if free < needed => Err(Refusal::DiskFull),
            _ => Ok(()),
        }
    }

    /// RCPT: a customer's domain, or our own postmaster; room in the customer's queue.
    pub(super) async fn recipient(
        &mut self,
        office: &Office,
        request: &RecipientRequest,
    ) -> Result<(), Refusal> {
        let domain = request.forward_path.domain().clone();
        let found = office.directory.owner(&domain).await.map_err(|error| {
            complain("recipient", &error);
            refusal_of(&error)
        })?;
        let policy = office.policy();
        let Some(customer) = found else {
            if domain != policy.hostname || !request.forward_path.is_postmaster() {
                return Err(Refusal::NotOurDomain);
            }
            let expires = office.world.now().after(policy.expire_after);
            let name = CustomerName::postmaster();
            self.owners.insert(domain, Owner { name, expires, message_bytes_max: u64::MAX });
            return Ok(());
        };
        admit(office, &customer, request).await?;
        let own = &customer.settings;
        let owner = Owner {
            name: customer.name.clone(),
            expires: office.world.now().after(own.expire_after.unwrap_or(policy.expire_after)),
            message_bytes_max: own.message_bytes_max.unwrap_or(u64::MAX),
        };
        self.owners.insert(domain, owner);
        Ok(())
    }

    /// DATA or the first BDAT: opens the body and writes the trace line.
    pub(super) async fn content<'t>(
        &mut self,
        office: &Office,
        trace: impl FnOnce(QueueId) -> Trace<'t>,
        request: &ContentRequest,
    ) -> Result<(), Refusal> {
        let id = office.next_id();
        let line = trace(id).received(request);
        let opened = async {
            let mut writer = office.store.begin_body(id, request.declared_size).await?;
            writer.write(line.as_bytes()).await?;
            Ok(writer)
        };
        let writer = opened.await.map_err(|error| {
            complain("content", &error);
            refusal_of(&error)
        })?;
        let trace_bytes = line.len() as u64;
        self.body = Some(Body { id, writer, trace_bytes, trouble: None });
        Ok(())
    }

    /// The next octets of the content. Trouble is kept for the end of data, where it becomes the reply.
    pub(super) async fn store(&mut self, chunk: &[u8]) {
        let Some(body) = self.body.as_mut().filter(|body| body.trouble.is_none()) else { return };
        if let Err(error) = body.writer.write(chunk).await {
            complain("content", &error);
            body.trouble = Some(refusal_of(&error));
        }
    }

    /// Forgets the body.
    pub(super) fn discard(&mut self) {
        self.body = None;
    }

    /// The end of data: durable in all its queues, or not taken at all.
    pub(super) async fn commit(
        &mut self,
        office: &Office,
        request: CommitRequest,
    ) -> Result<Receipt, Refusal> {
        let body = self.body.take().ok_or(Refusal::StoreTrouble)?;
        if let Some(refusal) = body.trouble {
            return Err(refusal);
        }
        let CommitRequest { envelope, mut facts } = request;
        let mut owners = Vec::with_capacity(envelope.recipients.len());
        let mut expires = Vec::with_capacity(envelope.recipients.len());
        for recipient in &envelope.recipients {
            // Every recipient passed `recipient` in this transaction; one that did not is our own fault.
            let domain = recipient.forward_path.domain();
            let owner = self.owners.get(domain).ok_or(Refusal::StoreTrouble)?;
            if facts.size > owner.message_bytes_max {
                return Err(Refusal::TooBigForRecipient);
            }
            owners.push(owner.name.clone());
            expires.push(owner.expires);
        }
        facts.size += body.trace_bytes;
        let receipt = Receipt { id: body.id, size: facts.size };
        let arrived = office.world.now();
        let message = NewMessage { id: body.id, envelope, owners, facts, arrived, expires };
        let durable = office.store.commit(message, body.writer).await;
        durable.map(|()| receipt).map_err(|error| {
            complain("commit", &error);
            refusal_of(&error)
        })
    }
}

/// The customer's own rules for one recipient.
async fn admit(
    office: &Office,
    customer: &Arc<Customer>,
    request: &RecipientRequest,
) -> Result<(), Refusal> {
    if customer.suspended {
        return Err(Refusal::Suspended);
    }
    let own = &customer.settings;
    if own.message_bytes_max.is_some_and(|most| request.declared_size > most) {
        return Err(Refusal::TooBigForRecipient);
    }
    if let Some(offers) = office.servers.of(&customer.name).and_then(|known| known.offers) {
        // What the customer's server said last: mail that it would refuse for ever need not be taken at all.
        if !offers.takes_size(request.declared_size) {
            return Err(Refusal::TooBigForRecipient);
        }
        if !offers.smtputf8 && !request.forward_path.is_ascii() {
            return Err(Refusal::ServerWithoutUtf8);
        }
    }
    if !request.forward_path.is_postmaster() && !is_listed(own.recipients.as_ref(), request) {
        return Err(Refusal::NoSuchRecipient);
    }
    if own.quota_bytes.is_none() && own.quota_messages.is_none() {
        return Ok(());
    }
    let usage = office.store.usage(&customer.name).await.map_err(|error| {
        complain("quota", &error);
        refusal_of(&error)
    })?;
    let bytes = usage.bytes.saturating_add(request.declared_size);
    let over = own.quota_bytes.is_some_and(|most| bytes > most || usage.bytes >= most)
        || own.quota_messages.is_some_and(|most| usage.messages >= most);
    if over { Err(Refusal::QuotaExceeded) } else { Ok(()) }
}

/// Whether the customer's list has this address: `local@domain` with the domain in normal form, or `@domain`.
fn is_listed(policy: Option<&RecipientPolicy>, request: &RecipientRequest) -> bool {
    let Some(RecipientPolicy::Listed(known)) = policy else { return true };
    let path = &request.forward_path;
    let whole = format!("{}@{}", path.local_part(), path.domain());
    known.contains(whole.as_str()) || known.contains(format!("@{}", path.domain()).as_str())
}
