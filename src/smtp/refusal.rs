//! Refusals: every "no" with its cause, in one table.
//!
//! The session and the provider name the cause; only this file knows the code and the words. The peer's fault is
//! 5yz, ours is always 4yz (RFC 5321 §4.2.1); codes of ATRN are those of RFC 2645 §7, enhanced codes those of
//! RFC 3463 and RFC 5248.

use super::reply::{EnhancedCode, Reply};

/// Makes the enum and its table from one list.
macro_rules! refusals {
    ($( $(#[$doc:meta])* $name:ident => $code:literal ($class:literal . $subject:literal . $detail:literal) $text:literal, )*) => {
        /// Why something is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $( $(#[$doc])* $name, )*
        }

        impl Refusal {
            /// All of them, for tests and documents.
            pub const ALL: &'static [Refusal] = &[$( Refusal::$name, )*];

            const fn row(self) -> (u16, EnhancedCode, &'static str) {
                match self {
                    $( Self::$name => ($code, EnhancedCode($class, $subject, $detail), $text), )*
                }
            }
        }
    };
}

refusals! {
    // Lines and verbs.
    /// A verb that we do not know (RFC 5321 §4.2.4).
    UnknownVerb => 500 (5 . 5 . 1) "Unknown command",
    /// A line over its limit (RFC 5321 §4.5.3.1).
    LineTooLong => 500 (5 . 5 . 2) "Line too long",
    /// A bare CR or LF, NUL or other control character in a command (RFC 5321 §2.3.8).
    LineBytes => 500 (5 . 5 . 2) "Commands are printable text and end in CRLF",
    /// The argument is not of the verb's form.
    Syntax => 501 (5 . 5 . 4) "Syntax error in the argument",
    /// An argument where none belongs.
    NoArgument => 501 (5 . 5 . 4) "This command takes no argument",
    /// A verb outside this door's profile (RFC 2645 §5.4).
    NotHere => 502 (5 . 5 . 1) "Command not available on this port",
    /// Not now in the order of commands (RFC 5321 §4.1.4).
    BadSequence => 503 (5 . 5 . 1) "Bad sequence of commands",
    /// EHLO or HELO must come first.
    HelloFirst => 503 (5 . 5 . 1) "Say EHLO first",
    /// A MAIL or RCPT parameter that we do not know (RFC 5321 §4.1.1.11).
    UnknownParameter => 555 (5 . 5 . 4) "Unknown parameter",
    /// A known parameter with a bad or repeated value.
    BadParameter => 501 (5 . 5 . 4) "Bad value for a parameter",
    /// Commands came where a reply had to be awaited (RFC 2920 §3.1).
    TooEarly => 503 (5 . 5 . 1) "This command must be the last of its group; wait for the reply",
    /// Commands behind STARTTLS: they came in clear text and must not survive into TLS (RFC 3207 §4.2), so the
    /// session ends with it.
    BehindStartTls => 503 (5 . 5 . 1) "Nothing may follow STARTTLS; closing",
    /// A browser, or something that pretends to be one (CVE-2021-3618).
    NotSmtp => 421 (4 . 7 . 0) "This is not a web server, closing",
    /// The error budget is used up.
    TooManyErrors => 421 (4 . 7 . 0) "Too many errors, closing",
    /// Nothing came in time (RFC 5321 §4.5.3.2.7).
    Idle => 421 (4 . 4 . 2) "Nothing received in time, closing",
    /// The shell brought an answer that nobody asked for.
    Internal => 421 (4 . 3 . 0) "Local trouble, closing",
    /// We stop (RFC 5321 §3.8).
    ShuttingDown => 421 (4 . 3 . 2) "Shutting down, try again soon",
    /// No place for another session.
    TooManySessions => 421 (4 . 3 . 2) "Too many connections, try again later",
    /// The operator lists the networks that may come here (RFC 5321 §3.1).
    NotAdmitted => 554 (5 . 7 . 1) "No service for your address",

    // Transactions.
    /// Not an address.
    BadAddress => 553 (5 . 1 . 3) "Not a valid address",
    /// A reverse-path that is none.
    BadReversePath => 553 (5 . 1 . 7) "Not a valid sender address",
    /// A UTF-8 address without SMTPUTF8 (RFC 6531 §3.5).
    NeedsSmtpUtf8 => 553 (5 . 6 . 7) "The address needs SMTPUTF8",
    /// The same for the reverse-path, where RFC 6531 §3.5 has another code.
    SenderNeedsSmtpUtf8 => 550 (5 . 6 . 7) "The sender address needs SMTPUTF8",
    /// A UTF-8 recipient whose server last said that it takes none (RFC 6531 §3.5).
    ServerWithoutUtf8 => 553 (5 . 6 . 7) "The recipient's mail server does not take UTF-8 addresses",
    /// Nobody's domain here: never a relay (RFC 5321 §3.6.2).
    NotOurDomain => 550 (5 . 7 . 1) "We hold no mail for this domain",
    /// The customer listed its recipients, and this is none.
    NoSuchRecipient => 550 (5 . 1 . 1) "No such recipient",
    /// The customer is suspended.
    Suspended => 550 (5 . 2 . 1) "Mailbox disabled",
    /// The customer's quota.
    QuotaExceeded => 452 (4 . 2 . 2) "The recipient's queue is full, try again later",
    /// Larger than the customer takes (RFC 1870 §6.4).
    TooBigForRecipient => 552 (5 . 3 . 4) "Message too big for this recipient",
    /// Over our SIZE (RFC 1870 §6.1).
    TooBig => 552 (5 . 3 . 4) "Message too big",
    /// Over the limit of recipients (RFC 5321 §4.5.3.1.10).
    TooManyRecipients => 452 (4 . 5 . 3) "Too many recipients, send the rest in another transaction",
    /// DATA without any accepted recipient (RFC 5321 §3.3).
    NoValidRecipients => 554 (5 . 5 . 1) "No valid recipients",
    /// The disk is nearly full.
    DiskFull => 452 (4 . 3 . 1) "Insufficient storage, try again later",
    /// The store cannot now.
    StoreTrouble => 451 (4 . 3 . 0) "Local trouble, try again later",
    /// A bare CR or LF, or NUL in the content (RFC 5321 §2.3.8).
    BareLineEnd => 550 (5 . 6 . 11) "Content with a bare CR or LF, or NUL, is refused",
    /// A line over 998 octets and more than we carry (RFC 5321 §4.5.3.1.6).
    ContentLine => 550 (5 . 6 . 0) "Content with a line too long is refused",
    /// Too many hops (RFC 5321 §6.3).
    Loop => 554 (5 . 4 . 6) "Too many hops, probably a loop",
    /// The size of a chunk cannot be read, so nobody knows where the next command begins: the session ends.
    ChunkSize => 501 (5 . 5 . 4) "Bad chunk size; closing",
    /// A chunk that cannot be taken; RSET starts anew (RFC 3030 §2).
    ChunkRefused => 503 (5 . 5 . 1) "Chunk refused, only RSET helps",

    // TLS and login.
    /// STARTTLS cannot be done now (RFC 3207 §4).
    TlsUnavailable => 454 (4 . 7 . 0) "TLS not available now",
    /// Login or ATRN only under TLS.
    TlsFirst => 530 (5 . 7 . 0) "STARTTLS first",
    /// ATRN or ETRN without login (RFC 2645 §5.2.1).
    LoginFirst => 530 (5 . 7 . 0) "Authentication required",
    /// An unknown or not permitted mechanism (RFC 4954 §4).
    UnknownMechanism => 504 (5 . 5 . 4) "Unknown authentication mechanism",
    /// A mechanism that needs TLS.
    MechanismNeedsTls => 538 (5 . 7 . 11) "Encryption required for this mechanism",
    /// `*` (RFC 4954 §4).
    LoginCancelled => 501 (5 . 7 . 0) "Authentication cancelled",
    /// Not base64 (RFC 4954 §4).
    Base64 => 501 (5 . 5 . 2) "Cannot decode base64",
    /// An initial response to a mechanism that begins with the server (RFC 4954 §4).
    NoInitialResponse => 501 (5 . 7 . 0) "This mechanism takes no initial response",
    /// An AUTH line over its limit (RFC 4954 §4).
    AuthLineTooLong => 500 (5 . 5 . 6) "Authentication exchange line too long",
    /// Unknown user, wrong password, suspended: all the same (RFC 4954 §6).
    LoginFailed => 535 (5 . 7 . 8) "Authentication failed",
    /// Too many failures in one session.
    LoginFailures => 421 (4 . 7 . 0) "Too many failed logins, closing",
    /// The directory cannot be read now (RFC 4954 §6).
    LoginTrouble => 454 (4 . 7 . 0) "Temporary authentication failure",

    // ETRN (RFC 1985 §5.1): what is our policy is never 5yz, which would mean that we do not know the verb (§5.2).
    /// ETRN without an argument (RFC 1985 §7).
    NoNode => 500 (5 . 5 . 4) "Syntax error: ETRN needs a domain",
    /// Not a fully qualified name (RFC 1985 §5).
    BadNode => 501 (5 . 5 . 4) "Syntax error: not a fully qualified domain name",
    /// A node that is not this customer's, or nobody's: the same for both.
    NodeNotYours => 459 (4 . 7 . 1) "Node not allowed: it is not one of your domains",
    /// The customer has no host for deliveries.
    NodeWithoutHost => 459 (4 . 7 . 1) "Node not allowed: no host for deliveries (etrn-host) is set for you; use ATRN",
    /// Not from this address (`etrn-from`).
    NodeNotFromHere => 459 (4 . 7 . 1) "Node not allowed: ETRN is not permitted from your address",
    /// Suspended, or gone since the login.
    NodeSuspended => 459 (4 . 7 . 1) "Node not allowed: the account is suspended",
    /// The queue cannot be looked at or started.
    NodeTrouble => 458 (4 . 3 . 0) "Unable to queue messages now",

    // The turn (RFC 2645 §5.2.1, §7).
    /// A listed domain is not this customer's, or nobody's: the same for both.
    NotYourDomain => 450 (4 . 7 . 1) "ATRN request refused: not all of these domains are yours",
    /// Turns follow too closely.
    TooOften => 450 (4 . 7 . 0) "ATRN request refused: too many requests, wait a minute",
    /// Access cannot be checked, or the queue cannot be opened.
    TurnTrouble => 451 (4 . 3 . 0) "Unable to process ATRN request now",
    /// Another drain of these queues runs.
    TurnBusy => 451 (4 . 2 . 1) "Unable to process ATRN request now: your queue is being drained by another connection",
    /// Nothing waits.
    NoMail => 453 (4 . 2 . 0) "You have no mail",
}

impl Refusal {
    /// The reply on the wire.
    #[must_use]
    pub fn reply(self) -> Reply {
        let (code, enhanced, text) = self.row();
        Reply::line(code, enhanced, text)
    }

    /// Whether the session ends with it: 421, and where the next octets could not be told from commands.
    #[must_use]
    pub fn ends_session(self) -> bool {
        self.row().0 == 421 || matches!(self, Self::BehindStartTls | Self::ChunkSize)
    }

    /// Whether the peer did wrong (5yz).
    #[must_use]
    pub fn is_permanent(self) -> bool {
        self.row().0 >= 500
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_class_is_the_first_digit() {
        for refusal in Refusal::ALL {
            let (code, EnhancedCode(class, ..), text) = refusal.row();
            assert_eq!(code / 100, u16::from(class), "{refusal:?}");
            assert!(matches!(class, 4 | 5) && text.is_ascii() && text.len() < 200, "{refusal:?}");
        }
    }

    // covers: H-02
    #[test]
    fn enhanced_codes_are_registered() {
        // Subject and detail of RFC 3463 §3 and of the registry of RFC 5248, as far as a provider may use them.
        let registered = [
            (1, 1),
            (1, 3),
            (1, 7),
            (1, 10),
            (2, 0),
            (2, 1),
            (2, 2),
            (3, 0),
            (3, 1),
            (3, 2),
            (3, 4),
            (4, 2),
            (4, 6),
            (4, 7),
            (5, 1),
            (5, 2),
            (5, 3),
            (5, 4),
            (5, 6),
            (6, 0),
            (6, 3),
            (6, 7),
            (6, 9),
            (6, 11),
            (7, 0),
            (7, 1),
            (7, 8),
            (7, 9),
            (7, 11),
            (7, 12),
        ];
        for refusal in Refusal::ALL {
            let (_, EnhancedCode(_, subject, detail), _) = refusal.row();
            assert!(registered.contains(&(subject, detail)), "{refusal:?}");
        }
    }

    #[test]
    fn our_own_trouble_is_temporary() {
        for refusal in
            [Refusal::StoreTrouble, Refusal::LoginTrouble, Refusal::TurnTrouble, Refusal::DiskFull]
        {
            assert_eq!(refusal.reply().code / 100, 4);
        }
    }
}
