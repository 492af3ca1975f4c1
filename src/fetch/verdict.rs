//! How a call ended, what that means for a script, and what its reader can do about it.
//!
//! Made by the call. The words for people stand here and nowhere else.

use crate::smtp::caller::{Ending, Offers, Stage};
use crate::smtp::sender::PeerReply;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Mail came, or the provider had none after all.
    Collected,
    /// 453: none was waiting.
    NoMail,
    /// A dry run came up to ATRN; this is offered.
    Offered(Box<Offers>),
    /// A stop was ordered and carried out.
    Stopped,
    /// Nothing is lost, a later call may do better.
    Later(Trouble),
    /// Asking again will not help; somebody has to change something.
    Refused(Trouble),
}

/// A cause and its mend, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What happened.
    pub cause: String,
    /// What can be done.
    pub mend: &'static str,
}

impl Trouble {
    pub(super) fn new(cause: impl Into<String>, mend: &'static str) -> Self {
        Self { cause: cause.into(), mend }
    }
}

impl Verdict {
    /// The exit status of section 6 of the interface: 0, 75 or 1.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Collected | Self::NoMail | Self::Offered(_) | Self::Stopped => 0,
            Self::Later(_) => 75,
            Self::Refused(_) => 1,
        }
    }

    /// One word for JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Collected => "collected",
            Self::NoMail => "no-mail",
            Self::Offered(_) => "offered",
            Self::Stopped => "stopped",
            Self::Later(_) => "later",
            Self::Refused(_) => "refused",
        }
    }

    /// What went wrong, if something did.
    #[must_use]
    pub fn trouble(&self) -> Option<&Trouble> {
        match self {
            Self::Later(trouble) | Self::Refused(trouble) => Some(trouble),
            _ => None,
        }
    }

    /// What the end of a negotiation means.
    pub(super) fn of(ending: Ending) -> Self {
        let later = |cause: String, mend| Self::Later(Trouble::new(cause, mend));
        let refused = |cause: String, mend| Self::Refused(Trouble::new(cause, mend));
        match ending {
            Ending::NoMail(_) => Self::NoMail,
            Ending::Left => Self::Stopped,
            Ending::Refused(stage, reply) => refusal(stage, &reply),
            Ending::NoStartTls => refused(
                "the provider does not offer STARTTLS".into(),
                "use --tls implicit with the provider's TLS port; --tls none sends everything in clear text",
            ),
            Ending::NoMechanism(offered) => refused(
                format!("no login mechanism in common; offered: {}", list(&offered)),
                "allow one with --mechanism, give --password-file or --certificate; PLAIN needs TLS",
            ),
            Ending::Injected => refused(
                "clear text came behind the reply to STARTTLS".into(),
                "somebody between here and the provider interferes, or its server is broken; use --tls implicit",
            ),
            Ending::Login(fault) => refused(
                format!("the login cannot be carried through: {fault}"),
                "check user and password; if they are right, this may not be your provider",
            ),
            Ending::Garbled(stage, fault) => later(
                format!("after {stage}: {fault}"),
                "check host and port; behind a TLS port use --tls implicit",
            ),
            Ending::Lost(stage) => later(
                format!("the provider closed the connection before its reply to {stage}"),
                "try again; if it stays so, look at the provider's log",
            ),
            Ending::Silent(stage) => later(
                format!("no reply to {stage} in time"),
                "try again; if it stays so, look for a firewall in between",
            ),
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(" ") }
}

/// What a refusing reply means: 4yz and lost connections come right by themselves, except 450 to ATRN, which says
/// that the login may not have these domains (RFC 2645 §5.2.1), unless the enhanced code says "too often".
fn refusal(stage: Stage, reply: &PeerReply) -> Verdict {
    let cause = format!("{stage} refused: {}", reply.said());
    let is_too_often = reply.enhanced() == Some("4.7.0");
    let (is_later, mend) = match (stage, reply.code) {
        (Stage::Turn, 450) if is_too_often => (true, "call less often: raise --every"),
        (Stage::Turn, 450) => (
            false,
            "one of the domains is not this login's, or you call too often: check --domain, or leave it away",
        ),
        (Stage::Turn, 451) => (
            true,
            "the provider cannot look now, or another connection collects this mail; try later",
        ),
        (Stage::Turn, 500 | 502) => {
            (false, "this server or port has no ATRN: use the provider's ODMR port, usually 366")
        }
        (Stage::Turn, 530) => {
            (false, "the provider wants TLS or another login first: do not use --tls none")
        }
        (Stage::Turn, 501 | 503) => (false, "leave --domain away, or list fewer domains"),
        (Stage::Login, 535) => (false, "check user and password; the account may be suspended"),
        (Stage::Login, 534 | 538) => (false, "the mechanism is too weak for the provider"),
        (Stage::Login, 504) => (false, "choose another --mechanism"),
        (Stage::Hello | Stage::Login, 530) => {
            (false, "the provider wants TLS: do not use --tls none")
        }
        (Stage::Hello, 500..=559) => (false, "this is no ESMTP server: check host and port"),
        (Stage::Greeting, 500..=559) => (false, "the provider does not serve this address"),
        (_, 421) => (true, "the provider is busy or stops; try later"),
        (_, 400..=499) => (true, "the provider cannot now; try later"),
        _ => (false, "ask the provider"),
    };
    let trouble = Trouble { cause, mend };
    if is_later { Verdict::Later(trouble) } else { Verdict::Refused(trouble) }
}

/// The exit status for several accounts: refusals count most, then what may come right.
#[must_use]
pub(super) fn worst(statuses: impl IntoIterator<Item = u8>) -> u8 {
    statuses.into_iter().fold(0, |worst, status| match (worst, status) {
        (1, _) | (_, 1) => 1,
        (75, _) | (_, 75) => 75,
        _ => status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_to_the_turn_has_its_status_and_its_mend() {
        let status = |code, text: &str| {
            let reply = PeerReply { code, text: text.into() };
            let verdict = Verdict::of(Ending::Refused(Stage::Turn, reply));
            assert!(!verdict.trouble().expect("trouble").mend.is_empty());
            verdict.exit_status()
        };
        assert_eq!(status(450, "4.7.1 not yours"), 1);
        assert_eq!(status(450, "4.7.0 too often"), 75);
        assert_eq!(status(450, "refused"), 1);
        assert_eq!(status(451, "4.3.0 trouble"), 75);
        assert_eq!(status(502, "5.5.1 unknown"), 1);
        assert_eq!(status(530, "5.7.0 login first"), 1);
        assert_eq!(status(421, "closing"), 75);
        assert_eq!(status(554, "no"), 1);
        let reply = PeerReply { code: 453, text: "You have no mail".into() };
        assert_eq!(Verdict::of(Ending::NoMail(reply)).exit_status(), 0);
    }

    #[test]
    fn the_worst_of_several_is_told() {
        assert_eq!(worst([0, 75, 0]), 75);
        assert_eq!(worst([75, 1, 0]), 1);
        assert_eq!(worst([]), 0);
    }
}
