//! One value of the configuration: from TOML to a checked value, or what is wrong with it and how to write it.
//!
//! Called by the reader for each key with the form that the table of keys asks for.

use std::net::SocketAddr;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::keys::Kind;
use super::place::nearest;
use super::units;
use crate::mail::{Domain, Network};

/// A checked value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Domain(Domain),
    Path(String),
    Addresses(Vec<(SocketAddr, Range<usize>)>),
    Word(String),
    Words(Vec<String>),
    Bool(bool),
    Number(u64),
    Numbers(Vec<u64>),
}

/// A value that will not do.
pub(super) struct Wrong {
    pub(super) span: Range<usize>,
    pub(super) what: String,
    pub(super) mend: String,
}

fn wrong(span: Range<usize>, what: impl Into<String>, mend: impl Into<String>) -> Vec<Wrong> {
    vec![Wrong { span, what: what.into(), mend: mend.into() }]
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// Reads one value in the form `kind`.
pub(super) fn check(kind: Kind, value: &Spanned<DeValue<'_>>) -> Result<Value, Vec<Wrong>> {
    let span = value.span();
    match kind {
        Kind::Bool => match value.get_ref() {
            DeValue::Boolean(yes) => Ok(Value::Bool(*yes)),
            DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => Err(wrong(
                span,
                "true and false are written without quotes",
                format!("write {text}"),
            )),
            other => Err(wrong(
                span,
                format!("{} where true or false is wanted", kind_of(other)),
                "write true or false",
            )),
        },
        Kind::Count(least, most, _) => count(value, least, most),
        Kind::Addresses => list(value, address).map(Value::Addresses),
        Kind::Choices(words) => choices(value, words),
        Kind::Networks => list(value, network).map(Value::Words),
        Kind::Folders => list(value, folder).map(Value::Words),
        Kind::Times => {
            let single = matches!(value.get_ref(), DeValue::String(_));
            let times = if single { time(value).map(|one| vec![one]) } else { list(value, time) }?;
            if times.is_empty() {
                return Err(wrong(
                    span,
                    "the list is empty",
                    "give at least one time, as in [\"5m\"]",
                ));
            }
            Ok(Value::Numbers(times))
        }
        Kind::Size(_) => {
            number_with_unit(value, units::size, units::bare_size, "\"50 MiB\"").map(Value::Number)
        }
        Kind::Time => time(value).map(Value::Number),
        Kind::Domain | Kind::Path | Kind::Choice(_) | Kind::Route | Kind::Text => text(kind, value),
    }
}

fn text(kind: Kind, value: &Spanned<DeValue<'_>>) -> Result<Value, Vec<Wrong>> {
    let span = value.span();
    let DeValue::String(text) = value.get_ref() else {
        let what = format!("{} where a text is wanted", kind_of(value.get_ref()));
        let mend = match (value.get_ref(), kind) {
            (DeValue::Float(number), Kind::Choice(_)) => format!("write \"{}\"", number.as_str()),
            _ => "write it between double quotes".into(),
        };
        return Err(wrong(span, what, mend));
    };
    if text.chars().any(char::is_control) {
        return Err(wrong(span, "the text holds control characters", "remove them"));
    }
    match kind {
        Kind::Domain => Domain::parse(text).map(Value::Domain).map_err(|error| {
            wrong(
                span,
                format!("`{text}`: {error}"),
                "write a host name, as in \"mx.provider.example\"",
            )
        }),
        Kind::Choice(words) => choice(text, words, span).map(Value::Word),
        Kind::Route => route(text, span),
        _ if text.is_empty() => {
            Err(wrong(span, "the text is empty", "fill it in, or remove the line"))
        }
        Kind::Path => Ok(Value::Path(text.to_string())),
        _ => Ok(Value::Word(text.to_string())),
    }
}

fn choice(text: &str, words: &[&str], span: Range<usize>) -> Result<String, Vec<Wrong>> {
    if let Some(word) = words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
        return Ok((*word).to_owned());
    }
    let all = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let mend = match nearest(text, words.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("write one of {all}"),
    };
    Err(wrong(span, format!("`{text}` is not one of {all}"), mend))
}

fn choices(
    value: &Spanned<DeValue<'_>>,
    words: &'static [&'static str],
) -> Result<Value, Vec<Wrong>> {
    let chosen = list(value, |item| match item.get_ref() {
        DeValue::String(text) => choice(text, words, item.span()).map(|word| (word, item.span())),
        other => Err(wrong(
            item.span(),
            format!("{} where a text is wanted", kind_of(other)),
            "write it between double quotes",
        )),
    })?;
    if chosen.is_empty() {
        return Err(wrong(
            value.span(),
            "the list is empty",
            format!("name some of {}", words.join(", ")),
        ));
    }
    for (index, (word, span)) in chosen.iter().enumerate() {
        if chosen[..index].iter().any(|(earlier, _)| earlier == word) {
            return Err(wrong(
                span.clone(),
                format!("`{word}` stands here twice"),
                "remove one of the two",
            ));
        }
    }
    Ok(Value::Words(chosen.into_iter().map(|(word, _)| word).collect()))
}

