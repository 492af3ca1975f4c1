//! The reader: TOML into checked values, with every complaint in its place.
//!
//! Called by [`super::load`]. Works from the table of keys, goes on after a fault to find the next one, and
//! leaves questions that concern several keys at once to `cross`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS, Key, Kind, SECTIONS};
use super::place::{Report, nearest};
use super::units;
use super::value::{Value, check};

/// A value and where it stands; no span for a default.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) value: Value,
    pub(super) span: Option<Range<usize>>,
}

/// Values by path.
pub(super) type Values = BTreeMap<&'static str, Found>;

/// Reads `text`; what is wrong goes to `report`, defaults stand for what is absent. The second part is whether
/// it is TOML throughout: if not, what is absent may only be unread.
pub(super) fn read(text: &str, report: &mut Report) -> (Values, bool) {
    let mut values = Values::new();
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().and_then(|span| text.get(span)).unwrap_or_default();
        let (what, mend) = syntax(error.message(), at);
        report.fault(error.span(), what, mend);
    }
    let top = root.get_ref();
    for (name, value) in top {
        match value.get_ref() {
            DeValue::Table(table) if is_section(name.get_ref()) => {
                section(name.get_ref(), table, &mut values, report);
            }
            // After a broken line, what looks like a section may be none.
            DeValue::Table(_) if !errors.is_empty() => {}
            DeValue::Table(_) => unknown_section(name, report),
            _ if is_section(name.get_ref()) => report.fault(
                name.span(),
                format!("`{}` is a section, not a key", name.get_ref()),
                format!("write [{}] on a line of its own and its keys below", name.get_ref()),
            ),
            _ => entry("", name, value, &mut values, report),
        }
    }
    for key in KEYS {
        if key.default.is_empty() || values.contains_key(key.path) {
            continue;
        }
        if let Some(value) = default_of(key) {
            values.insert(key.path, Found { value, span: None });
        }
    }
    (values, errors.is_empty())
}

fn is_section(name: &str) -> bool {
    !name.is_empty() && SECTIONS.contains(&name)
}

/// The default of a key as a value; `None` for a key without one.
pub(super) fn default_of(key: &Key) -> Option<Value> {
    let parsed = DeValue::parse(key.default).ok()?;
    check(key.kind, &parsed).ok()
}

/// What the parser said, in words that say what to do.
fn syntax(message: &str, at: &str) -> (String, &'static str) {
    let what = message.lines().next().unwrap_or("not TOML").to_owned();
    if message.contains("duplicate") {
        return (format!("`{at}` stands here a second time"), "keep one of the two");
    }
    let mend = if message.contains("string") || message.contains("quot") {
        "texts stand between double quotes, each opened and closed on the same line"
    } else if message.contains("table") {
        "a section is written [name] on a line of its own"
    } else if message.contains("expected newline") {
        "write one setting a line"
    } else if message.contains('=') || message.contains("key with no value") {
        "a line is `key = value`, `[section]`, or a comment that starts with #"
    } else if message.contains(']') || message.contains("array") {
        "lists are written [\"one\", \"two\"]"
    } else {
        "see https://toml.io for the form of the file"
    };
    (what, mend)
}

fn unknown_section(name: &Spanned<Cow<'_, str>>, report: &mut Report) {
    let word = name.get_ref();
    let mend = match nearest(word, SECTIONS.into_iter().filter(|s| !s.is_empty())) {
        Some(near) => format!("did you mean [{near}]?"),
        None => format!("the sections are {}", SECTIONS[1..].join(", ")),
    };
    report.fault(name.span(), format!("unknown section [{word}]"), mend);
}

fn section(name: &str, table: &DeTable<'_>, values: &mut Values, report: &mut Report) {
    for (key, value) in table {
        entry(name, key, value, values, report);
    }
}

fn entry(
    section: &str,
    name: &Spanned<Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    values: &mut Values,
    report: &mut Report,
) {
    let path = if section.is_empty() {
        name.get_ref().to_string()
    } else {
        format!("{section}.{}", name.get_ref())
    };
    let Some(key) = keys::find(&path) else {
        unknown_key(section, name, report);
        return;
    };
    match check(key.kind, value) {
        Ok(checked) => {
            below_rfc(key, &checked, value.span(), report);
            values.insert(key.path, Found { value: checked, span: Some(value.span()) });
        }
        Err(wrongs) => {
            for wrong in wrongs {
                report.fault(wrong.span, format!("{path}: {}", wrong.what), wrong.mend);
            }
        }
    }
    if let Some(instead) = keys::pending(key.path)
        && !holds(key, values)
    {
        report.warning(
            name.span(),
            format!("`{path}` has no effect in this version: {instead}"),
            "",
        );
    }
}

/// Whether a pending key is set to what the program does anyway.
fn holds(key: &Key, values: &Values) -> bool {
    let Some(found) = values.get(key.path) else { return true };
    let kept = keys::holds(key.path).and_then(|kept| DeValue::parse(kept).ok());
    kept.and_then(|kept| check(key.kind, &kept).ok()).is_some_and(|kept| same(&kept, &found.value))
}

/// Equal but for the places.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Addresses(a), Value::Addresses(b)) => {
            a.iter().map(|x| x.0).eq(b.iter().map(|x| x.0))
        }
        _ => a == b,
    }
}

fn unknown_key(section: &str, name: &Spanned<Cow<'_, str>>, report: &mut Report) {
    let word = name.get_ref();
    let place =
        if section.is_empty() { "at the top".to_owned() } else { format!("in [{section}]") };
    let here = KEYS.iter().filter(|key| key.section() == section).map(Key::name);
    let elsewhere = KEYS.iter().find(|key| key.name() == word && key.section() != section);
    let mend = if let Some(near) = nearest(word, here.clone()) {
        format!("did you mean `{near}`?")
    } else if let Some(key) = elsewhere {
        match key.section() {
            "" => format!("`{word}` stands at the top of the file, above the first [section]"),
            other => format!("`{word}` belongs into [{other}]"),
        }
    } else if let Some(near) = nearest(word, KEYS.iter().map(Key::name)) {
        let key = KEYS.iter().find(|key| key.name() == near);
        format!("did you mean `{}`?", key.map_or(near, |key| key.path))
    } else {
        format!("the keys {place} are {}", here.collect::<Vec<_>>().join(", "))
    };
    report.fault(name.span(), format!("unknown key `{word}` {place}"), mend);
}

/// Values that work but that the RFCs do not want a server to have.
fn below_rfc(key: &Key, value: &Value, span: Range<usize>, report: &mut Report) {
    let (least, shown) = match key.kind {
        Kind::Count(_, _, least) => (least, least.to_string()),
        Kind::Size(least) => (least, units::show_size(least)),
        _ => return,
    };
    if matches!(value, Value::Number(number) if *number < least) {
        let source = match key.path {
            "auth.failures_max" => "RFC 4954 section 9",
            "limits.received_max" => "RFC 5321 section 6.3",
            _ => "RFC 5321 section 4.5.3.1",
        };
        report.warning(
            span,
            format!("{} is below {shown}, which {source} asks for", key.path),
            format!("set it to {shown} or more, unless this is a test"),
        );
    }
}
