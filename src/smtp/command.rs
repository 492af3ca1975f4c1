//! Command lines: octets to a verb and its argument.
//!
//! Called by the session for each line. It knows the form of a line and no state.
//!
//! Keeps RFC 5321 §2.4 (verbs in any case), §4.1.1 (white space before the end of the line is tolerated), §2.3.8
//! (no control characters), RFC 6531 §3.7.2 (UTF-8 may stand in arguments).

use super::Door;
use super::refusal::Refusal;
use super::verbs::{self, Argument, Row, Verb};

/// A command as it was written: the verb is known and understood at this door, its argument is not yet parsed.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// The verb's row.
    pub row: &'static Row,
    /// What follows the verb, without the space between and without white space at the end.
    pub argument: &'a str,
}

/// Reads a line without its CRLF.
///
/// # Errors
/// What is wrong with the line, the verb or the presence of an argument.
pub fn read<'a>(line: &'a [u8], door: Door) -> Result<Command<'a>, Refusal> {
    let text = std::str::from_utf8(line).map_err(|_| Refusal::LineBytes)?;
    let (word, argument) = split(text);
    if verbs::is_http(word, argument) {
        return Err(Refusal::NotSmtp);
    }
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Refusal::LineBytes);
    }
    let row = Verb::find(word).ok_or(Refusal::UnknownVerb)?;
    // The octets of a chunk have to be swallowed at any door before it is refused.
    if !row.doors.contains(&door) && row.verb != Verb::Bdat {
        return Err(Refusal::NotHere);
    }
    if line.len() > row.line_bytes_max {
        return Err(Refusal::LineTooLong);
    }
    match row.argument {
        Argument::None if !argument.is_empty() => Err(Refusal::NoArgument),
        // A chunk whose size is not given is BDAT's own matter.
        Argument::Required if argument.is_empty() && row.verb != Verb::Bdat => Err(Refusal::Syntax),
        _ => Ok(Command { row, argument }),
    }
}

/// Verb and argument.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim_end_matches([' ', '\t']);
    match text.split_once(' ') {
        Some((word, argument)) => (word, argument),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_in_any_case_with_their_arguments() {
        for (line, verb, argument) in [
            ("ehlo example.org", Verb::Ehlo, "example.org"),
            ("Mail FROM:<a@b>  ", Verb::Mail, "FROM:<a@b>"),
            ("QUIT \t", Verb::Quit, ""),
            ("NOOP  two", Verb::Noop, " two"),
        ] {
            let command = read(line.as_bytes(), Door::Mx).expect(line);
            assert_eq!((command.row.verb, command.argument), (verb, argument), "{line}");
        }
    }

    // covers: O-27, S-17
    #[test]
    fn lines_that_are_no_commands() {
        for (line, refusal) in [
            (&b""[..], Refusal::UnknownVerb),
            (b" NOOP", Refusal::UnknownVerb),
            (b"XYZZY", Refusal::UnknownVerb),
            (b"NO\0OP", Refusal::LineBytes),
            (b"NOOP\nNOOP", Refusal::LineBytes),
            (b"NOOP\rNOOP", Refusal::LineBytes),
            (b"NOOP\xff", Refusal::LineBytes),
            (b"NOOP \x7f", Refusal::LineBytes),
            (b"MAIL FROM:<a@b>", Refusal::NotHere),
            (b"TURN", Refusal::NotHere),
            (b"RSET x", Refusal::NoArgument),
            (b"EHLO", Refusal::Syntax),
            (b"POST / HTTP/1.1", Refusal::NotSmtp),
        ] {
            assert_eq!(read(line, Door::Odmr).err(), Some(refusal), "{line:?}");
        }
    }
}
