//! What a customer's server offers in its reply to EHLO.
//!
//! Read anew on every connection (RFC 2645 §5.3: what was said before the turn counts no more). Unknown keywords
//! are ignored. It never decides what is done with an offer.
//!
//! Keeps RFC 5321 §4.1.1.1, RFC 1870 §3, RFC 2920 §2, RFC 3030 §2, RFC 3461 §5.2, RFC 6152 §2, RFC 6531 §3.1 and
//! RFC 9422 §4.

/// The offers that matter to us; the default is a server that offers nothing, as after HELO.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Extensions {
    /// SIZE: `Some(0)` without or with no limit, else the largest message in octets.
    pub size: Option<u64>,
    /// PIPELINING.
    pub pipelining: bool,
    /// 8BITMIME.
    pub eight_bit_mime: bool,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// CHUNKING.
    pub chunking: bool,
    /// DSN.
    pub dsn: bool,
    /// ENHANCEDSTATUSCODES.
    pub enhanced_status_codes: bool,
    /// STARTTLS.
    pub starttls: bool,
    /// Most recipients in a transaction (LIMITS RCPTMAX).
    pub recipients_max: Option<u64>,
    /// Most transactions on a connection (LIMITS MAILMAX).
    pub mails_max: Option<u64>,
    /// Most different domains among the recipients of a transaction (LIMITS RCPTDOMAINMAX).
    pub domains_max: Option<u64>,
}

impl Extensions {
    /// Reads the lines of a positive reply to EHLO, separated by line feeds, without their codes. The first is
    /// the server's name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.split('\n').skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_str() {
                "SIZE" => found.size = Some(words.next().map_or(0, size_of)),
                "PIPELINING" => found.pipelining = true,
                "8BITMIME" => found.eight_bit_mime = true,
                "SMTPUTF8" => found.smtputf8 = true,
                "CHUNKING" => found.chunking = true,
                "DSN" => found.dsn = true,
                "ENHANCEDSTATUSCODES" => found.enhanced_status_codes = true,
                "STARTTLS" => found.starttls = true,
                "LIMITS" => words.for_each(|limit| found.limit(limit)),
                _ => {}
            }
        }
        found
    }

    /// `RCPTMAX=10`; a limit that cannot be read, or of zero, is none (RFC 9422 §3: at least one).
    fn limit(&mut self, text: &str) {
        let Some((name, value)) = text.split_once('=') else { return };
        let value = value.parse().ok().filter(|value| *value > 0);
        match name.to_ascii_uppercase().as_str() {
            "RCPTMAX" => self.recipients_max = value,
            "MAILMAX" => self.mails_max = value,
            "RCPTDOMAINMAX" => self.domains_max = value,
            _ => {}
        }
    }

    /// Whether a message of this many octets is within SIZE.
    #[must_use]
    pub fn takes_size(&self, octets: u64) -> bool {
        self.size.is_none_or(|max| max == 0 || octets <= max)
    }
}

/// SIZE's number of up to 20 digits (RFC 1870 §3); one that cannot be read says nothing.
fn size_of(digits: &str) -> u64 {
    if digits.len() <= 20 && digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().unwrap_or(0)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_in_any_case_and_unknown_ones() {
        let found = Extensions::parse(
            "mx.example PIPELINING\nsize 1000\n8bitmime\nX-UNKNOWN a b\n\nChunking\nDSN\nSMTPUTF8\n\
             LIMITS MAILMAX=5 RCPTMAX=2 X=1 rcptdomainmax=3 RCPTDOMAINMAX\nENHANCEDSTATUSCODES",
        );
        let expected = Extensions {
            size: Some(1000),
            pipelining: false,
            eight_bit_mime: true,
            smtputf8: true,
            chunking: true,
            dsn: true,
            enhanced_status_codes: true,
            starttls: false,
            recipients_max: Some(2),
            mails_max: Some(5),
            domains_max: Some(3),
        };
        assert_eq!(found, expected);
        assert_eq!(Extensions::parse("only.a.name"), Extensions::default());
    }

    #[test]
    fn sizes() {
        for (line, octets, taken) in [
            ("SIZE 10", 10, true),
            ("SIZE 10", 11, false),
            ("SIZE 0", 11, true),
            ("SIZE", 11, true),
            ("SIZE many", 11, true),
            ("SIZE 99999999999999999999", 11, true),
            ("LIMITS RCPTMAX=0", 11, true),
        ] {
            assert_eq!(
                Extensions::parse(&format!("x\n{line}")).takes_size(octets),
                taken,
                "{line}"
            );
        }
        assert_eq!(Extensions::parse("x\nLIMITS RCPTMAX=0").recipients_max, None);
    }
}
