//! A message on its way out: whether this server can take it, and its MAIL and RCPT lines.
//!
//! Called by the sender, and by the provider before it offers a message. Parameters are sent only where EHLO
//! offered them; what a server cannot take is said before MAIL, never cut and never sent anyway. It never reads a
//! body.
//!
//! Keeps RFC 1870 §6, RFC 3461 §5.2.1 (parameters go on unchanged), RFC 6152 §3, RFC 6531 §3.2 and §3.4.

use std::fmt::Write;

use super::extensions::Extensions;
use crate::mail::{BodyKind, ContentFacts, Envelope, Notify, Recipient, Ret};

/// Octets of most command lines; a longer one grows.
const LINE_BYTES: usize = 96;

/// One transaction to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The caller's name for it; fates come back under it.
    pub tag: u64,
    /// Reverse-path, parameters of MAIL, and the recipients of this transaction: at least one.
    pub envelope: Envelope,
    /// What was found in the content.
    pub facts: ContentFacts,
    /// Octets of the content, exactly what the body will have.
    pub size: u64,
}

/// Why a message cannot be handed to a server that lacks an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// 8-bit content, no 8BITMIME (RFC 6152 §3).
    EightBitBody,
    /// Octets above 127 in the header section, no 8BITMIME; they cannot be converted without loss.
    EightBitHeader,
    /// UTF-8 in an address, no SMTPUTF8 (RFC 6531 §3.2).
    Utf8Address,
    /// UTF-8 header fields, no SMTPUTF8.
    Utf8Header,
    /// Larger than SIZE (RFC 1870 §4); the limit in octets.
    TooBig(u64),
    /// An envelope that cannot be written as command lines; it should never have been taken.
    Envelope,
}

impl Unfit {
    /// Whether the server would refuse it for ever and at once, so that waiting for a better server is no use by
    /// default (requirements, section 8: SIZE).
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::TooBig(_))
    }

    /// Enhanced code without its class (RFC 3463 §3.7), and words for logs and reports.
    #[must_use]
    pub fn reason(self) -> (&'static str, String) {
        match self {
            Self::EightBitBody => {
                ("6.3", "8-bit content, and the customer's server does not offer 8BITMIME".into())
            }
            Self::EightBitHeader => {
                ("6.3", "8-bit header, and the customer's server does not offer 8BITMIME".into())
            }
            Self::Utf8Address => {
                ("6.7", "UTF-8 address, and the customer's server does not offer SMTPUTF8".into())
            }
            Self::Utf8Header => {
                ("6.9", "UTF-8 header, and the customer's server does not offer SMTPUTF8".into())
            }
            Self::TooBig(max) => {
                ("3.4", format!("larger than the {max} octets that the customer's server takes"))
            }
            Self::Envelope => ("6.0", "the envelope cannot be written as SMTP commands".into()),
        }
    }
}

impl Outgoing {
    /// Whether this server can take the message at all, decided before MAIL.
    ///
    /// # Errors
    /// [`Unfit`] with the first thing that it lacks.
    pub fn check(&self, offers: &Extensions) -> Result<(), Unfit> {
        if !offers.takes_size(self.size) {
            return Err(Unfit::TooBig(offers.size.unwrap_or_default()));
        }
        if !offers.smtputf8 && !self.has_ascii_envelope() {
            return Err(Unfit::Utf8Address);
        }
        if !offers.smtputf8 && self.envelope.smtputf8 && self.facts.has_8bit_header {
            return Err(Unfit::Utf8Header);
        }
        if !offers.eight_bit_mime && self.facts.has_8bit_header {
            return Err(Unfit::EightBitHeader);
        }
        if !offers.eight_bit_mime && self.facts.has_8bit_body {
            return Err(Unfit::EightBitBody);
        }
        if !self.is_writable() {
            return Err(Unfit::Envelope);
        }
        Ok(())
    }

    fn has_ascii_envelope(&self) -> bool {
        self.envelope.reverse_path.as_str().is_ascii()
            && self.envelope.recipients.iter().all(|r| r.forward_path.is_ascii())
    }

    /// The last guard against a line break inside a command: everything here was checked when it came in.
    fn is_writable(&self) -> bool {
        let whole = |text: &str| !text.bytes().any(|b| b.is_ascii_control());
        let token = |text: &Option<Box<str>>| {
            text.as_deref().is_none_or(|text| whole(text) && !text.contains(' '))
        };
        whole(self.envelope.reverse_path.as_str())
            && token(&self.envelope.dsn.envid)
            && !self.envelope.recipients.is_empty()
            && self
                .envelope
                .recipients
                .iter()
                .all(|r| whole(r.forward_path.as_str()) && token(&r.orcpt))
    }

