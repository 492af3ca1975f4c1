//! Who is told what: NOTIFY, RET and the null reverse-path, decided for each recipient that is over.
//!
//! Called by the reporter, and by the drain, which has to know whether a delivery is still to be reported. Pure;
//! it never writes a report.
//!
//! Keeps RFC 3461 §4.1, §4.3, §5.2.2 and §5.2.6, RFC 5321 §4.5.5 (nothing is ever said about `<>`).

use crate::mail::{Notify, RecipientState, Ret, ReversePath};

/// What is due for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A report with this action.
    Report(Action),
    /// Nothing; the recipient may be forgotten.
    Nothing,
    /// Nobody may be told, and mail was lost on the way: kept for the postmaster.
    Keep,
    /// It is not over.
    Wait,
}

/// The Action field (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Refused or given up.
    Failed,
    /// Handed to a server that sends no reports.
    Relayed,
}

impl Action {
    /// As the field has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Relayed => "relayed",
        }
    }
}

/// What is due for a recipient in this state.
#[must_use]
pub fn due(reverse_path: &ReversePath, notify: Option<Notify>, state: &RecipientState) -> Due {
    match state {
        RecipientState::Queued | RecipientState::Deferred(_) => Due::Wait,
        // A report that failed, or mail that wanted no answer: a report about it could loop for ever.
        RecipientState::Failed(_) if reverse_path.is_null() => Due::Keep,
        // Without NOTIFY it is ours to choose, and silence would be a lost message (RFC 3461 §4.1).
        RecipientState::Failed(_) if notify.is_none_or(|wish| wish.failure) => {
            Due::Report(Action::Failed)
        }
        RecipientState::Relayed(_) if is_told_of_relaying(reverse_path, notify) => {
            Due::Report(Action::Relayed)
        }
        RecipientState::Failed(_) | RecipientState::Relayed(_) => Due::Nothing,
    }
}

/// Whether a delivery to a server without DSN is reported as "relayed" (RFC 3461 §5.2.2 b).
#[must_use]
pub fn is_told_of_relaying(reverse_path: &ReversePath, notify: Option<Notify>) -> bool {
    !reverse_path.is_null() && notify.is_some_and(|wish| wish.success)
}

/// Whether the whole message goes back, by RET and size (RFC 3461 §4.3: only with a failure). Without RET it is
/// the header section, which is enough to know the message again and useless to somebody whose address was
/// forged.
#[must_use]
pub fn returns_whole(ret: Option<Ret>, has_failure: bool, size: u64, size_max: u64) -> bool {
    ret == Some(Ret::Full) && has_failure && size <= size_max
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::ReplyText;

    // covers: N-16, N-17, DS-3
    /// All eight NOTIFY values and its absence, each with failure and relaying, from a mailbox and from `<>`.
    #[test]
    fn every_combination_of_notify() {
        let mailbox = ReversePath::parse("t@foo.example").expect("valid");
        let reply = ReplyText::clean("550 no");
        let (failed, relayed) =
            (RecipientState::Failed(reply.clone()), RecipientState::Relayed(reply.clone()));
        let flags = [false, true];
        for success in flags {
            for failure in flags {
                for delay in flags {
                    let notify = Some(Notify { success, failure, delay });
                    let of_failure =
                        if failure { Due::Report(Action::Failed) } else { Due::Nothing };
                    let of_relaying =
                        if success { Due::Report(Action::Relayed) } else { Due::Nothing };
                    assert_eq!(due(&mailbox, notify, &failed), of_failure, "{notify:?}");
                    assert_eq!(due(&mailbox, notify, &relayed), of_relaying, "{notify:?}");
                    assert_eq!(due(&ReversePath::Null, notify, &failed), Due::Keep);
                    assert_eq!(due(&ReversePath::Null, notify, &relayed), Due::Nothing);
                }
            }
        }
        assert_eq!(due(&mailbox, None, &failed), Due::Report(Action::Failed));
        assert_eq!(due(&mailbox, None, &relayed), Due::Nothing);
        assert_eq!(due(&ReversePath::Null, None, &failed), Due::Keep);
        for waiting in [RecipientState::Queued, RecipientState::Deferred(reply)] {
            assert_eq!(due(&mailbox, None, &waiting), Due::Wait);
        }
    }

    #[test]
    fn the_whole_message_only_on_failure_on_request_and_within_the_cap() {
        assert!(returns_whole(Some(Ret::Full), true, 10, 10));
        assert!(!returns_whole(Some(Ret::Full), true, 11, 10));
        assert!(!returns_whole(Some(Ret::Full), false, 1, 10));
        assert!(!returns_whole(Some(Ret::Headers), true, 1, 10));
        assert!(!returns_whole(None, true, 1, 10));
    }
}
