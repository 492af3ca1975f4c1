//! A log record taken apart: time, level, name and fields, each bounded and free of tricks.

use log::kv::{self, Key, VisitSource, VisitValue};

use crate::app::output::hidden;
use crate::mail::Timestamp;
use crate::provider::ledger::TARGET;

/// Most octets of one field.
pub(super) const FIELD_BYTES_MAX: usize = 256;
/// Most fields of one event.
const FIELDS_MAX: usize = 40;

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Cut at 256 octets, otherwise as it was given: the shapes escape it.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Any other number.
    Decimal(f64),
    /// Yes or no.
    Bool(bool),
}

impl Value {
    /// As text.
    #[must_use]
    pub fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Decimal(number) => number.to_string(),
            Self::Bool(yes) => yes.to_string(),
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// How important.
    pub level: log::Level,
    /// What happened, in one word.
    pub name: String,
    /// The rest, in the order given.
    pub fields: Vec<(String, Value)>,
}

impl Event {
    /// Takes a record apart.
    #[must_use]
    pub fn of(record: &log::Record<'_>, time: Timestamp) -> Self {
        let mut fields = Collected(Vec::new());
        let message = cut(&record.args().to_string());
        let name = if record.target() == TARGET && is_name(&message) {
            message
        } else {
            fields.0.push(("message".into(), Value::Text(message)));
            if record.target() != TARGET {
                fields.0.push(("target".into(), Value::Text(cut(record.target()))));
            }
            "log".into()
        };
        // The visitor below never fails.
        let _ = record.key_values().visit(&mut fields);
        Self { time, level: record.level(), name, fields: fields.0 }
    }

    /// The text of a field; empty if there is none.
    #[must_use]
    pub fn field(&self, name: &str) -> String {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, v)| v.plain()).unwrap_or_default()
    }

    /// The level as it is written.
    #[must_use]
    pub fn level_word(&self) -> &'static str {
        match self.level {
            log::Level::Error => "error",
            log::Level::Warn => "warn",
            log::Level::Info => "info",
            log::Level::Debug => "debug",
            log::Level::Trace => "trace",
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// At most [`FIELD_BYTES_MAX`] octets, at a border of characters, with a mark where something is missing.
fn cut(text: &str) -> String {
    if text.len() <= FIELD_BYTES_MAX {
        return text.to_owned();
    }
    let mut end = FIELD_BYTES_MAX - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// The text with everything that could end a line or fool a terminal written as an escape.
#[must_use]
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            '\\' => safe.push_str("\\\\"),
            '"' => safe.push_str("\\\""),
            c if hidden(c) => safe.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

struct Collected(Vec<(String, Value)>);

impl<'kvs> VisitSource<'kvs> for Collected {
    fn visit_pair(&mut self, key: Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        if self.0.len() < FIELDS_MAX {
            let mut one = One(None);
            value.visit(&mut one)?;
            let value = one.0.unwrap_or_else(|| Value::Text(cut(&value.to_string())));
            let key: String =
                key.as_str().chars().filter(|c| is_name(c.encode_utf8(&mut [0; 4]))).collect();
            self.0.push((key, value));
        }
        Ok(())
    }
}

struct One(Option<Value>);

impl<'v> VisitValue<'v> for One {
    fn visit_any(&mut self, value: kv::Value<'_>) -> Result<(), kv::Error> {
        self.0 = Some(Value::Text(cut(&value.to_string())));
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = Some(Value::Number(value));
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = Some(match i64::try_from(value) {
            Ok(value) => Value::Number(value),
            Err(_) => Value::Text(value.to_string()),
        });
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.0 = Some(Value::Decimal(value));
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = Some(Value::Bool(value));
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.0 = Some(Value::Text(cut(value)));
        Ok(())
    }
}
