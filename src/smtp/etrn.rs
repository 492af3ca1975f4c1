//! The argument of ETRN.
//!
//! Called by the session. Pure; whose a node is, the provider says.
//!
//! Keeps RFC 1985 §5 (a fully qualified name) and §5.3 (`@` and `#`).

use super::refusal::Refusal;
use crate::mail::{CustomerName, Domain};

/// What a customer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// One domain.
    Domain(Domain),
    /// `@`: this domain and everything below it.
    Within(Domain),
    /// `#`: everything of the customer of this name.
    Queue(CustomerName),
}

/// Reads the argument.
///
/// # Errors
/// [`Refusal::NoNode`] if there is none, [`Refusal::BadNode`] if it is no node.
pub fn read(argument: &str) -> Result<Node, Refusal> {
    let text = argument.trim_matches([' ', '\t']);
    match text.as_bytes().first() {
        None => Err(Refusal::NoNode),
        Some(b'@') => domain(&text[1..]).map(Node::Within),
        Some(b'#') => {
            let name = CustomerName::parse(&text[1..]).map_err(|_| Refusal::BadNode)?;
            Ok(Node::Queue(name))
        }
        Some(_) => {
            let domain = domain(text)?;
            // `@com` is a question of whose it is; a bare `com` is not a node at all.
            domain.has_two_labels().then_some(Node::Domain(domain)).ok_or(Refusal::BadNode)
        }
    }
}

fn domain(text: &str) -> Result<Domain, Refusal> {
    let domain = text.is_ascii().then(|| Domain::parse(text)).and_then(Result::ok);
    domain.ok_or(Refusal::BadNode)
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: E-02, E-04, E-12, E-14, E-15, D8
    #[test]
    fn nodes_and_what_is_none() {
        let domain = |text| Domain::parse(text).expect("valid");
        assert_eq!(read("Example.org"), Ok(Node::Domain(domain("example.org"))));
        assert_eq!(read(" example.org. "), Ok(Node::Domain(domain("example.org"))));
        assert_eq!(read("@example.org"), Ok(Node::Within(domain("example.org"))));
        assert_eq!(read("@com"), Ok(Node::Within(domain("com"))));
        assert_eq!(read("#acme"), Ok(Node::Queue(CustomerName::parse("acme").expect("valid"))));
        assert_eq!(read(""), Err(Refusal::NoNode));
        assert_eq!(read(" \t"), Err(Refusal::NoNode));
        for bad in [
            "localname",
            "@",
            "#",
            "@.",
            "#A",
            "a b.example",
            "#'),('x','1'",
            "' OR '1'='1",
            "[192.0.2.1]",
            "bücher.example",
            "xn--example-.org",
            "-a.example",
            "*",
        ] {
            assert_eq!(read(bad), Err(Refusal::BadNode), "{bad}");
        }
    }
}
