//! The text of a report: multipart/report with words for people, fields for programs, and what comes back.
//!
//! Called by the reporter. Pure: octets in, octets out, nothing of it longer than a page but what is returned of
//! the message. A report is 7-bit, unless the message that comes back is not, or the report's own recipient has a
//! UTF-8 address.
//!
//! Keeps RFC 6522 §3, RFC 3464 §2, RFC 3461 §6.2 and §6.3, RFC 6533 §3 and §6, RFC 3834 §3.1.2 (Auto-Submitted).

use super::decide::Action;
use super::fields::{self, Diagnosis};
use crate::mail::{Domain, QueueId, RecipientState, ReversePath, Timestamp};
use crate::provider::mime::{Quoted, quoted_text};
use crate::store::{Head, HeldRecipient};

/// What comes back of the message (RFC 6522 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// Its header section.
    Headers,
    /// All of it.
    Whole,
}

/// A recipient to be told of.
pub(super) struct Told<'a> {
    pub(super) held: &'a HeldRecipient,
    pub(super) action: Action,
    /// What the customer's server called itself, if we met it.
    pub(super) server: Option<String>,
}

/// All that a report is made of, but the message itself.
pub(super) struct Notice<'a> {
    pub(super) hostname: &'a Domain,
    /// The report's own id.
    pub(super) id: QueueId,
    pub(super) now: Timestamp,
    /// Unpredictable, so that no message can contain it.
    pub(super) boundary: String,
    pub(super) head: &'a Head,
    pub(super) told: Vec<Told<'a>>,
    pub(super) returned: Returned,
}

impl Notice<'_> {
    /// Whether the report is an internationalised one (RFC 6533): its recipient has a UTF-8 address.
    pub(super) fn is_global(&self) -> bool {
        !self.head.envelope.reverse_path.as_str().is_ascii()
    }

    fn has_failure(&self) -> bool {
        self.told.iter().any(|told| told.action == Action::Failed)
    }

    /// Everything up to the first octet of what is returned.
    pub(super) fn beginning(&self) -> Vec<u8> {
        let mut text = self.header();
        text.push_str(&format!("\r\n--{}\r\n", self.boundary));
        let mut octets = text.into_bytes();
        octets.extend(self.for_people());
        octets.extend(format!("--{}\r\n", self.boundary).into_bytes());
        octets.extend(self.for_programs().into_bytes());
        octets.extend(format!("--{}\r\n", self.boundary).into_bytes());
        octets.extend(self.returned_header().into_bytes());
        octets
    }

    /// Everything behind the last octet of what is returned, which ended with a line end.
    pub(super) fn end(&self) -> Vec<u8> {
        format!("\r\n--{}--\r\n", self.boundary).into_bytes()
    }

    /// The report's Message-ID.
    pub(super) fn message_id(&self) -> String {
        format!("<{}@{}>", self.id, self.hostname)
    }

    fn header(&self) -> String {
        let to = self.head.envelope.reverse_path.as_str();
        let subject = if self.has_failure() {
            "Your message could not be delivered"
        } else {
            "Your message was handed on"
        };
        let mut text = format!(
            "Date: {}\r\nFrom: Mail service <postmaster@{}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n\
             Message-ID: {}\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n",
            self.now.rfc5322(),
            self.hostname,
            self.message_id()
        );
        if let Some(id) = &self.head.facts.message_id {
            text.push_str(&fields::field("References", &fields::clean(id, false)));
        }
        text.push_str(&format!(
            "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{}\"\r\n",
            self.boundary
        ));
        text
    }

    /// The first part.
    fn for_people(&self) -> Vec<u8> {
        let words = self.words();
        let mut octets = if words.is_ascii() {
            b"Content-Type: text/plain; charset=us-ascii\r\n\r\n".to_vec()
        } else {
            b"Content-Type: text/plain; charset=utf-8\r\n\
              Content-Transfer-Encoding: quoted-printable\r\n\r\n"
                .to_vec()
        };
        if words.is_ascii() {
            octets.extend(words.replace('\n', "\r\n").into_bytes());
        } else {
            octets.extend(quoted_text(&words));
        }
        octets.extend_from_slice(b"\r\n");
        octets
    }

    fn words(&self) -> String {
        let mut text = format!(
            "This is the mail service at {}. It holds mail until the mail server of its\n\
             recipient collects it.\n",
            self.hostname
        );
        for action in [Action::Failed, Action::Relayed] {
            let told: Vec<&Told<'_>> = self.told.iter().filter(|t| t.action == action).collect();
            if told.is_empty() {
                continue;
            }
            text.push_str(match action {
                Action::Failed => "\nYour message could not be delivered to:\n",
                Action::Relayed => {
                    "\nYour message was handed to the mail server of these recipients. That server\n\
                     sends no reports of its own, so this is the last that you hear from us:\n"
                }
            });
            for told in told {
                text.push_str(&wrapped("  ", &format!("<{}>", told.held.recipient.forward_path)));
                if action == Action::Failed {
                    let diagnosis = told.diagnosis();
                    let said = match &diagnosis.reply {
                        Some(reply) => format!("The recipient's mail server refused it: {reply}"),
                        None => format!("{}.", diagnosis.words.trim_end_matches('.')),
                    };
                    text.push_str(&wrapped("    ", &said));
                }
            }
        }
        if self.has_failure() {
            text.push_str(
                "\nNothing more will be tried for these recipients. If the message matters, please ask\n\
                 them in another way. Details for your mail administrator follow.\n",
            );
        }
        text.push_str(match self.returned {
            Returned::Headers => "The header of your message is attached.\n",
            Returned::Whole => "Your message is attached.\n",
        });
        text
    }

    /// The second part (RFC 3464 §2.1).
    fn for_programs(&self) -> String {
        let is_global = self.is_global();
        let mut text = if is_global {
            "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        } else {
            "Content-Type: message/delivery-status\r\n\r\n"
        }
        .to_owned();
        text.push_str(&fields::field("Reporting-MTA", &format!("dns; {}", self.hostname)));
        if let Some(envid) = &self.head.envelope.dsn.envid {
            let plain = fields::xtext_decoded(envid).unwrap_or_else(|| envid.to_string());
            text.push_str(&fields::field("Original-Envelope-Id", &fields::clean(&plain, false)));
        }
        text.push_str(&fields::field("Arrival-Date", &self.head.arrived.rfc5322()));
        for told in &self.told {
            text.push_str("\r\n");
            text.push_str(&told.fields(is_global));
        }
        text.push_str("\r\n");
        text
    }

    fn is_utf8_header(&self) -> bool {
        self.head.facts.has_8bit_header && self.head.envelope.smtputf8
    }

    /// The header section of the third part.
    fn returned_header(&self) -> String {
        let facts = &self.head.facts;
        let (kind, encoding) = match self.returned {
            Returned::Whole if facts.has_8bit_header => ("message/global", Some("8bit")),
            Returned::Whole => ("message/rfc822", facts.has_8bit_body.then_some("8bit")),
            Returned::Headers if self.is_utf8_header() && self.is_global() => {
                ("message/global-headers", Some("8bit"))
            }
            Returned::Headers if self.is_utf8_header() => {
                ("message/global-headers", Some("quoted-printable"))
            }
            Returned::Headers if facts.has_8bit_header => {
                ("text/rfc822-headers", Some("quoted-printable"))
            }
            Returned::Headers => ("text/rfc822-headers", None),
        };
        let mut text = format!("Content-Type: {kind}\r\n");
        if let Some(encoding) = encoding {
            text.push_str(&format!("Content-Transfer-Encoding: {encoding}\r\n"));
        }
        text.push_str("\r\n");
        text
    }

    /// The header section of the message as it stands in the third part.
    pub(super) fn returned_headers(&self, section: &[u8]) -> Vec<u8> {
        let is_8bit = self.head.facts.has_8bit_header;
        if !is_8bit || (self.is_utf8_header() && self.is_global()) {
            return section.to_vec();
        }
        let (mut octets, mut quoted) = (Vec::with_capacity(section.len() * 2), Quoted::default());
        for line in section.split_inclusive(|b| *b == b'\n') {
            quoted.line(line.strip_suffix(b"\r\n").unwrap_or(line), &mut octets);
            octets.extend_from_slice(b"\r\n");
        }
        octets
    }
}