fn route(text: &str, span: Range<usize>) -> Result<Value, Vec<Wrong>> {
    let is_place = text.rsplit_once(':').is_some_and(|(host, port)| {
        let named = Domain::parse(host).is_ok()
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        named && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if is_place || matches!(text, "mx" | "none") {
        return Ok(Value::Word(text.to_owned()));
    }
    let what = format!("`{text}` is no route");
    Err(wrong(
        span,
        what,
        "write \"mx\", \"none\", or a host and a port, as in \"smtp.example.net:587\"",
    ))
}

fn count(value: &Spanned<DeValue<'_>>, least: u64, most: u64) -> Result<Value, Vec<Wrong>> {
    let span = value.span();
    let DeValue::Integer(number) = value.get_ref() else {
        let what = format!("{} where a whole number is wanted", kind_of(value.get_ref()));
        return Err(wrong(span, what, "write a number without quotes, as in 1000"));
    };
    match u64::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) if (least..=most).contains(&number) => Ok(Value::Number(number)),
        _ => Err(wrong(
            span,
            format!("{number} is out of range"),
            format!("write a number from {least} to {most}"),
        )),
    }
}

fn list<T>(
    value: &Spanned<DeValue<'_>>,
    each: impl Fn(&Spanned<DeValue<'_>>) -> Result<T, Vec<Wrong>>,
) -> Result<Vec<T>, Vec<Wrong>> {
    let DeValue::Array(items) = value.get_ref() else {
        let what = format!("{} where a list is wanted", kind_of(value.get_ref()));
        let mend = match value.get_ref() {
            DeValue::String(text) => format!("write [\"{text}\"]"),
            _ => "write it between brackets, as in [\"one\", \"two\"]".into(),
        };
        return Err(wrong(value.span(), what, mend));
    };
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for item in items.iter() {
        match each(item) {
            Ok(item) => good.push(item),
            Err(wrongs) => bad.extend(wrongs),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

fn address(item: &Spanned<DeValue<'_>>) -> Result<(SocketAddr, Range<usize>), Vec<Wrong>> {
    let span = item.span();
    let DeValue::String(text) = item.get_ref() else {
        let what = format!("{} where \"address:port\" is wanted", kind_of(item.get_ref()));
        return Err(wrong(span, what, "write it as in \"[::]:25\" or \"127.0.0.1:2525\""));
    };
    text.parse().map(|address| (address, span.clone())).map_err(|_| {
        let mend = match text.parse::<u16>() {
            Ok(port) => format!("write the address too: \"[::]:{port}\" for all, \"127.0.0.1:{port}\" for this machine only"),
            Err(_) if text.matches(':').count() > 1 && !text.contains('[') => {
                "an IPv6 address stands in brackets, as in \"[2001:db8::1]:25\"".into()
            }
            Err(_) if text.parse::<std::net::IpAddr>().is_ok() => format!("add the port, as in \"{text}:25\""),
            Err(_) => "write an IP address and a port, as in \"[::]:25\" or \"127.0.0.1:2525\"; names are not looked up".into(),
        };
        wrong(span, format!("`{text}` is no address with a port"), mend)
    })
}

fn time(value: &Spanned<DeValue<'_>>) -> Result<u64, Vec<Wrong>> {
    number_with_unit(value, units::time, units::bare_time, "\"30d\"")
}

fn number_with_unit(
    value: &Spanned<DeValue<'_>>,
    read: fn(&str) -> Result<u64, String>,
    bare: fn(u64) -> String,
    example: &str,
) -> Result<u64, Vec<Wrong>> {
    let said = match value.get_ref() {
        DeValue::String(text) => match read(text) {
            Ok(number) => return Ok(number),
            Err(said) => said,
        },
        DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => bare(number),
            Err(_) => {
                format!("{number} is out of range; write a text with a unit, as in {example}")
            }
        },
        other => format!(
            "{} where a number with a unit is wanted; write it as in {example}",
            kind_of(other)
        ),
    };
    let (what, mend) = said.split_once("; ").unwrap_or((&said, "write a whole number and a unit"));
    Err(wrong(value.span(), what, mend))
}

fn network(item: &Spanned<DeValue<'_>>) -> Result<String, Vec<Wrong>> {
    let DeValue::String(text) = item.get_ref() else {
        let what = format!("{} where a network is wanted", kind_of(item.get_ref()));
        return Err(wrong(item.span(), what, "write it as in \"192.0.2.0/24\""));
    };
    match text.parse::<Network>() {
        Ok(network) => Ok(network.to_string()),
        Err(what) => Err(wrong(item.span(), what, "write it as in \"192.0.2.0/24\"")),
    }
}

fn folder(item: &Spanned<DeValue<'_>>) -> Result<String, Vec<Wrong>> {
    match text(Kind::Path, item)? {
        Value::Path(path) => Ok(path),
        // The form above gives nothing else.
        _ => Err(wrong(item.span(), "no folder", "write its path between double quotes")),
    }
}
