//! ETRN: a customer with a fixed host asks for its queue to be started.
//!
//! Called by the dispatch. The answer comes at once; the delivery goes over another connection, to the host that
//! the operator has set for the customer, and is none of this session's business.
//!
//! Keeps RFC 1985 §5 to §5.3 and §7. Login is not in RFC 1985; 530 is that of RFC 4954 §6 and RFC 3207 §4.

use super::phase::{Hello, Next, Parked, Phase};
use super::talk::Talk;
use crate::mail::{Account, Fact};
use crate::smtp::etrn;
use crate::smtp::refusal::Refusal;
use crate::smtp::{EtrnRequest, Question};

/// ETRN.
pub(super) fn etrn(argument: &str, phase: Phase, talk: &mut Talk<'_>) -> Next {
    if phase.is_in_transaction() {
        return talk.refuse(Refusal::BadSequence, phase);
    }
    let node = match etrn::read(argument) {
        Ok(node) => node,
        Err(refusal) => return talk.refuse(refusal, phase),
    };
    if talk.common.tls.is_none() {
        return talk.refuse(Refusal::TlsFirst, phase);
    }
    let Phase::Authenticated(hello, account) = phase else {
        return talk.refuse(Refusal::LoginFirst, phase);
    };
    let request = EtrnRequest { account: (*account).clone(), node };
    let said = argument.trim().to_owned();
    Next::park(Parked::Etrn(hello, account, said), Question::Etrn(request), talk)
}

/// The provider has started the queue, or not.
pub(super) fn judged(
    hello: Hello,
    account: Box<Account>,
    node: &str,
    outcome: Result<u64, Refusal>,
    talk: &mut Talk<'_>,
) -> Next {
    let customer = account.login.customer.clone();
    let reply = match outcome {
        Ok(0) => (251, format!("OK, no messages waiting for node {node}")),
        Ok(1) => (253, format!("OK, 1 pending message for node {node} started")),
        Ok(count) => (253, format!("OK, {count} pending messages for node {node} started")),
        Err(refusal) => {
            let reply = refusal.reply().summary();
            talk.note(Fact::Etrn { customer, node: node.to_owned(), reply });
            return talk.refuse_counted(refusal, Phase::Authenticated(hello, account));
        }
    };
    let (code, text) = reply;
    talk.note(Fact::Etrn { customer, node: node.to_owned(), reply: format!("{code} {text}") });
    talk.line(code, (2, 0, 0), text);
    Next::Go(Phase::Authenticated(hello, account))
}
