//! ATRN: the customer asks for its mail and the roles reverse.
//!
//! Called by the dispatch when ATRN comes. Asks the provider for a [`Lease`]; with one in hand it ends the session
//! and leaves a [`Reversal`]. It never sends mail and never looks into the queue.
//!
//! Keeps RFC 2645 §5.2.1 (the command), §5.3 (reversed state) and §7 (reply codes), RFC 2920 §3.1 (ATRN ends a
//! pipelined group: octets behind it would be read as the greeting).
//!
//! Deviation: white space around commas and a trailing dot are read, since published examples have them; an old
//! client should not fail for it.

use super::phase::{Hello, Next, Parked, Phase};
use super::talk::Talk;
use crate::mail::{Account, Domain, Fact, Lease, TlsFacts};
use crate::smtp::refusal::Refusal;
use crate::smtp::{Action, Question, TurnRequest};

/// All that is left of a session whose roles reversed: whose mail may flow, and what is known of the TLS layer,
/// which stays up. Made only here, with nothing left unread behind the ATRN line.
#[derive(Debug)]
#[must_use = "a dropped reversal leaves its lease to the clock"]
pub struct Reversal {
    lease: Lease,
    tls: Option<TlsFacts>,
}

impl Reversal {
    pub(super) fn new(lease: Lease, tls: Option<TlsFacts>) -> Self {
        Self { lease, tls }
    }

    /// For the reversed wire.
    pub fn into_parts(self) -> (Lease, Option<TlsFacts>) {
        (self.lease, self.tls)
    }
}

/// ATRN.
pub(super) fn atrn(argument: &str, phase: Phase, talk: &mut Talk<'_>) -> Next {
    let Phase::Authenticated(hello, account) = phase else {
        return talk.refuse(Refusal::LoginFirst, phase);
    };
    match check(argument, &account, talk) {
        Ok(list) => {
            if !list.is_strict {
                talk.tolerate("ATRN with white space around commas or a trailing dot");
            }
            let account_of = (*account).clone();
            let question =
                Question::Turn(TurnRequest { account: account_of, domains: list.domains });
            Next::park(Parked::Turn(hello, account), question, talk)
        }
        Err(refusal) => {
            note_refused(&account, refusal, talk);
            talk.refuse(refusal, Phase::Authenticated(hello, account))
        }
    }
}

/// The list of ATRN.
#[derive(Debug, PartialEq, Eq)]
struct List {
    /// In the order given, each once.
    domains: Vec<Domain>,
    /// Whether it was written as RFC 2645 §5.2.1 has it.
    is_strict: bool,
}

fn check(argument: &str, account: &Account, talk: &Talk<'_>) -> Result<List, Refusal> {
    if account.require_tls && talk.common.tls.is_none() {
        return Err(Refusal::TlsFirst);
    }
    let list = read(argument)?;
    if talk.common.inbox.is_empty() { Ok(list) } else { Err(Refusal::TooEarly) }
}

/// Reads `domain[,domain]…`; nothing means all of the customer's.
fn read(argument: &str) -> Result<List, Refusal> {
    let mut list = List { domains: Vec::new(), is_strict: true };
    if argument.is_empty() {
        return Ok(list);
    }
    let mut seen = std::collections::HashSet::new();
    for member in argument.split(',') {
        let name = member.trim_matches([' ', '\t']);
        list.is_strict &= name.len() == member.len() && !name.ends_with('.');
        let domain = name.is_ascii().then(|| Domain::parse(name)).and_then(Result::ok);
        let domain = domain.filter(Domain::has_two_labels).ok_or(Refusal::Syntax)?;
        if seen.insert(domain.clone()) {
            list.domains.push(domain);
        }
    }
    Ok(list)
}

/// The provider has given the lease, or not.
pub(super) fn judged(
    hello: Hello,
    account: Box<Account>,
    outcome: Result<(Lease, u64), Refusal>,
    talk: &mut Talk<'_>,
) -> Next {
    let (lease, waiting) = match outcome {
        Ok(granted) => granted,
        Err(refusal) => {
            note_refused(&account, refusal, talk);
            return talk.refuse(refusal, Phase::Authenticated(hello, account));
        }
    };
    let refusal = if talk.common.is_stopping {
        Some(Refusal::ShuttingDown)
    } else if talk.common.inbox.is_empty() {
        None
    } else {
        // They came while the turn was being decided, and cannot be the greeting: no 250 was out.
        Some(Refusal::TooEarly)
    };
    if let Some(refusal) = refusal {
        talk.out.push(Action::Release(lease));
        note_refused(&account, refusal, talk);
        return talk.refuse(refusal, Phase::Authenticated(hello, account));
    }
    talk.note(Fact::Turn {
        customer: lease.customer().clone(),
        domains: lease.domains().to_vec(),
        waiting,
    });
    // One line, whatever comes: old clients read exactly one.
    talk.okay("OK now reversing the connection");
    Next::Reverse(lease)
}

fn note_refused(account: &Account, refusal: Refusal, talk: &mut Talk<'_>) {
    let customer = account.login.customer.clone();
    talk.note(Fact::TurnRefused { customer, reply: refusal.reply().summary() });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains(argument: &str) -> Result<(Vec<String>, bool), Refusal> {
        read(argument)
            .map(|list| (list.domains.iter().map(ToString::to_string).collect(), list.is_strict))
    }

    // covers: O-16, O-23, D-01
    #[test]
    fn lists_that_are_read() {
        let two = || vec!["example.org".to_owned(), "example.com".to_owned()];
        assert_eq!(domains(""), Ok((vec![], true)));
        assert_eq!(domains("example.org,example.com"), Ok((two(), true)));
        assert_eq!(domains("Example.ORG,example.com,EXAMPLE.org"), Ok((two(), true)));
        for loose in
            ["example.org, example.com", " example.org ,\texample.com", "example.org.,example.com"]
        {
            assert_eq!(domains(loose), Ok((two(), false)), "{loose}");
        }
        assert_eq!(
            domains("xn--bcher-kva.example"),
            Ok((vec!["xn--bcher-kva.example".into()], true))
        );
    }

    // covers: O-23, D-01
    #[test]
    fn lists_that_are_refused() {
        for bad in [
            "localhost",
            "example.org,,example.com",
            ",example.org",
            "example.org,",
            "example.org example.com",
            "example..org",
            "-a.example",
            "a-.example",
            "a_b.example",
            "@example.org",
            "#queue.example",
            "[192.0.2.1]",
            "*",
            "%",
            "example.org:25",
            "bücher.example",
            "xn--example-.org",
            "example.org.xn--",
            "' OR '1'='1",
            "x'; DROP TABLE q;--",
        ] {
            assert_eq!(domains(bad), Err(Refusal::Syntax), "{bad}");
        }
    }
}