impl Told<'_> {
    fn diagnosis(&self) -> Diagnosis {
        let (text, class) = match &self.held.state {
            RecipientState::Failed(reply) => (reply.as_str(), '5'),
            RecipientState::Relayed(reply) => (reply.as_str(), '2'),
            RecipientState::Queued | RecipientState::Deferred(_) => ("", '4'),
        };
        Diagnosis::read(text, class)
    }

    /// Its group of fields (RFC 3464 §2.3).
    fn fields(&self, is_global: bool) -> String {
        let recipient = &self.held.recipient;
        let diagnosis = self.diagnosis();
        let mut text = String::new();
        if let Some(original) = fields::original_recipient(recipient, is_global) {
            text.push_str(&fields::field("Original-Recipient", &original));
        }
        let last = fields::final_recipient(recipient, is_global);
        text.push_str(&fields::field("Final-Recipient", &last));
        text.push_str(&fields::field("Action", self.action.word()));
        text.push_str(&fields::field("Status", &diagnosis.status));
        if let Some(reply) = &diagnosis.reply {
            if let Some(name) = self.server.as_deref().and_then(fields::dns_name) {
                text.push_str(&fields::field("Remote-MTA", &format!("dns; {name}")));
            }
            let reply = fields::clean(reply, is_global);
            text.push_str(&fields::field("Diagnostic-Code", &format!("smtp; {reply}")));
        }
        text
    }
}

/// Where a report of ours about this reverse-path may carry octets above 127 in its own header.
pub(super) fn has_utf8_header(reverse_path: &ReversePath) -> bool {
    !reverse_path.as_str().is_ascii()
}

/// Lines of at most 78 characters, each behind `indent`.
fn wrapped(indent: &str, text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::from(indent));
    for word in text.split(' ').flat_map(fields::pieces) {
        if line.len() + word.len() > 77 && line.len() > indent.len() {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = String::from(indent);
        }
        line.push_str(word);
        line.push(' ');
    }
    lines.push_str(line.trim_end());
    lines.push('\n');
    lines
}
