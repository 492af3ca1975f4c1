//! The content fields of one entity's header section: type, boundary, encoding (RFC 2045 §5 and §6).
//!
//! Called by the walker with each header line. What is written in a way that two readers might read differently
//! is [`Obstacle::Structure`].

use super::Obstacle;

/// Longest content field, unfolded, octets.
const FIELD_BYTES_MAX: usize = 8 << 10;

/// Which field a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Field {
    /// One that does not matter here.
    #[default]
    Other,
    /// Content-Type.
    Type,
    /// Content-Transfer-Encoding.
    Encoding,
    /// MIME-Version.
    Version,
}

/// The fields gathered so far.
#[derive(Debug, Default)]
pub(super) struct Fields {
    current: Field,
    content_type: Option<Vec<u8>>,
    encoding: Option<Vec<u8>>,
    has_version: bool,
    is_repeated: bool,
}

/// Content-Transfer-Encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// 7bit, or none.
    Seven,
    /// 8bit.
    Eight,
    /// binary.
    Binary,
    /// quoted-printable, base64 and whatever else transforms.
    Transformed,
}

/// What kind of entity this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// text/*.
    Text,
    /// Anything else that is no composite.
    Opaque,
    /// message/rfc822: an entity inside an entity.
    Message,
    /// Other message types, which may not be encoded (RFC 2046 §5.2).
    OtherMessage,
    /// multipart/*.
    Multipart {
        /// The delimiter without its hyphens.
        boundary: Vec<u8>,
        /// signed or encrypted (RFC 1847).
        is_sealed: bool,
        /// Its parts are messages unless they say otherwise (RFC 2046 §5.1.5).
        is_digest: bool,
    },
}

/// The header section of an entity, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) kind: Kind,
    pub(super) encoding: Encoding,
    pub(super) has_type: bool,
    pub(super) has_version: bool,
}

impl Fields {
    /// Takes one header line; gives the field that it belongs to.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<Field, Obstacle> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            self.extend(line)?;
            return Ok(self.current);
        }
        let name_end = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let name = line[..name_end].trim_ascii_end();
        self.current = if name.eq_ignore_ascii_case(b"content-type") {
            self.is_repeated |= self.content_type.replace(Vec::new()).is_some();
            Field::Type
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            self.is_repeated |= self.encoding.replace(Vec::new()).is_some();
            Field::Encoding
        } else if name.eq_ignore_ascii_case(b"mime-version") {
            self.has_version = true;
            Field::Version
        } else {
            Field::Other
        };
        self.extend(line.get(name_end + 1..).unwrap_or_default())?;
        Ok(self.current)
    }

    fn extend(&mut self, octets: &[u8]) -> Result<(), Obstacle> {
        let value = match self.current {
            Field::Type => self.content_type.as_mut(),
            Field::Encoding => self.encoding.as_mut(),
            Field::Version | Field::Other => None,
        };
        let Some(value) = value else { return Ok(()) };
        if value.len() + octets.len() > FIELD_BYTES_MAX {
            return Err(Obstacle::TooComplex);
        }
        value.extend_from_slice(octets);
        Ok(())
    }

    /// The end of the header section.
    pub(super) fn finish(&self, in_digest: bool) -> Result<Content, Obstacle> {
        if self.is_repeated {
            return Err(Obstacle::Structure);
        }
        let encoding = match &self.encoding {
            None => Encoding::Seven,
            Some(value) => encoding_of(&tokens(value)?)?,
        };
        let kind = match &self.content_type {
            None if in_digest => Kind::Message,
            None => Kind::Text,
            Some(value) => kind_of(&tokens(value)?)?,
        };
        // A composite may not be transformed (RFC 2045 §6.4); what is in there nobody can tell.
        let is_composite = !matches!(kind, Kind::Text | Kind::Opaque);
        if is_composite && encoding == Encoding::Transformed {
            return Ok(self.content(Kind::OtherMessage, encoding));
        }
        Ok(self.content(kind, encoding))
    }

    fn content(&self, kind: Kind, encoding: Encoding) -> Content {
        let has_type = self.content_type.is_some();
        Content { kind, encoding, has_type, has_version: self.has_version }
    }
}

/// A lexical token of a structured field (RFC 2045 §5.1).
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(Vec<u8>),
    Quoted(Vec<u8>),
    Mark(u8),
}

/// Splits into tokens, without comments.
fn tokens(value: &[u8]) -> Result<Vec<Token>, Obstacle> {
    let (mut found, mut rest) = (Vec::new(), value);
    while let Some((first, tail)) = rest.split_first() {
        match first {
            b' ' | b'\t' => rest = tail,
            b'(' => rest = after_comment(tail)?,
            b'"' => {
                let (text, after) = quoted(tail)?;
                found.push(Token::Quoted(text));
                rest = after;
            }
            b'/' | b';' | b'=' => {
                found.push(Token::Mark(*first));
                rest = tail;
            }
            _ => {
                let is_end = |b: &u8| matches!(b, b' ' | b'\t' | b'(' | b'"' | b'/' | b';' | b'=');
                let end = rest.iter().position(is_end).unwrap_or(rest.len());
                found.push(Token::Word(rest[..end].to_vec()));
                rest = &rest[end..];
            }
        }
    }
    Ok(found)
}

