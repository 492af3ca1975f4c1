//! The first walk: whether a message can be made 7-bit, and what has to be done to which of its entities.

use super::header::{Content, Encoding, Kind};
use super::walk::{Role, Walk};
use super::{Lines, Obstacle};

/// What becomes of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Change {
    /// Nothing.
    #[default]
    Keep,
    /// Its Content-Transfer-Encoding goes, since it is 7-bit now.
    Unlabel,
    /// Its body becomes quoted-printable.
    Quoted,
    /// Its body becomes base64.
    Base64,
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(super) changes: Vec<Change>,
    /// The message itself has no MIME-Version.
    pub(super) lacks_version: bool,
    /// The message itself has no Content-Type.
    pub(super) lacks_type: bool,
}

/// Makes a [`Plan`].
#[derive(Debug)]
pub struct Planner {
    lines: Lines,
    walk: Walk,
    changes: Vec<Change>,
    content: Option<Content>,
    lacks_version: bool,
    lacks_type: bool,
}

impl Default for Planner {
    fn default() -> Self {
        Self {
            lines: Lines::default(),
            walk: Walk::new(),
            changes: vec![Change::Keep],
            content: None,
            lacks_version: true,
            lacks_type: true,
        }
    }
}

impl Planner {
    /// Takes the next octets of the content.
    ///
    /// # Errors
    /// Why the message has to stay as it is.
    pub fn feed(&mut self, octets: &[u8]) -> Result<(), Obstacle> {
        let mut lines = std::mem::take(&mut self.lines);
        let outcome = lines.feed(octets, |line| self.line(line));
        self.lines = lines;
        outcome
    }

    /// The end of the content.
    ///
    /// # Errors
    /// As [`Planner::feed`].
    pub fn finish(mut self) -> Result<Plan, Obstacle> {
        if let Some(rest) = std::mem::take(&mut self.lines).rest() {
            self.line(&rest)?;
        }
        let Self { changes, lacks_version, lacks_type, .. } = self;
        Ok(Plan { changes, lacks_version, lacks_type })
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Obstacle> {
        let (entity, is_sealed) = (self.walk.entity(), self.walk.is_sealed());
        let is_8bit = !line.is_ascii();
        match self.walk.line(line)? {
            Role::Header(_) if is_8bit => Err(Obstacle::Header),
            Role::Header(_) => Ok(()),
            Role::HeaderEnd(content) => {
                self.label(entity, &content, is_sealed);
                self.content = Some(content);
                Ok(())
            }
            Role::Boundary(_) if is_8bit => Err(Obstacle::Structure),
            Role::Boundary(cut) => {
                if let Some(content) = cut {
                    self.label(entity, &content, is_sealed);
                }
                Ok(())
            }
            Role::Between if is_8bit => Err(Obstacle::BetweenParts),
            Role::Leaf if is_8bit => self.encode(entity),
            Role::Between | Role::Leaf => Ok(()),
        }
    }

    /// A header section is complete: labels that will be wrong go, except inside a signed or encrypted part.
    fn label(&mut self, entity: usize, content: &Content, is_sealed: bool) {
        if entity == 0 {
            self.lacks_version = !content.has_version;
            self.lacks_type = !content.has_type;
        }
        let is_wrong = matches!(content.encoding, Encoding::Eight | Encoding::Binary);
        if is_wrong && !is_sealed {
            self.set(entity, Change::Unlabel);
        }
    }

    fn set(&mut self, entity: usize, change: Change) {
        if self.changes.len() <= entity {
            self.changes.resize(entity + 1, Change::Keep);
        }
        self.changes[entity] = change;
    }

    /// An 8-bit line in a body.
    fn encode(&mut self, entity: usize) -> Result<(), Obstacle> {
        if self.walk.is_sealed() {
            return Err(Obstacle::Sealed);
        }
        let content = self.content.as_ref().ok_or(Obstacle::Structure)?;
        if content.encoding == Encoding::Transformed {
            return Err(Obstacle::Encoded);
        }
        let change = match (&content.kind, content.encoding) {
            (Kind::Text, Encoding::Seven | Encoding::Eight) => Change::Quoted,
            (Kind::Text | Kind::Opaque, _) => Change::Base64,
            _ => return Err(Obstacle::Encoded),
        };
        self.set(entity, change);
        Ok(())
    }
}
