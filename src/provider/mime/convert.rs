//! The second walk: the message as planned, 7-bit now.

use super::encode::{Base64, Quoted};
use super::header::Field;
use super::plan::{Change, Plan};
use super::walk::{Role, Walk};
use super::{Lines, Obstacle};

/// Carries out a [`Plan`] on the same octets that it was made from.
#[derive(Debug)]
pub struct Converter {
    plan: Plan,
    lines: Lines,
    walk: Walk,
    quoted: Quoted,
    base64: Base64,
    /// The end of the last line of the current body, which belongs to a boundary if one follows (RFC 2046 §5.1.1).
    owed: Option<End>,
}

/// A line end that is not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As it is.
    Plain,
    /// Of a body in base64.
    Base64,
}

impl Converter {
    /// Starts at the first octet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            lines: Lines::default(),
            walk: Walk::new(),
            quoted: Quoted::default(),
            base64: Base64::default(),
            owed: None,
        }
    }

    /// Takes the next octets and appends what can be sent.
    ///
    /// # Errors
    /// If these are not the octets that the plan was made from.
    pub fn feed(&mut self, octets: &[u8], out: &mut Vec<u8>) -> Result<(), Obstacle> {
        let mut lines = std::mem::take(&mut self.lines);
        let outcome = lines.feed(octets, |line| self.line(line, out));
        self.lines = lines;
        outcome
    }

    /// The end of the content.
    ///
    /// # Errors
    /// As [`Converter::feed`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), Obstacle> {
        if let Some(rest) = std::mem::take(&mut self.lines).rest() {
            self.line(&rest, out)?;
            // It had no end of its own.
            if self.owed == Some(End::Base64) {
                self.base64.finish(out);
            }
            return Ok(());
        }
        match self.owed.take() {
            Some(End::Plain) => out.extend_from_slice(b"\r\n"),
            Some(End::Base64) => {
                self.base64.feed(b"\r\n", out);
                self.base64.finish(out);
            }
            None => {}
        }
        Ok(())
    }

    fn change(&self, entity: usize) -> Change {
        self.plan.changes.get(entity).copied().unwrap_or_default()
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), Obstacle> {
        let entity = self.walk.entity();
        let role = self.walk.line(line)?;
        match role {
            Role::Header(Field::Encoding) if self.change(entity) != Change::Keep => {}
            Role::Header(_) => write_line(line, out),
            Role::HeaderEnd(_) => {
                self.end_header(entity, out);
                write_line(line, out);
            }
            Role::Boundary(cut) => {
                if cut.is_some() {
                    self.end_header(entity, out);
                }
                self.end_body(out);
                write_line(line, out);
            }
            Role::Leaf => self.body(self.change(entity), line, out),
            Role::Between => self.body(Change::Keep, line, out),
        }
        Ok(())
    }

    /// What a header section lacks now.
    fn end_header(&self, entity: usize, out: &mut Vec<u8>) {
        let change = self.change(entity);
        if entity == 0 && matches!(change, Change::Quoted | Change::Base64) {
            if self.plan.lacks_version {
                write_line(b"MIME-Version: 1.0", out);
            }
            if self.plan.lacks_type {
                write_line(b"Content-Type: text/plain; charset=unknown-8bit", out);
            }
        }
        match change {
            Change::Quoted => write_line(b"Content-Transfer-Encoding: quoted-printable", out),
            Change::Base64 => write_line(b"Content-Transfer-Encoding: base64", out),
            Change::Keep | Change::Unlabel => {}
        }
    }

    fn body(&mut self, change: Change, line: &[u8], out: &mut Vec<u8>) {
        match self.owed.take() {
            Some(End::Plain) => out.extend_from_slice(b"\r\n"),
            Some(End::Base64) => self.base64.feed(b"\r\n", out),
            None => {}
        }
        self.owed = Some(match change {
            Change::Keep | Change::Unlabel => {
                out.extend_from_slice(line);
                End::Plain
            }
            Change::Quoted => {
                self.quoted.line(line, out);
                End::Plain
            }
            Change::Base64 => {
                self.base64.feed(line, out);
                End::Base64
            }
        });
    }

    /// A boundary follows: the last line end is its own.
    fn end_body(&mut self, out: &mut Vec<u8>) {
        match self.owed.take() {
            Some(End::Plain) => out.extend_from_slice(b"\r\n"),
            // The last line of base64 ends itself.
            Some(End::Base64) => self.base64.finish(out),
            None => {}
        }
    }
}

fn write_line(line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(line);
    out.extend_from_slice(b"\r\n");
}
