//! The verbs: at which door each is understood, in which phase, with which argument, and how it is to be handled.
//!
//! One table. Dispatch, the limits of lines, the masking of secrets in traces and the documents come from it; what
//! a verb does is in `session`.

use super::Door;

/// A command word that we know, understood at this door or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// RFC 5321 §4.1.1.1.
    Ehlo,
    /// RFC 5321 §4.1.1.1.
    Helo,
    /// RFC 3207 §4.
    StartTls,
    /// RFC 4954 §4.
    Auth,
    /// RFC 2645 §5.2.1.
    Atrn,
    /// RFC 1985.
    Etrn,
    /// RFC 5321 §4.1.1.2.
    Mail,
    /// RFC 5321 §4.1.1.3.
    Rcpt,
    /// RFC 5321 §4.1.1.4.
    Data,
    /// RFC 3030 §2.
    Bdat,
    /// RFC 5321 §4.1.1.5.
    Rset,
    /// RFC 5321 §4.1.1.6.
    Vrfy,
    /// RFC 5321 §4.1.1.7.
    Expn,
    /// RFC 5321 §4.1.1.8.
    Help,
    /// RFC 5321 §4.1.1.9.
    Noop,
    /// RFC 5321 §4.1.1.10.
    Quit,
    /// RFC 5321 appendix F.1: never done, since it asks for no login.
    Turn,
    /// RFC 5321 appendix F.6.
    Send,
    /// RFC 5321 appendix F.6.
    Soml,
    /// RFC 5321 appendix F.6.
    Saml,
    /// RFC 4468: submission only.
    Burl,
}

/// In which phases a verb makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// After EHLO or HELO.
    AfterHello,
    /// After EHLO or HELO, outside a transaction.
    OutsideTransaction,
    /// Inside a transaction.
    InTransaction,
}

/// Whether something follows the verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing may.
    None,
    /// Something may.
    Optional,
    /// Something must.
    Required,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The verb.
    pub verb: Verb,
    /// As it is written.
    pub word: &'static str,
    /// Doors at which it is understood; elsewhere 502.
    pub doors: &'static [Door],
    /// Phases; otherwise 503.
    pub when: When,
    /// Argument; otherwise 501.
    pub argument: Argument,
    /// Ends a pipelined group (RFC 2920 §3.1).
    pub is_last_of_group: bool,
    /// Its argument must not be seen in logs and traces.
    pub is_secret: bool,
    /// Longest line in octets without CRLF; RFC 5321 §4.5.3.1.4 asks for 510, the extensions for up to 2 KiB more.
    pub line_bytes_max: usize,
}

/// Longest line of ordinary verbs.
pub const LINE_BYTES_MAX: usize = 4096;

/// Longest line of ATRN: a list of thousands of domains.
pub const ATRN_BYTES_MAX: usize = 65_536;

const BOTH: &[Door] = &[Door::Mx, Door::Odmr];
const MX: &[Door] = &[Door::Mx];
const ODMR: &[Door] = &[Door::Odmr];
const NOWHERE: &[Door] = &[];

const fn row(
    verb: Verb,
    word: &'static str,
    doors: &'static [Door],
    when: When,
    argument: Argument,
) -> Row {
    let line_bytes_max = LINE_BYTES_MAX;
    Row {
        verb,
        word,
        doors,
        when,
        argument,
        is_last_of_group: false,
        is_secret: false,
        line_bytes_max,
    }
}

const fn last(row: Row) -> Row {
    Row { is_last_of_group: true, ..row }
}

