//! The words of Postfix: `time host restante/part[process]: …`, for log analysers that know them.
//!
//! Mail events take Postfix's own forms (`client=`, `from=<…>, size=…`, `to=<…>, relay=…, status=…`, `reject:`);
//! the other events keep their fields behind the part `odmr`. Analysers are told the name `restante`.

use super::fields::{Event, escaped};
use super::time;

/// The event as Postfix's lines, usually one.
pub(super) fn lines(event: &Event, host: &str, process: u32) -> String {
    let bodies = match event.name.as_str() {
        "accepted" => accepted(event),
        "refused" => vec![refused(event)],
        "delivered" => vec![outcome(event, "sent", '2')],
        "deferred" => vec![outcome(event, "deferred", '4')],
        "failed" => vec![outcome(event, "bounced", '5')],
        "login" => vec![login(event, "ok")],
        "login-failed" => vec![login(event, "fail")],
        _ => vec![("odmr".into(), other(event))],
    };
    let mut lines = String::new();
    for (part, body) in bodies {
        lines += &format!("{} {host} restante/{part}[{process}]: {body}\n", time(event.time));
    }
    lines
}

type Line = (String, String);

/// A field, safe inside `<…>` and between commas.
fn safe(event: &Event, field: &str) -> String {
    escaped(&event.field(field)).replace(['<', '>', ','], "?")
}

fn client(event: &Event) -> String {
    format!("unknown[{}]", safe(event, "client"))
}

fn accepted(event: &Event) -> Vec<Line> {
    let (id, from, size) = (safe(event, "id"), safe(event, "from"), safe(event, "size"));
    let recipients = event.field("to").split(',').filter(|to| !to.is_empty()).count();
    vec![
        ("smtpd".into(), format!("{id}: client={}", client(event))),
        (
            "qmgr".into(),
            format!("{id}: from=<{from}>, size={size}, nrcpt={recipients} (queue active)"),
        ),
    ]
}

fn refused(event: &Event) -> Line {
    let at = safe(event, "at").to_uppercase();
    let (reply, from, to) =
        (escaped(&event.field("reply")), safe(event, "from"), safe(event, "to"));
    let mut body = format!("NOQUEUE: reject: {at} from {}: {reply}; from=<{from}>", client(event));
    if !to.is_empty() {
        body += &format!(" to=<{to}>");
    }
    ("smtpd".into(), body + " proto=ESMTP")
}

/// `to=<…>, relay=…, delay=…, delays=…, dsn=…, status=… (reply)`; we know the whole delay only, and count it
/// as time in the queue.
fn outcome(event: &Event, status: &str, class: char) -> Line {
    let path = match safe(event, "path") {
        path if path.is_empty() => "atrn".to_owned(),
        path => path,
    };
    let (id, to, customer) = (safe(event, "id"), safe(event, "to"), safe(event, "customer"));
    let delay = match safe(event, "delay") {
        delay if delay.is_empty() => "0".to_owned(),
        delay => delay,
    };
    let reply = event.field("reply");
    let dsn = enhanced(&reply, class);
    let reply = escaped(&reply);
    let body = format!(
        "{id}: to=<{to}>, relay={path}:{customer}, delay={delay}, delays=0/{delay}/0/0, dsn={dsn}, \
         status={status} ({reply})"
    );
    (path, body)
}

/// The enhanced status code in a reply (RFC 2034), or the class with zeros.
fn enhanced(reply: &str, class: char) -> String {
    let coded = reply.split_whitespace().find(|word| {
        let parts: Vec<&str> = word.split('.').collect();
        parts.len() == 3
            && parts[0] == class.to_string()
            && parts.iter().all(|part| part.len() <= 3 && part.parse::<u16>().is_ok())
    });
    coded.map_or_else(|| format!("{class}.0.0"), str::to_owned)
}

fn login(event: &Event, result: &str) -> Line {
    let (login, method) = (safe(event, "customer"), safe(event, "mechanism"));
    let (tls, client) = (safe(event, "tls"), safe(event, "client"));
    let body =
        format!("login={login}, method={method}, tls={tls}, client=[{client}], result={result}");
    ("odmr".into(), body)
}

fn other(event: &Event) -> String {
    let level = match event.level {
        log::Level::Error => "error: ",
        log::Level::Warn => "warning: ",
        _ => "",
    };
    let fields =
        event.fields.iter().map(|(key, value)| format!("{key}={}", escaped(&value.plain())));
    let fields = fields.collect::<Vec<_>>().join(", ");
    if fields.is_empty() {
        format!("{level}{}", event.name)
    } else {
        format!("{level}{}: {fields}", event.name)
    }
}
