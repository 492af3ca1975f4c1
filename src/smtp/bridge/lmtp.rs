//! LMTP as the target's language (RFC 2033): what differs from SMTP, and what the bridge does about it.
//!
//! LMTP answers the content once for each recipient, SMTP once for all. One reply cannot say "delivered to the
//! first, not to the second": 250 would lose the second copy, 4yz would bring the first one twice. So the bridge
//! admits one recipient a transaction. It announces this (RFC 9422) and answers each further RCPT with 452 4.5.3,
//! on which a client sends the others in transactions of their own (RFC 5321 §4.5.3.1.10). The price is that a
//! message to several recipients crosses the line once for each; nothing is lost and nothing comes twice.
//!
//! Deviation: RFC 5321 §4.5.3.1.8 wants a server to take 100 recipients. Correct fates matter more here.

use super::Bridge;

/// For RCPT after an accepted one.
pub(super) const ONE_RECIPIENT: &[u8] =
    b"452 4.5.3 One recipient a transaction here, send the others in their own\r\n";
/// For content without a recipient: in LMTP nobody would answer it (RFC 2033 §4.2).
pub(super) const NO_RECIPIENTS: &[u8] = b"503 5.5.1 No valid recipients\r\n";

/// What becomes of a command.
pub(super) enum Translated {
    /// It is the same in LMTP.
    AsIs,
    /// This line goes to the target.
    Instead(String),
    /// The target is not asked; this is the reply.
    Answer(&'static [u8]),
}

impl Bridge {
    pub(super) fn translate(&self, verb: &str, argument: &str) -> Translated {
        match verb {
            "EHLO" | "HELO" => Translated::Instead(format!("LHLO {argument}\r\n")),
            "RCPT" if self.accepted > 0 => Translated::Answer(ONE_RECIPIENT),
            "DATA" if self.accepted == 0 => Translated::Answer(NO_RECIPIENTS),
            _ => Translated::AsIs,
        }
    }
}
