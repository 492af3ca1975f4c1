//! The bridge: carries a reversed session between the provider and the customer's own mail server.
//!
//! Driven by the customer's side of the program: bytes of either party in, bytes for both out. It hands the target
//! one command at a time (the line between the two is short), so it always knows which reply belongs to what,
//! while the provider pipelines as it likes; content and chunks pass through as they are. It hides STARTTLS where
//! TLS is up already, translates to LMTP, and keeps count. It never answers for the target, except where LMTP has
//! no answer (see `lmtp`) and when it is told to stop.
//!
//! Keeps RFC 5321 §4.1 and §4.5.2 (where content ends), RFC 3030 §2 (chunks), RFC 3207 §4.2 (no TLS inside TLS),
//! RFC 2033 (LMTP).

mod content;
mod hello;
mod lmtp;
#[cfg(test)]
mod tests;
mod words;

use crate::smtp::sender::{PeerReply, ReplyReader};
use content::ContentEnd;
use lmtp::Translated;
pub use words::{BridgeFault, Dialect, Output, Passed};

/// Octets of one command line; the longest real one is an AUTH line (RFC 4954 §4).
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Addresses of a message that are remembered for its line in the log.
const NOTED_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// The target's greeting has not come.
    Greeting,
    /// The next line is a command.
    Command,
    /// The target has a command and owes the reply.
    Asked(Asked),
    /// Content behind 354.
    Content(ContentEnd),
    /// A chunk behind BDAT.
    Chunk { left: u64, is_last: bool, is_refused: bool },
    /// The two have begun TLS with each other: nothing can be read any more.
    Opaque,
    /// We have said 421.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Ehlo,
    Helo,
    StartTls,
    Mail,
    Recipient,
    Data,
    /// The reply to all of the content.
    Message,
    /// RSET: the transaction is gone.
    Reset,
    Quit,
    Other,
}

/// A bridge between two parties.
#[derive(Debug)]
pub struct Bridge {
    dialect: Dialect,
    hides_starttls: bool,
    state: State,
    line: Vec<u8>,
    replies: ReplyReader,
    /// From MAIL to the reply to the content.
    transaction: Option<Passed>,
    /// The address of the RCPT that is with the target.
    asked_recipient: String,
    accepted: usize,
    /// The target refused before the content was over.
    answered_early: bool,
    stopping: bool,
    has_quit: bool,
}

impl Bridge {
    /// A bridge to a target that has been connected and not yet read from. `hides_starttls` when the provider's
    /// side is encrypted already.
    #[must_use]
    pub fn new(dialect: Dialect, hides_starttls: bool) -> Self {
        Self {
            dialect,
            hides_starttls,
            state: State::Greeting,
            line: Vec::new(),
            replies: ReplyReader::default(),
            transaction: None,
            asked_recipient: String::new(),
            accepted: 0,
            answered_early: false,
            stopping: false,
            has_quit: false,
        }
    }

