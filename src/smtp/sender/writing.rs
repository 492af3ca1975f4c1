//! What goes out: groups of commands, contents with stuffed dots, chunks.
//!
//! The part of the sender that decides what may be emitted now. Without PIPELINING one command is in flight; with
//! it all of a transaction up to DATA (RFC 2920 §3.1), the next transaction behind the end of the data, and with
//! CHUNKING any number of whole messages (RFC 3030 §2, §4.2).

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memchr;

use super::script::{Expected, Line, What};
use super::stuffing::Stuffer;
use super::{Action, EndKind, Outgoing, Sender, Transaction, rcpt_line};

/// The longest begun line that is held back in line-by-line style, in octets.
const LINE_KEPT_MAX: usize = 16 << 10;

/// What the newest transaction is doing.
#[derive(Debug)]
pub(super) enum Writer {
    /// There is none that wants to send.
    Idle,
    /// Its commands are in the script, or their replies are awaited in lock-step.
    Commands,
    /// DATA went; 354 is awaited.
    AwaitGo,
    /// Content goes between 354 and the final dot.
    Data(Stuffer),
    /// Content goes in BDAT chunks.
    Chunks,
}

impl Sender {
    pub(super) fn begin(&mut self, message: &Outgoing) {
        // Whether the server has forgotten the transaction before cannot be known while its chunks are in
        // flight; a RCPT that fell into it would deliver under a wrong reverse-path.
        let in_flight = self.is_chunking() && !self.transactions.is_empty();
        if self.is_dirty || in_flight {
            self.say("RSET\r\n", What::Reset);
        }
        self.is_dirty = false;
        self.begun += 1;
        self.say(message.mail_line(&self.offers), What::Mail);
        for (place, recipient) in message.envelope.recipients.iter().enumerate() {
            self.say(rcpt_line(recipient, &self.offers), What::Rcpt(place));
        }
        if !self.is_chunking() {
            self.say("DATA\r\n", What::Data);
        }
        let recipients = message.envelope.recipients.len();
        self.transactions.push_back(Transaction::new(message.tag, recipients));
        self.writer = Writer::Commands;
    }

    /// Emits what may go now.
    pub(super) fn pump(&mut self, out: &mut Vec<Action>) {
        let mut group = Vec::new();
        loop {
            let free = self.is_pipelining() || self.expected.is_empty();
            if !free {
                break;
            }
            if let Some(line) = self.script.pop_front() {
                if self.is_in_vain(line.what) {
                    self.give_up(out);
                    continue;
                }
                if group.is_empty() && self.is_pipelining() {
                    let others: usize = self.script.iter().map(|line| line.text.len()).sum();
                    group.reserve_exact(line.text.len() + others);
                }
                self.emit_line(line, &mut group);
                if self.style.line_by_line {
                    out.push(Action::Send(std::mem::take(&mut group).into()));
                }
            } else if matches!(self.writer, Writer::Commands) {
                self.after_commands(out);
            } else {
                break;
            }
        }
        if !group.is_empty() {
            out.push(Action::Send(group.into()));
        }
    }

    fn emit_line(&mut self, line: Line, group: &mut Vec<u8>) {
        self.emitted += line.text.len() as u64;
        group.extend_from_slice(&line.text);
        self.expect(line.what);
        match line.what {
            What::Data => self.writer = Writer::AwaitGo,
            // Not before: until it stands in the row of replies due, the transaction must not be finished.
            What::Dot => {
                if let Some(newest) = self.transactions.back_mut() {
                    newest.is_open = false;
                }
            }
            _ => {}
        }
    }

    fn expect(&mut self, what: What) {
        self.expected.push_back(Expected { what, end: self.emitted });
        let is_of_transaction = matches!(
            what,
            What::Mail | What::Rcpt(_) | What::Data | What::Chunk { .. } | What::Dot
        );
        if is_of_transaction && let Some(newest) = self.transactions.back_mut() {
            newest.awaited += 1;
        }
    }

    /// In lock-step a refused MAIL needs no RCPT, and refused recipients need no DATA.
    fn is_in_vain(&self, what: What) -> bool {
        let Some(newest) = self.transactions.back().filter(|_| !self.is_pipelining()) else {
            return false;
        };
        match what {
            What::Rcpt(_) => newest.is_refused(),
            What::Data => !newest.has_takers(),
            _ => false,
        }
    }