/// The table. RSET, MAIL, RCPT and BDAT may stand anywhere in a pipelined group; BDAT LAST and all verbs of
/// extensions that do not say otherwise end one (RFC 2920 §3.1, RFC 3030 §4.2).
pub const VERBS: &[Row] = &[
    last(row(Verb::Ehlo, "EHLO", BOTH, When::Always, Argument::Required)),
    last(row(Verb::Helo, "HELO", BOTH, When::Always, Argument::Required)),
    last(row(Verb::StartTls, "STARTTLS", BOTH, When::AfterHello, Argument::None)),
    last(Row {
        is_secret: true,
        ..row(Verb::Auth, "AUTH", BOTH, When::OutsideTransaction, Argument::Required)
    }),
    last(Row {
        line_bytes_max: ATRN_BYTES_MAX,
        ..row(Verb::Atrn, "ATRN", ODMR, When::OutsideTransaction, Argument::Optional)
    }),
    // RFC 1985 §5: even before EHLO; and without an argument it is 500, not 501 (§7).
    last(row(Verb::Etrn, "ETRN", MX, When::Always, Argument::Optional)),
    row(Verb::Mail, "MAIL", MX, When::OutsideTransaction, Argument::Required),
    row(Verb::Rcpt, "RCPT", MX, When::InTransaction, Argument::Required),
    last(row(Verb::Data, "DATA", MX, When::InTransaction, Argument::None)),
    // BDAT judges its phase itself: the chunk has to be swallowed first.
    row(Verb::Bdat, "BDAT", MX, When::Always, Argument::Required),
    row(Verb::Rset, "RSET", BOTH, When::Always, Argument::None),
    last(row(Verb::Vrfy, "VRFY", MX, When::Always, Argument::Required)),
    last(row(Verb::Expn, "EXPN", NOWHERE, When::Always, Argument::Required)),
    row(Verb::Help, "HELP", BOTH, When::Always, Argument::Optional),
    last(row(Verb::Noop, "NOOP", BOTH, When::Always, Argument::Optional)),
    last(row(Verb::Quit, "QUIT", BOTH, When::Always, Argument::None)),
    last(row(Verb::Turn, "TURN", NOWHERE, When::Always, Argument::Optional)),
    row(Verb::Send, "SEND", NOWHERE, When::Always, Argument::Optional),
    row(Verb::Soml, "SOML", NOWHERE, When::Always, Argument::Optional),
    row(Verb::Saml, "SAML", NOWHERE, When::Always, Argument::Optional),
    row(Verb::Burl, "BURL", NOWHERE, When::Always, Argument::Optional),
];

impl Verb {
    /// The verb of this word, in any case.
    #[must_use]
    pub fn find(word: &str) -> Option<&'static Row> {
        VERBS.iter().find(|row| row.word.eq_ignore_ascii_case(word))
    }

    /// Its row.
    #[must_use]
    pub fn row(self) -> &'static Row {
        // Every verb has a row; a test counts them.
        VERBS.iter().find(|row| row.verb == self).unwrap_or(&VERBS[0])
    }

    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.row().word
    }
}

/// Whether the argument of this line must not be seen in logs and traces.
#[must_use]
pub fn is_secret(line: &[u8]) -> bool {
    VERBS.iter().filter(|row| row.is_secret).any(|row| {
        line.get(..row.word.len())
            .is_some_and(|word| word.eq_ignore_ascii_case(row.word.as_bytes()))
    })
}

/// The words with which other protocols begin and no mail client does: a browser that was made to talk to us
/// (CVE-2021-3618).
const NOT_SMTP: [&str; 9] =
    ["GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE"];

/// Whether this line belongs to HTTP.
#[must_use]
pub fn is_http(word: &str, argument: &str) -> bool {
    NOT_SMTP.iter().any(|verb| verb.eq_ignore_ascii_case(word)) && argument.contains("HTTP/")
        || word.to_ascii_uppercase().starts_with("HTTP/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_its_row() {
        for row in VERBS {
            assert_eq!(row.verb.row().word, row.word);
            assert_eq!(
                Verb::find(&row.word.to_lowercase()).map(|found| found.verb),
                Some(row.verb)
            );
        }
        let all = [
            Verb::Ehlo,
            Verb::Helo,
            Verb::StartTls,
            Verb::Auth,
            Verb::Atrn,
            Verb::Etrn,
            Verb::Mail,
            Verb::Rcpt,
            Verb::Data,
            Verb::Bdat,
            Verb::Rset,
            Verb::Vrfy,
            Verb::Expn,
            Verb::Help,
            Verb::Noop,
            Verb::Quit,
            Verb::Turn,
            Verb::Send,
            Verb::Soml,
            Verb::Saml,
            Verb::Burl,
        ];
        assert_eq!(all.len(), VERBS.len());
        assert!(all.iter().all(|verb| verb.row().verb == *verb));
    }

    // covers: O-02, O-27, D-17
    #[test]
    fn the_odmr_profile() {
        let words: Vec<_> = VERBS
            .iter()
            .filter(|row| row.doors.contains(&Door::Odmr))
            .map(|row| row.word)
            .collect();
        assert_eq!(
            words,
            ["EHLO", "HELO", "STARTTLS", "AUTH", "ATRN", "RSET", "HELP", "NOOP", "QUIT"]
        );
    }

    #[test]
    fn secrets_and_http() {
        assert!(is_secret(b"auth plain AGFAYgBj") && !is_secret(b"MAIL FROM:<auth@x>"));
        assert!(is_http("POST", "/ HTTP/1.1") && is_http("HTTP/1.1", "200 OK"));
        assert!(!is_http("GET", "x") && !is_http("MAIL", "FROM:<HTTP/@x>"));
    }
}