    /// `MAIL FROM:<…>` with its parameters and CRLF.
    #[must_use]
    pub fn mail_line(&self, offers: &Extensions) -> String {
        let mut line = String::with_capacity(LINE_BYTES);
        for part in ["MAIL FROM:<", self.envelope.reverse_path.as_str(), ">"] {
            line.push_str(part);
        }
        if offers.size.is_some() {
            // Writing to a text does not fail.
            let _ = write!(line, " SIZE={}", self.size);
        }
        let is_8bit = self.facts.has_8bit_body || self.facts.has_8bit_header;
        if offers.eight_bit_mime && (is_8bit || self.envelope.body == BodyKind::EightBitMime) {
            line.push_str(" BODY=8BITMIME");
        }
        // RFC 6531 §3.4: not where nothing needs it. UTF-8 in the header of a part counts as body here.
        let needs_utf8 = !self.has_ascii_envelope() || (self.envelope.smtputf8 && is_8bit);
        if offers.smtputf8 && needs_utf8 {
            line.push_str(" SMTPUTF8");
        }
        if offers.dsn {
            match self.envelope.dsn.ret {
                Some(Ret::Full) => line.push_str(" RET=FULL"),
                Some(Ret::Headers) => line.push_str(" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = &self.envelope.dsn.envid {
                line.push_str(" ENVID=");
                line.push_str(envid);
            }
        }
        line.push_str("\r\n");
        line
    }
}

/// `RCPT TO:<…>` with its parameters and CRLF.
#[must_use]
pub fn rcpt_line(recipient: &Recipient, offers: &Extensions) -> String {
    let mut line = String::with_capacity(LINE_BYTES);
    for part in ["RCPT TO:<", recipient.forward_path.as_str(), ">"] {
        line.push_str(part);
    }
    if offers.dsn {
        if let Some(notify) = recipient.notify {
            line.push_str(" NOTIFY=");
            line.push_str(&notify_value(notify));
        }
        if let Some(orcpt) = &recipient.orcpt {
            line.push_str(" ORCPT=");
            line.push_str(orcpt);
        }
    }
    line.push_str("\r\n");
    line
}

fn notify_value(notify: Notify) -> String {
    let words: Vec<&str> =
        [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")]
            .into_iter()
            .filter_map(|(wanted, word)| wanted.then_some(word))
            .collect();
    if words.is_empty() { "NEVER".into() } else { words.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{DsnRequest, ForwardPath, ReversePath};

    fn message(sender: &str, recipient: &str) -> Outgoing {
        let recipient = Recipient {
            forward_path: ForwardPath::parse(recipient).expect("valid"),
            notify: Some(Notify { success: true, failure: true, delay: false }),
            orcpt: Some("rfc822;l@example.org".into()),
        };
        let envelope = Envelope {
            reverse_path: ReversePath::parse(sender).expect("valid"),
            recipients: vec![recipient],
            body: BodyKind::SevenBit,
            smtputf8: false,
            dsn: DsnRequest { envid: Some("QQ314159".into()), ret: Some(Ret::Headers) },
        };
        Outgoing { tag: 1, envelope, facts: ContentFacts::default(), size: 20 }
    }

    // covers: DS-1, DS-2
    #[test]
    fn parameters_only_where_offered() {
        let all = Extensions::parse("x\nSIZE\n8BITMIME\nSMTPUTF8\nDSN");
        let mut mail = message("", "l@example.org");
        assert_eq!(mail.mail_line(&Extensions::default()), "MAIL FROM:<>\r\n");
        assert_eq!(
            rcpt_line(&mail.envelope.recipients[0], &Extensions::default()),
            "RCPT TO:<l@example.org>\r\n"
        );
        assert_eq!(mail.mail_line(&all), "MAIL FROM:<> SIZE=20 RET=HDRS ENVID=QQ314159\r\n");
        assert_eq!(
            rcpt_line(&mail.envelope.recipients[0], &all),
            "RCPT TO:<l@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;l@example.org\r\n"
        );
        mail.envelope.smtputf8 = true;
        assert!(!mail.mail_line(&all).contains("SMTPUTF8"), "nothing needs it");
        mail.facts.has_8bit_header = true;
        assert!(mail.mail_line(&all).contains(" BODY=8BITMIME SMTPUTF8 "));
        assert_eq!(notify_value(Notify::default()), "NEVER");
    }

    #[test]
    fn what_a_server_lacks_is_known_before_mail() {
        let none = Extensions::default();
        let eight = Extensions { eight_bit_mime: true, ..Extensions::default() };
        let mut mail = message("t@foo.example", "l@example.org");
        assert_eq!(mail.check(&none), Ok(()));
        mail.facts.has_8bit_body = true;
        assert_eq!(mail.check(&none), Err(Unfit::EightBitBody));
        assert_eq!(mail.check(&eight), Ok(()));
        mail.facts.has_8bit_header = true;
        assert_eq!(mail.check(&none), Err(Unfit::EightBitHeader));
        // Nobody said that it is UTF-8: it goes on as it came.
        assert_eq!(mail.check(&eight), Ok(()));
        mail.envelope.smtputf8 = true;
        assert_eq!(mail.check(&eight), Err(Unfit::Utf8Header));
        let small = Extensions { size: Some(19), ..Extensions::default() };
        assert_eq!(mail.check(&small), Err(Unfit::TooBig(19)));
        let unicode = message("t@foo.example", "jürgen@example.org");
        assert_eq!(unicode.check(&eight), Err(Unfit::Utf8Address));
    }

    #[test]
    fn a_line_break_never_reaches_a_command() {
        let offers = Extensions::default();
        for hostile in ["a\r\nRCPT", "a b", "a\0"] {
            let mut mail = message("t@foo.example", "l@example.org");
            mail.envelope.dsn.envid = Some(hostile.into());
            assert_eq!(mail.check(&offers), Err(Unfit::Envelope), "{hostile:?}");
            let mut mail = message("t@foo.example", "l@example.org");
            mail.envelope.recipients[0].orcpt = Some(hostile.into());
            assert_eq!(mail.check(&offers), Err(Unfit::Envelope), "{hostile:?}");
        }
        let mut nobody = message("t@foo.example", "l@example.org");
        nobody.envelope.recipients.clear();
        assert_eq!(nobody.check(&offers), Err(Unfit::Envelope));
    }
}
