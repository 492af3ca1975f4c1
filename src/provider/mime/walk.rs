//! The walk through a message, line by line: which entity a line belongs to, and as what.
//!
//! Called by planner and converter, which therefore see the same structure. It keeps the open boundaries and the
//! content fields of the current header section, nothing else.

use super::header::{Content, Field, Fields, Kind};
use super::{DEPTH_MAX, ENTITIES_MAX, Obstacle};

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A line of the header section of the current entity.
    Header(Field),
    /// The empty line behind a header section.
    HeaderEnd(Content),
    /// A boundary; it ends a header section without body if the content is given.
    Boundary(Option<Content>),
    /// A line of a body that is no composite.
    Leaf,
    /// Text before the first or after the last part.
    Between,
}

#[derive(Debug)]
struct Open {
    boundary: Vec<u8>,
    is_sealed: bool,
    is_digest: bool,
    /// Messages open around this multipart, for the depth.
    messages: usize,
}

#[derive(Debug)]
enum Place {
    Header(Fields),
    Leaf,
    Between,
}

/// Where in the message we are.
#[derive(Debug)]
pub(super) struct Walk {
    open: Vec<Open>,
    place: Place,
    entity: usize,
    entities: usize,
    /// message/rfc822 entities open since the innermost multipart.
    messages: usize,
}

impl Walk {
    pub(super) fn new() -> Self {
        Self {
            open: Vec::new(),
            place: Place::Header(Fields::default()),
            entity: 0,
            entities: 1,
            messages: 0,
        }
    }

    /// The number of the current entity; 0 is the message itself.
    pub(super) fn entity(&self) -> usize {
        self.entity
    }

    /// Whether the current entity lies in a signed or encrypted one.
    pub(super) fn is_sealed(&self) -> bool {
        self.open.iter().any(|open| open.is_sealed)
    }

    /// Takes the next line, without its end.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<Role, Obstacle> {
        if line.starts_with(b"--")
            && let Some((place, is_last)) = self.boundary(&line[2..])
        {
            return self.pass(place, is_last);
        }
        match &mut self.place {
            Place::Header(_) if line.is_empty() => {
                let content = self.end_header()?;
                self.enter(&content)?;
                Ok(Role::HeaderEnd(content))
            }
            Place::Header(fields) => Ok(Role::Header(fields.line(line)?)),
            Place::Leaf => Ok(Role::Leaf),
            Place::Between => Ok(Role::Between),
        }
    }

    /// The open multipart whose boundary this is, innermost first, and whether it is the last one.
    fn boundary(&self, text: &[u8]) -> Option<(usize, bool)> {
        let text = text.trim_ascii_end();
        let inner = text.strip_suffix(b"--");
        let is = |open: &Open| -> Option<bool> {
            if open.boundary == text {
                return Some(false);
            }
            inner.is_some_and(|inner| open.boundary == inner).then_some(true)
        };
        self.open.iter().enumerate().rev().find_map(|(place, open)| Some((place, is(open)?)))
    }

    fn pass(&mut self, place: usize, is_last: bool) -> Result<Role, Obstacle> {
        let cut = match &self.place {
            Place::Header(_) => Some(self.end_header()?),
            Place::Leaf | Place::Between => None,
        };
        self.messages = self.open[place].messages;
        if is_last {
            self.open.truncate(place);
            self.place = Place::Between;
        } else {
            self.open.truncate(place + 1);
            self.messages = 0;
            self.next_entity()?;
        }
        Ok(Role::Boundary(cut))
    }

    fn end_header(&self) -> Result<Content, Obstacle> {
        let Place::Header(fields) = &self.place else { return Err(Obstacle::Structure) };
        // Only the parts of a digest are messages by default, not the entities inside them.
        let in_digest = self.messages == 0 && self.open.last().is_some_and(|open| open.is_digest);
        fields.finish(in_digest)
    }

    fn enter(&mut self, content: &Content) -> Result<(), Obstacle> {
        match &content.kind {
            Kind::Multipart { boundary, is_sealed, is_digest } => {
                let messages = self.messages;
                let (boundary, is_sealed, is_digest) = (boundary.clone(), *is_sealed, *is_digest);
                self.open.push(Open { boundary, is_sealed, is_digest, messages });
                self.messages = 0;
                self.place = Place::Between;
            }
            Kind::Message => {
                self.messages += 1;
                self.next_entity()?;
            }
            Kind::Text | Kind::Opaque | Kind::OtherMessage => self.place = Place::Leaf,
        }
        let depth = self.messages + self.open.iter().map(|open| open.messages + 1).sum::<usize>();
        if depth > DEPTH_MAX { Err(Obstacle::TooComplex) } else { Ok(()) }
    }

    fn next_entity(&mut self) -> Result<(), Obstacle> {
        if self.entities >= ENTITIES_MAX {
            return Err(Obstacle::TooComplex);
        }
        self.entity = self.entities;
        self.entities += 1;
        self.place = Place::Header(Fields::default());
        Ok(())
    }
}
