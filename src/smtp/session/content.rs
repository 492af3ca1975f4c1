//! DATA: content up to the dot, and the end of every transaction.
//!
//! Called by the dispatch, by the session for each piece of content, and by BDAT for the commit. It hands the
//! content on piece by piece and keeps none. What has a fault is read to its true end and refused there, so that
//! no part of it is ever taken for a command.
//!
//! Keeps RFC 5321 §4.1.1.4, §4.2.5 (250 only for what is durable), §6.1; RFC 1870 §6.1; RFC 3030 §2.

use super::phase::{Data, Finished, Next, Parked, Phase, Transaction};
use super::talk::Talk;
use crate::mail::{Envelope, Fact};
use crate::smtp::data::{Content, Dots};
use crate::smtp::refusal::Refusal;
use crate::smtp::reply::Reply;
use crate::smtp::{Action, CommitRequest, ContentRequest, Question, Receipt};

/// DATA.
pub(super) fn data(phase: Phase, talk: &mut Talk<'_>) -> Next {
    let Phase::Transaction(transaction) = phase else {
        return talk.refuse(Refusal::BadSequence, phase);
    };
    if let Err(refusal) = check_recipients(&transaction) {
        return talk.refuse(refusal, Phase::Transaction(transaction));
    }
    let question = Question::Content(request(&transaction));
    Next::park(Parked::Data(*transaction), question, talk)
}

/// Whether content may follow.
pub(super) fn check_recipients(transaction: &Transaction) -> Result<(), Refusal> {
    match transaction.recipients.len() {
        0 if transaction.has_refused => Err(Refusal::NoValidRecipients),
        0 => Err(Refusal::BadSequence),
        _ => Ok(()),
    }
}

/// What the trace line needs.
pub(super) fn request(transaction: &Transaction) -> ContentRequest {
    let only_recipient = match transaction.recipients.as_slice() {
        [only] => Some(only.forward_path.clone()),
        _ => None,
    };
    ContentRequest {
        helo: transaction.hello.name.clone(),
        is_esmtp: transaction.hello.is_esmtp,
        smtputf8: transaction.parameters.smtputf8,
        only_recipient,
        declared_size: transaction.parameters.size,
    }
}

/// Content that begins now.
pub(super) fn new_content(talk: &Talk<'_>) -> Content {
    Content::new(talk.common.terms.message_bytes_max, talk.common.terms.received_max)
}

/// The provider has opened a body for DATA, or not.
pub(super) fn opened(
    transaction: Transaction,
    verdict: Result<(), Refusal>,
    talk: &mut Talk<'_>,
) -> Next {
    match verdict {
        Ok(()) => {
            talk.say(&Reply::bare(
                354,
                vec!["Send the message, end with a line of one dot".into()],
            ));
            let content = new_content(talk);
            Next::Go(Phase::Data(Box::new(Data { transaction, dots: Dots::default(), content })))
        }
        Err(refusal) => {
            let from = Some(transaction.reverse_path.to_string());
            let phase = Phase::Transaction(Box::new(transaction));
            talk.refuse_noted(refusal, "DATA", from, None, phase)
        }
    }
}

/// Takes what has come; gives the phase back if the end has not.
pub(super) fn take(mut data: Box<Data>, talk: &mut Talk<'_>) -> Result<Next, Box<Data>> {
    let waiting = talk.common.inbox.waiting();
    if waiting.is_empty() {
        return Err(data);
    }
    let mut piece = Vec::with_capacity(waiting.len());
    let (used, is_end) = data.dots.read(waiting, &mut piece);
    talk.common.inbox.consume(used);
    store(&mut data.content, piece, talk);
    if !is_end {
        return Err(data);
    }
    let Data { transaction, content, .. } = *data;
    Ok(finish(transaction, content, talk))
}

/// Looks at a piece of content and hands it on, unless the message has a fault already.
pub(super) fn store(content: &mut Content, piece: Vec<u8>, talk: &mut Talk<'_>) {
    if piece.is_empty() {
        return;
    }
    let was_sound = content.fault().is_none();
    content.look(&piece);
    if was_sound {
        let is_sound = content.fault().is_none();
        talk.out.push(if is_sound { Action::Store(piece) } else { Action::Discard });
    }
}

/// The content is complete: commit it, or say why not.
pub(super) fn finish(transaction: Transaction, content: Content, talk: &mut Talk<'_>) -> Next {
    let was_discarded = content.fault().is_some();
    let Transaction { hello, reverse_path, parameters, recipients, account, .. } = transaction;
    let facts = match content.finish() {
        Ok(facts) => facts,
        Err(refusal) => {
            if !was_discarded {
                talk.out.push(Action::Discard);
            }
            let from = Some(reverse_path.to_string());
            let phase = Phase::between(hello, account);
            return talk.refuse_noted(refusal, "content", from, None, phase);
        }
    };
    let finished = Finished {
        hello,
        reverse_path: reverse_path.clone(),
        recipients: recipients.iter().map(|one| one.forward_path.clone()).collect(),
        account,
    };
    let envelope = Envelope {
        reverse_path,
        recipients,
        body: parameters.body,
        smtputf8: parameters.smtputf8,
        dsn: parameters.dsn,
    };
    let question = Question::Commit(Box::new(CommitRequest { envelope, facts }));
    Next::park(Parked::Commit(finished), question, talk)
}

/// The message is durable, or it does not exist.
pub(super) fn committed(
    finished: Finished,
    outcome: Result<Receipt, Refusal>,
    talk: &mut Talk<'_>,
) -> Next {
    let Finished { hello, reverse_path, recipients, account } = finished;
    let phase = Phase::between(hello, account);
    let from = reverse_path.to_string();
    match outcome {
        Ok(Receipt { id, size }) => {
            talk.okay(format!("Ok: queued as {id}"));
            talk.forgive();
            talk.note(Fact::Accepted { id, from, to: recipients, size });
            Next::Go(phase)
        }
        Err(refusal) => {
            talk.out.push(Action::Discard);
            talk.refuse_noted(refusal, "content", Some(from), None, phase)
        }
    }
}