    /// Takes bytes from the provider and says how many; the rest is to be offered again after the target's next
    /// reply. With room made by a smaller `bytes` nothing changes but the pace.
    ///
    /// # Errors
    /// [`BridgeFault::EndlessLine`].
    pub fn provider_bytes(&mut self, bytes: &[u8], out: &mut Output) -> Result<usize, BridgeFault> {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            taken += match &mut self.state {
                State::Greeting | State::Asked(_) => break,
                State::Opaque => {
                    out.to_target.extend_from_slice(rest);
                    rest.len()
                }
                State::Stopped => rest.len(),
                State::Command => self.collect_line(rest, out)?,
                State::Content(end) => {
                    let (length, is_over) = end.scan(rest);
                    out.to_target.extend_from_slice(&rest[..length]);
                    self.count(length);
                    if is_over {
                        self.content_over(Asked::Message);
                    }
                    length
                }
                State::Chunk { .. } => self.chunk_bytes(rest, out),
            };
        }
        Ok(taken)
    }

    /// Takes bytes from the target.
    ///
    /// # Errors
    /// [`BridgeFault`].
    pub fn target_bytes(&mut self, bytes: &[u8], out: &mut Output) -> Result<(), BridgeFault> {
        match self.state {
            State::Opaque => {
                out.to_provider.extend_from_slice(bytes);
                return Ok(());
            }
            State::Stopped => return Ok(()),
            _ => {}
        }
        let mut rest = bytes;
        while let Some(reply) = self.replies.read(&mut rest).map_err(BridgeFault::Target)? {
            self.heard(reply, out)?;
            if self.state == State::Opaque {
                out.to_provider.extend_from_slice(rest);
                break;
            }
        }
        Ok(())
    }

    /// Stops as soon as the protocol allows: now, if no message is under way, else after it. The provider gets
    /// 421 (RFC 5321 §3.8), the target QUIT.
    pub fn stop(&mut self, out: &mut Output) {
        self.stopping = true;
        if self.state == State::Command && self.transaction.is_none() && self.line.is_empty() {
            self.say_goodbye(out);
        }
    }

    /// Whether [`Bridge::stop`] has been carried out.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// Whether the provider has said QUIT.
    #[must_use]
    pub fn has_quit(&self) -> bool {
        self.has_quit
    }

    /// Whether QUIT was said and answered.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.has_quit && !matches!(self.state, State::Asked(_))
    }

    /// Whether bytes of the provider would be taken now.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        !matches!(self.state, State::Greeting | State::Asked(_))
    }

    /// Whether the content of a message is passing.
    #[must_use]
    pub fn is_in_content(&self) -> bool {
        matches!(self.state, State::Content(_) | State::Chunk { .. })
    }

    fn say_goodbye(&mut self, out: &mut Output) {
        out.to_provider.extend_from_slice(b"421 4.3.2 Stopping here, the rest stays queued\r\n");
        out.to_target.extend_from_slice(b"QUIT\r\n");
        self.state = State::Stopped;
    }

    fn collect_line(&mut self, rest: &[u8], out: &mut Output) -> Result<usize, BridgeFault> {
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        self.line.extend_from_slice(&rest[..length]);
        if self.line.len() > LINE_BYTES_MAX {
            return Err(BridgeFault::EndlessLine);
        }
        if self.line.ends_with(b"\n") {
            let line = std::mem::take(&mut self.line);
            self.command(&line, out);
        }
        Ok(length)
    }

    fn command(&mut self, line: &[u8], out: &mut Output) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        let (verb, argument) = text.split_once(' ').unwrap_or((text, ""));
        let verb = verb.to_ascii_uppercase();
        if self.stopping && self.transaction.is_none() {
            return self.say_goodbye(out);
        }
        if verb == "BDAT" {
            return self.begin_chunk(argument, line, out);
        }
        if self.dialect == Dialect::Lmtp {
            match self.translate(&verb, argument) {
                Translated::AsIs => {}
                Translated::Instead(line) => out.to_target.extend_from_slice(line.as_bytes()),
                Translated::Answer(reply) => {
                    out.to_provider.extend_from_slice(reply);
                    return;
                }
            }
        }
        let asked = match verb.as_str() {
            "EHLO" => Asked::Ehlo,
            "HELO" => Asked::Helo,
            "STARTTLS" => Asked::StartTls,
            "MAIL" => {
                self.transaction.get_or_insert_default().from = address(argument);
                Asked::Mail
            }
            "RCPT" => {
                self.asked_recipient = address(argument);
                Asked::Recipient
            }
            "DATA" => Asked::Data,
            "RSET" => Asked::Reset,
            "QUIT" => {
                self.has_quit = true;
                Asked::Quit
            }
            _ => Asked::Other,
        };
        let is_hello = matches!(asked, Asked::Ehlo | Asked::Helo);
        if !(is_hello && self.dialect == Dialect::Lmtp) {
            out.to_target.extend_from_slice(line);
        }
        self.state = State::Asked(asked);
    }

    /// BDAT: the octets follow at once, whatever the reply will be (RFC 3030 §2).
    fn begin_chunk(&mut self, argument: &str, line: &[u8], out: &mut Output) {
        let mut words = argument.split_ascii_whitespace();
        let left = words.next().and_then(|size| size.parse::<u64>().ok());
        let is_last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        let is_refused = self.dialect == Dialect::Lmtp && self.accepted == 0;
        if !is_refused {
            out.to_target.extend_from_slice(line);
        }
        match left {
            // Without a size nothing follows; the target will say what it thinks of that.
            None if is_refused => out.to_provider.extend_from_slice(lmtp::NO_RECIPIENTS),
            None => self.state = State::Asked(Asked::Other),
            Some(left) => {
                self.state = State::Chunk { left, is_last, is_refused };
                if left == 0 {
                    self.chunk_over(is_last, is_refused, out);
                }
            }
        }
    }

    fn chunk_bytes(&mut self, rest: &[u8], out: &mut Output) -> usize {
        let State::Chunk { left, is_last, is_refused } = self.state else { return 0 };
        let length = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        if !is_refused {
            out.to_target.extend_from_slice(&rest[..length]);
            self.count(length);
        }
        let left = left - length as u64;
        self.state = State::Chunk { left, is_last, is_refused };
        if left == 0 {
            self.chunk_over(is_last, is_refused, out);
        }
        length
    }

    fn chunk_over(&mut self, is_last: bool, is_refused: bool, out: &mut Output) {
        if is_refused {
            out.to_provider.extend_from_slice(lmtp::NO_RECIPIENTS);
            self.state = State::Command;
        } else {
            self.content_over(if is_last { Asked::Message } else { Asked::Other });
        }
    }

    fn content_over(&mut self, asked: Asked) {
        // A refusal that came early was the reply.
        let is_answered = std::mem::take(&mut self.answered_early);
        self.state = if is_answered { State::Command } else { State::Asked(asked) };
    }

    fn count(&mut self, length: usize) {
        if let Some(message) = &mut self.transaction {
            message.octets += length as u64;
        }
    }

    fn heard(&mut self, reply: PeerReply, out: &mut Output) -> Result<(), BridgeFault> {
        let is_positive = reply.class() == 2;
        let State::Asked(asked) = self.state.clone() else {
            return self.heard_unasked(&reply, out);
        };
        self.state = State::Command;
        match asked {
            Asked::Ehlo | Asked::Helo if is_positive => {
                self.forget();
                let shown = hello::shown(&reply, self.dialect, self.hides_starttls);
                let shown = if asked == Asked::Helo { hello::first_line(&shown) } else { shown };
                out.to_provider.extend_from_slice(&shown.to_bytes());
                return Ok(());
            }
            Asked::StartTls if reply.code == 220 => self.state = State::Opaque,
            Asked::Mail if !is_positive => self.forget(),
            Asked::Recipient if is_positive => {
                self.accepted += 1;
                let address = std::mem::take(&mut self.asked_recipient);
                if let Some(message) = &mut self.transaction
                    && message.to.len() < NOTED_MAX
                {
                    message.to.push(address);
                }
            }
            Asked::Data if reply.code == 354 => self.state = State::Content(ContentEnd::default()),
            Asked::Message => self.message_answered(&reply, out),
            Asked::Reset if is_positive => self.forget(),
            _ => {}
        }
        out.to_provider.extend_from_slice(&reply.to_bytes());
        Ok(())
    }

    /// A reply that no command called for: the greeting, 421, or a refusal before the content is over.
    fn heard_unasked(&mut self, reply: &PeerReply, out: &mut Output) -> Result<(), BridgeFault> {
        match self.state {
            State::Greeting => self.state = State::Command,
            State::Content(_) | State::Chunk { .. } => {
                if reply.class() < 4 || self.answered_early {
                    return Err(BridgeFault::OutOfStep);
                }
                self.answered_early = true;
                self.message_answered(reply, out);
            }
            _ => {}
        }
        out.to_provider.extend_from_slice(&reply.to_bytes());
        Ok(())
    }

    fn message_answered(&mut self, reply: &PeerReply, out: &mut Output) {
        if let Some(mut message) = self.transaction.take() {
            message.reply = reply.said().to_string();
            message.taken = reply.class() == 2;
            out.passed.push(message);
        }
        self.accepted = 0;
    }

    fn forget(&mut self) {
        self.transaction = None;
        self.accepted = 0;
    }
}

/// The address in `FROM:<a@b> …`, for the log only; control characters become `?`.
fn address(argument: &str) -> String {
    let inside = argument.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    let text = inside.map_or(argument, |(address, _)| address);
    text.chars().take(320).map(|c| if c.is_control() { '?' } else { c }).collect()
}
