//! The effective settings, for people (TOML with origins) and for scripts (JSON).

use super::keys::{KEYS, Key, Kind, SECTIONS, pending};
use super::place::Report;
use super::read::{Found, Values};
use super::units;
use super::value::Value;

/// TOML that would give the same configuration, each line with where its value comes from.
pub(super) fn toml(values: &Values, report: &Report) -> String {
    let mut shown = String::new();
    for section in SECTIONS {
        if !section.is_empty() {
            shown += &format!("\n[{section}]\n");
        }
        for key in KEYS.iter().filter(|key| key.section() == section) {
            shown += &line(key, values.get(key.path), report);
            shown.push('\n');
        }
    }
    shown
}

fn line(key: &Key, found: Option<&Found>, report: &Report) -> String {
    let Some(found) = found else { return format!("# {} is not set", key.name()) };
    let origin = match &found.span {
        None => "default".to_owned(),
        Some(span) => format!("line {}", report.line_and_column(span.start).0),
    };
    let silent = if pending(key.path).is_some() { "; no effect in this version" } else { "" };
    format!("{} = {}  # {origin}{silent}", key.name(), text(key.kind, &found.value))
}

fn text(kind: Kind, value: &Value) -> String {
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let number = |number: &u64| match kind {
        Kind::Size(_) => quoted(&units::show_size(*number)),
        Kind::Time | Kind::Times => quoted(&units::show_time(*number)),
        _ => number.to_string(),
    };
    match value {
        Value::Domain(domain) => quoted(domain.as_str()),
        Value::Path(text) | Value::Word(text) => quoted(text),
        Value::Addresses(all) => list(all.iter().map(|(a, _)| quoted(&a.to_string())).collect()),
        Value::Words(words) => list(words.iter().map(|word| quoted(word)).collect()),
        Value::Bool(yes) => yes.to_string(),
        Value::Number(one) => number(one),
        Value::Numbers(all) => list(all.iter().map(number).collect()),
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Sections as objects; sizes in octets and times in seconds as the texts of the file.
pub(super) fn json(values: &Values) -> serde_json::Value {
    let mut root = serde_json::Map::new();
    for key in KEYS {
        let value =
            values.get(key.path).map_or(serde_json::Value::Null, |f| plain(key.kind, &f.value));
        match key.section() {
            "" => {
                root.insert(key.name().into(), value);
            }
            section => {
                let place = root.entry(section).or_insert_with(|| serde_json::json!({}));
                if let Some(place) = place.as_object_mut() {
                    place.insert(key.name().into(), value);
                }
            }
        }
    }
    root.into()
}

fn plain(kind: Kind, value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(yes) => (*yes).into(),
        Value::Number(number) if matches!(kind, Kind::Count(..)) => (*number).into(),
        Value::Domain(domain) => domain.as_str().into(),
        Value::Path(text) | Value::Word(text) => text.as_str().into(),
        Value::Number(number) if matches!(kind, Kind::Size(_)) => units::show_size(*number).into(),
        Value::Number(number) => units::show_time(*number).into(),
        Value::Numbers(all) => all.iter().map(|n| units::show_time(*n)).collect(),
        Value::Words(words) => words.iter().map(String::as_str).collect(),
        Value::Addresses(all) => all.iter().map(|(address, _)| address.to_string()).collect(),
    }
}
