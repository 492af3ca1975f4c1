//! What commands print: tables for people, JSON for scripts, and silence when the reader has gone.
//!
//! Called by the commands. Everything goes through [`Out`], so that `| head` ends a command quietly.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::admin::Refused;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One document.
    Json,
    /// One object a line.
    JsonLines,
}

/// A line on standard error. Without one there is nobody to tell, and that is no reason to stop.
pub fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Standard output.
pub struct Out {
    /// How.
    pub format: Format,
    writer: BufWriter<Box<dyn Write + Send>>,
    listed: usize,
    is_whole_or_nothing: bool,
}

impl Out {
    /// Standard output in this format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self::to(format, Box::new(io::stdout()))
    }

    /// The same elsewhere.
    pub(super) fn to(format: Format, place: Box<dyn Write + Send>) -> Self {
        Self { format, writer: BufWriter::new(place), listed: 0, is_whole_or_nothing: false }
    }

    /// Whether people read it.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.format == Format::Text
    }

    /// Octets as they are.
    ///
    /// # Errors
    /// Standard output is broken; a reader that has gone ends the program instead, with status 0.
    pub fn octets(&mut self, octets: &[u8]) -> Result<(), Refused> {
        let written = self.writer.write_all(octets);
        self.outcome(written)
    }

    /// A line of text. Characters that could play tricks on a terminal are shown as `?`.
    ///
    /// # Errors
    /// As [`Out::octets`].
    pub fn line(&mut self, text: &str) -> Result<(), Refused> {
        let clean: String = text.chars().map(|c| if hidden(c) { '?' } else { c }).collect();
        let written = writeln!(self.writer, "{}", clean.trim_end());
        self.outcome(written)
    }

    /// Lines of text, each as [`Out::line`] prints it.
    ///
    /// # Errors
    /// As [`Out::octets`].
    pub fn text(&mut self, text: &str) -> Result<(), Refused> {
        text.lines().try_for_each(|line| self.line(line))
    }

    /// A value as one line of JSON.
    ///
    /// # Errors
    /// As [`Out::octets`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Refused> {
        let text = text_of(value)?;
        let written = writeln!(self.writer, "{text}");
        self.outcome(written)
    }

    /// Begins `{"name":[`; nothing for lines.
    ///
    /// # Errors
    /// As [`Out::octets`].
    pub fn begin_list(&mut self, name: &str) -> Result<(), Refused> {
        match self.format {
            Format::Json => self.octets(format!("{{\"{name}\":[").as_bytes()),
            _ => Ok(()),
        }
    }

    /// The next element of the list.
    ///
    /// # Errors
    /// As [`Out::octets`].
    pub fn element(&mut self, value: &impl Serialize) -> Result<(), Refused> {
        if self.format != Format::Json {
            return self.json(value);
        }
        let text = text_of(value)?;
        let comma = if self.listed > 0 { ",\n" } else { "\n" };
        self.listed += 1;
        let written = write!(self.writer, "{comma}{text}");
        self.outcome(written)
    }

    /// Ends the list.
    ///
    /// # Errors
    /// As [`Out::octets`].
    pub fn end_list(&mut self) -> Result<(), Refused> {
        match self.format {
            Format::Json => self.octets(b"]}\n"),
            _ => Ok(()),
        }
    }

    /// A table with aligned columns; the columns in `right` are numbers.
    ///
    /// # Errors
    /// As [`Out::octets`].
    pub fn table(
        &mut self,
        head: &[&str],
        rows: &[Vec<String>],
        right: &[usize],
    ) -> Result<(), Refused> {
        let heads: Vec<String> = head.iter().map(ToString::to_string).collect();
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                let cells = rows.iter().chain([&heads]).filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in [&heads].into_iter().chain(rows) {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if right.contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            self.line(&cells.collect::<Vec<_>>().join("  "))?;
        }
        Ok(())
    }

    /// Everything out.
    ///
    /// # Errors
    /// As [`Out::octets`].
    pub fn flush(&mut self) -> Result<(), Refused> {
        let flushed = self.writer.flush();
        self.outcome(flushed)
    }

    /// From now on a reader that goes away early is a failure: what is written is of use as a whole only.
    pub fn whole_or_nothing(&mut self) {
        self.is_whole_or_nothing = true;
    }

    fn outcome(&self, written: io::Result<()>) -> Result<(), Refused> {
        match written {
            // The reader has all it wanted (`| head`); what is left in the buffer has nowhere to go.
            Err(error)
                if error.kind() == io::ErrorKind::BrokenPipe && !self.is_whole_or_nothing =>
            {
                std::process::exit(0)
            }
            Err(error) => {
                Err(Refused::new(format!("standard output cannot be written: {error}"), ""))
            }
            Ok(()) => Ok(()),
        }
    }
}

fn text_of(value: &impl Serialize) -> Result<String, Refused> {
    serde_json::to_string(value).map_err(|error| Refused::new(error.to_string(), ""))
}

/// Control characters, and marks that change the direction or hide what is read.
#[must_use]
pub fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
