//! MAIL and RCPT: the envelope.
//!
//! Called by the dispatch. What may be taken is the provider's decision; here is the form of the commands and
//! their order. A command that is refused changes nothing.
//!
//! Keeps RFC 5321 §3.3, §4.1.1.2, §4.1.1.3, §4.5.3.1.10 (452 for too many), RFC 1870 §6, RFC 9422 §3.

use super::phase::{Next, Parked, Phase, Transaction};
use super::talk::Talk;
use crate::mail::{Recipient, ReplyText};
use crate::smtp::param;
use crate::smtp::refusal::Refusal;
use crate::smtp::{MailRequest, Question, RecipientRequest};

/// MAIL.
pub(super) fn mail(argument: &str, phase: Phase, talk: &mut Talk<'_>) -> Next {
    let (hello, account) = match phase {
        Phase::Idle(hello) => (hello, None),
        Phase::Authenticated(hello, account) => (hello, Some(account)),
        phase => return talk.refuse(Refusal::BadSequence, phase),
    };
    let mail = match check_mail(argument, hello.is_esmtp, talk) {
        Ok(mail) => mail,
        Err(refusal) => {
            let phase = Phase::between(hello, account);
            return talk.refuse_noted(refusal, "MAIL", None, None, phase);
        }
    };
    if mail.has_space {
        talk.tolerate("a space after the colon of MAIL or RCPT");
    }
    let request = MailRequest {
        reverse_path: mail.reverse_path.clone(),
        declared_size: mail.parameters.size,
    };
    let transaction = Transaction {
        hello,
        reverse_path: mail.reverse_path,
        parameters: mail.parameters,
        recipients: Vec::new(),
        has_refused: false,
        account,
    };
    Next::park(Parked::Mail(transaction), Question::Mail(request), talk)
}

fn check_mail(argument: &str, is_esmtp: bool, talk: &Talk<'_>) -> Result<param::Mail, Refusal> {
    let mail = param::mail(argument, is_esmtp)?;
    let limit = talk.common.terms.message_bytes_max;
    if limit != 0 && mail.parameters.size > limit {
        return Err(Refusal::TooBig);
    }
    Ok(mail)
}

/// The provider has decided on MAIL.
pub(super) fn mail_judged(
    transaction: Transaction,
    verdict: Result<(), Refusal>,
    talk: &mut Talk<'_>,
) -> Next {
    match verdict {
        Ok(()) => {
            talk.line(250, (2, 1, 0), "Ok");
            Next::Go(Phase::Transaction(Box::new(transaction)))
        }
        Err(refusal) => {
            let from = Some(transaction.reverse_path.to_string());
            let phase = Phase::between(transaction.hello, transaction.account);
            talk.refuse_noted(refusal, "MAIL", from, None, phase)
        }
    }
}

/// RCPT.
pub(super) fn rcpt(argument: &str, phase: Phase, talk: &mut Talk<'_>) -> Next {
    let Phase::Transaction(mut transaction) = phase else {
        return talk.refuse(Refusal::BadSequence, phase);
    };
    let (recipient, has_space) = match check_rcpt(argument, &transaction, talk) {
        Ok(checked) => checked,
        Err(refusal) => {
            transaction.has_refused = true;
            let from = Some(transaction.reverse_path.to_string());
            let phase = Phase::Transaction(transaction);
            let to = Some(ReplyText::clean(argument).as_str().to_owned());
            return talk.refuse_noted(refusal, "RCPT", from, to, phase);
        }
    };
    if has_space {
        talk.tolerate("a space after the colon of MAIL or RCPT");
    }
    let request = RecipientRequest {
        forward_path: recipient.forward_path.clone(),
        declared_size: transaction.parameters.size,
        body: transaction.parameters.body,
        smtputf8: transaction.parameters.smtputf8,
    };
    Next::park(Parked::Recipient(*transaction, recipient), Question::Recipient(request), talk)
}

fn check_rcpt(
    argument: &str,
    transaction: &Transaction,
    talk: &Talk<'_>,
) -> Result<(Recipient, bool), Refusal> {
    let terms = &talk.common.terms;
    let is_esmtp = transaction.hello.is_esmtp;
    let smtputf8 = transaction.parameters.smtputf8;
    let checked = param::rcpt(argument, is_esmtp, smtputf8, &terms.hostname)?;
    if transaction.recipients.len() >= terms.recipients_max {
        return Err(Refusal::TooManyRecipients);
    }
    Ok(checked)
}

/// The provider has decided on RCPT.
pub(super) fn rcpt_judged(
    mut transaction: Transaction,
    recipient: Recipient,
    verdict: Result<(), Refusal>,
    talk: &mut Talk<'_>,
) -> Next {
    match verdict {
        Ok(()) => {
            transaction.recipients.push(recipient);
            talk.line(250, (2, 1, 5), "Ok");
            Next::Go(Phase::Transaction(Box::new(transaction)))
        }
        Err(refusal) => {
            transaction.has_refused = true;
            let from = Some(transaction.reverse_path.to_string());
            let to = Some(recipient.forward_path.to_string());
            let phase = Phase::Transaction(Box::new(transaction));
            talk.refuse_noted(refusal, "RCPT", from, to, phase)
        }
    }
}
