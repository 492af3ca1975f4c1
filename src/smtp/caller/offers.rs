//! What a provider offers in its reply to EHLO (RFC 5321 §4.1.1.1).
//!
//! Read by the caller before and after TLS; what was said before is forgotten. It judges nothing.

use crate::smtp::sender::PeerReply;

/// The keywords that matter to a customer, and all lines for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// The first line: the provider's name and what it adds.
    pub greeting: String,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 2645 §5.1.1. Some providers show it after the login only, so its absence proves nothing.
    pub atrn: bool,
    /// SASL mechanisms, upper case, in the order given (RFC 4954 §3).
    pub mechanisms: Vec<String>,
    /// Every keyword line.
    pub keywords: Vec<String>,
}

impl Offers {
    /// Reads a reply to EHLO.
    #[must_use]
    pub fn read(reply: &PeerReply) -> Self {
        let mut offers = Self::default();
        let mut lines = reply.lines();
        offers.greeting = lines.next().unwrap_or_default().to_owned();
        for line in lines {
            let upper = line.trim().to_ascii_uppercase();
            // "AUTH=LOGIN PLAIN" is the form of drafts before RFC 2554, still seen.
            let mut words = upper.split([' ', '=', '\t']).filter(|word| !word.is_empty());
            match words.next() {
                Some("STARTTLS") => offers.starttls = true,
                Some("ATRN") => offers.atrn = true,
                Some("AUTH") => {
                    for word in words {
                        if !offers.mechanisms.iter().any(|known| known == word) {
                            offers.mechanisms.push(word.to_owned());
                        }
                    }
                }
                _ => {}
            }
            offers.keywords.push(line.trim().to_owned());
        }
        offers
    }
}
