//! `time level event key=value …`

use super::fields::{Event, escaped};
use super::time;

/// The event as one line.
pub(super) fn line(event: &Event) -> String {
    let mut line = format!("{} {} {}", time(event.time), event.level_word(), event.name);
    for (key, value) in &event.fields {
        line += &format!(" {key}={}", quoted(&value.plain()));
    }
    line.push('\n');
    line
}

/// Bare where it can be mistaken for nothing else, otherwise between quotes with escapes.
fn quoted(text: &str) -> String {
    let safe = escaped(text);
    let bare = !text.is_empty() && safe == text && !text.contains([' ', '=', '\'']);
    if bare { safe } else { format!("\"{safe}\"") }
}