fn after_comment(mut rest: &[u8]) -> Result<&[u8], Obstacle> {
    let mut depth = 1;
    while depth > 0 {
        let (first, tail) = rest.split_first().ok_or(Obstacle::Structure)?;
        rest = tail;
        match first {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'\\' => rest = rest.get(1..).ok_or(Obstacle::Structure)?,
            _ => {}
        }
    }
    Ok(rest)
}

fn quoted(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), Obstacle> {
    let mut text = Vec::new();
    loop {
        let (first, tail) = rest.split_first().ok_or(Obstacle::Structure)?;
        rest = tail;
        match first {
            b'"' => return Ok((text, rest)),
            b'\\' => {
                let (escaped, tail) = rest.split_first().ok_or(Obstacle::Structure)?;
                text.push(*escaped);
                rest = tail;
            }
            other => text.push(*other),
        }
    }
}

fn encoding_of(tokens: &[Token]) -> Result<Encoding, Obstacle> {
    let [Token::Word(word)] = tokens else { return Err(Obstacle::Structure) };
    Ok(match word.to_ascii_lowercase().as_slice() {
        b"7bit" => Encoding::Seven,
        b"8bit" => Encoding::Eight,
        b"binary" => Encoding::Binary,
        _ => Encoding::Transformed,
    })
}

fn kind_of(tokens: &[Token]) -> Result<Kind, Obstacle> {
    let [Token::Word(main), Token::Mark(b'/'), Token::Word(sub), parameters @ ..] = tokens else {
        return Err(Obstacle::Structure);
    };
    let (main, sub) = (main.to_ascii_lowercase(), sub.to_ascii_lowercase());
    Ok(match (main.as_slice(), sub.as_slice()) {
        (b"text", _) => Kind::Text,
        (b"message", b"rfc822") => Kind::Message,
        (b"message", _) => Kind::OtherMessage,
        (b"multipart", sub) => Kind::Multipart {
            boundary: boundary_of(parameters)?,
            is_sealed: matches!(sub, b"signed" | b"encrypted"),
            is_digest: sub == b"digest",
        },
        _ => Kind::Opaque,
    })
}

/// The one boundary parameter, 1 to 70 octets (RFC 2046 §5.1.1).
fn boundary_of(parameters: &[Token]) -> Result<Vec<u8>, Obstacle> {
    let mut found = None;
    for parameter in parameters.split(|token| *token == Token::Mark(b';')) {
        let [Token::Word(name), Token::Mark(b'='), value @ ..] = parameter else { continue };
        if !name.to_ascii_lowercase().starts_with(b"boundary") {
            continue;
        }
        // `boundary*` (RFC 2231) is read by some and not by others.
        let is_plain = name.eq_ignore_ascii_case(b"boundary");
        let text = match value {
            [Token::Word(text) | Token::Quoted(text)] if is_plain && found.is_none() => text,
            _ => return Err(Obstacle::Structure),
        };
        found = Some(text.clone());
    }
    let boundary = found.ok_or(Obstacle::Structure)?;
    let is_sound = (1..=70).contains(&boundary.len()) && !boundary.ends_with(b" ");
    if is_sound { Ok(boundary) } else { Err(Obstacle::Structure) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(lines: &[&str]) -> Result<Content, Obstacle> {
        let mut fields = Fields::default();
        for line in lines {
            fields.line(line.as_bytes())?;
        }
        fields.finish(false)
    }

    #[test]
    fn kinds() {
        assert_eq!(content(&["Subject: x"]).expect("read").kind, Kind::Text);
        let multipart =
            content(&["CONTENT-TYPE: Multipart/Signed;", "\tboundary=\"a \\\"b\"; x=y"]);
        let expected =
            Kind::Multipart { boundary: b"a \"b".to_vec(), is_sealed: true, is_digest: false };
        assert_eq!(multipart.expect("read").kind, expected);
        let commented = content(&["Content-Type: text/plain (a (nested) one); charset=utf-8"]);
        assert_eq!(commented.expect("read").kind, Kind::Text);
        let encoded = content(&["Content-Transfer-Encoding: Base64 (yes)"]);
        assert_eq!(encoded.expect("read").encoding, Encoding::Transformed);
        assert_eq!(
            content(&["Content-Type: message/partial"]).expect("read").kind,
            Kind::OtherMessage
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways() {
        for lines in [
            &["Content-Type: multipart/mixed"][..],
            &["Content-Type: multipart/mixed; boundary*=a"],
            &["Content-Type: multipart/mixed; boundary=a; boundary=b"],
            &["Content-Type: multipart/mixed; boundary=\"a"],
            &["Content-Type: multipart/mixed; boundary=a b"],
            &["Content-Type: text"],
            &["Content-Type: text/plain", "Content-Type: image/png"],
            &["Content-Transfer-Encoding: 8bit", "Content-Transfer-Encoding: 8bit"],
            &["Content-Transfer-Encoding: 8 bit"],
        ] {
            assert_eq!(content(lines), Err(Obstacle::Structure), "{lines:?}");
        }
    }
}
