//! Places in the configuration file, and what is to be said about them.
//!
//! Everything that reads the configuration leaves its complaints here, as many as it finds; the commands print
//! them. A finding names file, line and column, shows the line with a mark, and says how to mend it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Fault,
    /// It can, but somebody should know.
    Warning,
}

/// One thing to say about the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Fault or warning.
    pub severity: Severity,
    /// The octets it is about; `None` for the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

/// All that is to be said about one file.
#[derive(Clone, Debug)]
pub struct Report {
    file: PathBuf,
    text: String,
    findings: Vec<Finding>,
}

impl Report {
    /// Nothing to say yet about `file`, which holds `text`.
    #[must_use]
    pub fn new(file: &Path, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), findings: Vec::new() }
    }

    /// Adds a fault at `span`.
    pub fn fault(
        &mut self,
        span: impl Into<Option<Range<usize>>>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.add(Severity::Fault, span.into(), what.into(), mend.into());
    }

    /// Adds a warning at `span`.
    pub fn warning(
        &mut self,
        span: impl Into<Option<Range<usize>>>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.add(Severity::Warning, span.into(), what.into(), mend.into());
    }

    fn add(&mut self, severity: Severity, span: Option<Range<usize>>, what: String, mend: String) {
        let finding = Finding { severity, span, what, mend };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// What was found, faults first, then by place.
    #[must_use]
    pub fn findings(&self) -> Vec<&Finding> {
        let mut sorted: Vec<&Finding> = self.findings.iter().collect();
        sorted.sort_by_key(|f| (f.severity, f.span.as_ref().map_or(usize::MAX, |s| s.start)));
        sorted
    }

    /// How many faults there are.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.findings.iter().filter(|f| f.severity == Severity::Fault).count()
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Line and column, from 1, of an octet; columns count characters.
    #[must_use]
    pub fn line_and_column(&self, octet: usize) -> (usize, usize) {
        let before = &self.text[..self.border(octet)];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before[start..].chars().count() + 1)
    }

    fn border(&self, octet: usize) -> usize {
        let mut octet = octet.min(self.text.len());
        while !self.text.is_char_boundary(octet) {
            octet -= 1;
        }
        octet
    }

    /// The finding as it is printed: one line that scripts can read, the marked line, the mend.
    #[must_use]
    pub fn show(&self, finding: &Finding) -> String {
        let word = match finding.severity {
            Severity::Fault => "",
            Severity::Warning => "warning: ",
        };
        let file = self.file.display();
        let mut shown = String::new();
        match &finding.span {
            None => shown += &format!("{file}:1:1: {word}{}", finding.what),
            Some(span) => {
                let (line, column) = self.line_and_column(span.start);
                shown += &format!("{file}:{line}:{column}: {word}{}\n", finding.what);
                shown += &self.marked(line, column, span);
            }
        }
        if !finding.mend.is_empty() {
            shown += &format!("\n  mend: {}", finding.mend);
        }
        shown
    }

    fn marked(&self, line: usize, column: usize, span: &Range<usize>) -> String {
        let text = self.text.lines().nth(line - 1).unwrap_or_default();
        let shown: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        let inside = self.text[self.border(span.start)..self.border(span.end.max(span.start))]
            .lines()
            .next()
            .map_or(0, |part| part.chars().count());
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let lead = " ".repeat(column.saturating_sub(1).min(200));
        let mark = "^".repeat(inside.clamp(1, 200));
        format!("  {number} | {shown}\n  {margin} | {lead}{mark}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beside faults, warnings only distract: they may follow from what is broken.
        let broken = self.faults() > 0;
        let told = |finding: &&Finding| !broken || finding.severity == Severity::Fault;
        for finding in self.findings().into_iter().filter(told) {
            writeln!(f, "{}", self.show(finding))?;
        }
        Ok(())
    }
}

/// The word of `known` that is closest to `word`, if one is close enough to be a slip of the hand.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| {
            let other = candidate.to_lowercase().replace('-', "_");
            let near = if other.contains(&folded) && folded.len() >= 4 {
                1
            } else {
                distance(&folded, &other)
            };
            (near, candidate)
        })
        .filter(|(near, candidate)| *near <= (candidate.len() / 3).clamp(1, 4))
        .min_by_key(|(near, _)| *near)
        .map(|(_, candidate)| candidate)
}

/// Edits between two short words (insert, delete, replace, swap of neighbours).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_hand_are_recognised() {
        let known = ["message_bytes_max", "recipients_max", "mx", "mxs"];
        assert_eq!(nearest("mesage_bytes_max", known), Some("message_bytes_max"));
        assert_eq!(nearest("message-bytes-max", known), Some("message_bytes_max"));
        assert_eq!(nearest("recipients", known), Some("recipients_max"));
        assert_eq!(nearest("mz", known), Some("mx"));
        assert_eq!(nearest("colour", known), None);
    }

    #[test]
    fn places_count_characters_and_the_mark_stands_below_the_word() {
        let text = "a = 1\nnäme = \"x\"\n";
        let mut report = Report::new(Path::new("f.toml"), text);
        let start = text.find("\"x\"").expect("there");
        report.fault(start..start + 3, "wrong", "right");
        let shown = report.to_string();
        assert_eq!(
            shown,
            "f.toml:2:8: wrong\n  2 | näme = \"x\"\n    |        ^^^\n  mend: right\n"
        );
    }
}