    fn give_up(&mut self, out: &mut Vec<Action>) {
        self.script.clear();
        self.writer = Writer::Idle;
        if let Some(newest) = self.transactions.back_mut() {
            newest.is_open = false;
        }
        self.finish_oldest(out);
    }

    /// All commands went, and in lock-step all replies came: chunks are next.
    fn after_commands(&mut self, out: &mut Vec<Action>) {
        let has_takers = self.transactions.back().is_some_and(Transaction::has_takers);
        if self.is_pipelining() || has_takers {
            self.writer = Writer::Chunks;
        } else {
            self.give_up(out);
        }
    }

    pub(super) fn take_body(&mut self, octets: Bytes, last: bool, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.writer, Writer::Idle) {
            Writer::Data(stuffer) => self.take_data(stuffer, octets, last, out),
            Writer::Chunks => self.take_chunk(octets, last, out),
            // The body of a message that was refused meanwhile.
            other => self.writer = other,
        }
    }

    fn take_data(
        &mut self,
        mut stuffer: Stuffer,
        octets: Bytes,
        last: bool,
        out: &mut Vec<Action>,
    ) {
        let Ok(stuffed) = stuffer.stuff(octets) else { return self.bare_line_end(out) };
        if !stuffed.is_empty() {
            self.begin_content();
            self.emit_content(stuffed, out);
        }
        if !last {
            self.writer = Writer::Data(stuffer);
            return;
        }
        let Ok(end) = stuffer.end() else { return self.bare_line_end(out) };
        self.begin_content();
        self.end_data(end, out);
    }

    /// The stuffer saw what DATA cannot carry; part of it may have left, so only a cut keeps it from being taken.
    fn bare_line_end(&mut self, out: &mut Vec<Action>) {
        let detail = "a message with a bare CR or LF cannot be sent by DATA".to_owned();
        self.end(EndKind::Body, detail, out);
    }

    /// Puts the end of the data into the script's place, so that it may travel with what follows.
    pub(super) fn end_data(&mut self, mut text: &'static [u8], out: &mut Vec<Action>) {
        if self.style.line_by_line {
            let (rest, dot) = text.split_at(text.len() - b".\r\n".len());
            let mut line = std::mem::take(&mut self.begun_line);
            line.extend_from_slice(rest);
            self.emit(line.into(), out);
            text = dot;
        }
        let end = self.emitted + text.len() as u64;
        if let Some(newest) = self.transactions.back_mut() {
            newest.content_end = Some(end);
        }
        self.script.push_front(Line { text: Cow::Borrowed(text), what: What::Dot });
        self.writer = Writer::Idle;
    }

    fn take_chunk(&mut self, octets: Bytes, last: bool, out: &mut Vec<Action>) {
        self.writer = Writer::Chunks;
        if octets.is_empty() && !last {
            return;
        }
        let mark = if last { " LAST" } else { "" };
        let command = format!("BDAT {}{mark}\r\n", octets.len()).into_bytes();
        self.emit(command.into(), out);
        self.begin_content();
        self.emit(octets, out);
        self.expect(What::Chunk { last });
        if last {
            if let Some(newest) = self.transactions.back_mut() {
                newest.is_open = false;
                newest.content_end = Some(self.emitted);
            }
            self.writer = Writer::Idle;
        }
    }

    fn begin_content(&mut self) {
        if let Some(newest) = self.transactions.back_mut() {
            newest.content_begun.get_or_insert(self.emitted);
        }
    }

    fn emit(&mut self, octets: Bytes, out: &mut Vec<Action>) {
        if !octets.is_empty() {
            self.emitted += octets.len() as u64;
            out.push(Action::Send(octets));
        }
    }

    fn emit_content(&mut self, octets: Bytes, out: &mut Vec<Action>) {
        if !self.style.line_by_line {
            return self.emit(octets, out);
        }
        let mut rest = &*octets;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, behind) = rest.split_at(end + 1);
            let mut whole = std::mem::take(&mut self.begun_line);
            whole.extend_from_slice(line);
            self.emit(whole.into(), out);
            rest = behind;
        }
        self.begun_line.extend_from_slice(rest);
        // A line that never ends is not kept; the client must live with its parts.
        if self.begun_line.len() > LINE_KEPT_MAX {
            let part = std::mem::take(&mut self.begun_line);
            self.emit(part.into(), out);
        }
    }
}
