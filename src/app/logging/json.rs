//! One JSON object a line: `time`, `level`, `event`, and the fields under their own names.

use serde_json::{Map, Value as Json};

use super::fields::{Event, Value};
use super::time;
use crate::app::output::hidden;

/// The event as one line.
pub(super) fn line(event: &Event) -> String {
    let mut object = Map::new();
    object.insert("time".into(), time(event.time).into());
    object.insert("level".into(), event.level_word().into());
    object.insert("event".into(), event.name.as_str().into());
    for (key, value) in &event.fields {
        let value = match value {
            Value::Text(text) => Json::from(text.as_str()),
            Value::Number(number) => Json::from(*number),
            Value::Decimal(number) => Json::from(*number),
            Value::Bool(yes) => Json::from(*yes),
        };
        // A field named like one of ours keeps its value under another name.
        let key = if object.contains_key(key) { format!("{key}_") } else { key.clone() };
        object.insert(key, value);
    }
    let mut line = ascii_escapes(&Json::Object(object).to_string());
    line.push('\n');
    line
}

/// JSON escapes control characters by itself; marks that change what is read are escaped here.
fn ascii_escapes(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    safe
}
