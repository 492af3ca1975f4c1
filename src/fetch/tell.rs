//! What people and scripts see of a call: lines on standard error, a progress display on a terminal, JSON on
//! standard output. Never a password, a challenge response or a body.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{HumanBytes, ProgressBar};
use serde_json::{Value, json};

use super::account::Account;
use super::args::Form;
use super::call::{Event, Report};
use super::notify::Notify;
use super::verdict::Verdict;
use crate::mail::{Timestamp, TlsFacts};
use crate::smtp::bridge::Passed;

/// The one that speaks, for all accounts.
pub(super) struct Teller {
    form: Form,
    progress: Option<ProgressBar>,
    notify: Notify,
    /// For `--json`: the reports of all calls.
    documents: RefCell<Vec<Value>>,
}

/// What is known of one call while it runs.
pub(super) struct Telling<'a> {
    teller: &'a Teller,
    account: &'a Account,
    began: Instant,
    messages: u64,
    tls: Option<TlsFacts>,
    mechanism: Option<&'static str>,
}

impl Teller {
    pub(super) fn new(form: Form, dry_run: bool, notify: Notify) -> Self {
        let on_terminal = form == Form::Lines && std::io::stderr().is_terminal();
        let progress = (on_terminal && !dry_run).then(ProgressBar::new_spinner);
        Self { form, progress, notify, documents: RefCell::default() }
    }

    pub(super) fn begin<'a>(&'a self, account: &'a Account) -> Telling<'a> {
        Telling {
            teller: self,
            account,
            began: Instant::now(),
            messages: 0,
            tls: None,
            mechanism: None,
        }
    }

    /// All calls are over: the document of `--json`.
    pub(super) fn end(&self) {
        if let Some(progress) = &self.progress {
            progress.finish_and_clear();
        }
        if self.form == Form::Json {
            print(&json!({ "accounts": self.documents.take() }));
        }
    }

    /// The pause before the next call.
    pub(super) fn pausing(&self, account: &Account, pause: Duration) {
        self.notify.status(&format!("{}: next call in {} s", account.name, pause.as_secs()));
        self.show(format!("{}: next call in {} s", account.name, pause.as_secs()));
    }

    fn show(&self, message: String) {
        if let Some(progress) = &self.progress {
            progress.set_message(message);
            progress.tick();
        }
    }

    fn line(&self, text: &str) {
        match &self.progress {
            Some(progress) => progress.suspend(|| write_line(text)),
            None => write_line(text),
        }
    }
}

impl Telling<'_> {
    /// Something happened.
    pub(super) fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Connected(tls) => {
                self.tls = tls.cloned();
                self.teller.show(format!("{}: connected", self.account.name));
            }
            Event::LoggedIn(mechanism) => {
                self.mechanism = Some(mechanism);
                self.teller.show(format!("{}: logged in", self.account.name));
            }
            Event::Waiting => {
                self.teller.notify.status(&format!("{}: waiting for mail", self.account.name));
                self.teller.show(format!("{}: waiting for mail", self.account.name));
            }
            Event::Turned(_) => {
                self.teller.notify.status(&format!("{}: collecting", self.account.name));
            }
            Event::Passed(passed) => self.passed(passed),
            Event::Moved { octets } => self.moved(*octets),
        }
    }

    fn moved(&self, octets: u64) {
        if self.teller.progress.is_some() {
            let rate = octets as f64 / self.began.elapsed().as_secs_f64().max(0.001);
            self.teller.show(format!(
                "{}: {} messages, {}, {}/s",
                self.account.name,
                self.messages,
                HumanBytes(octets),
                HumanBytes(rate as u64),
            ));
        }
    }

    fn passed(&mut self, passed: &Passed) {
        self.messages += u64::from(passed.taken);
        let word = match (passed.taken, passed.reply.starts_with('4')) {
            (true, _) => "passed",
            (false, true) => "deferred",
            (false, false) => "refused",
        };
        match self.teller.form {
            Form::Lines => {
                let mut line = format!("{} {word}", stamp());
                field(&mut line, "account", &self.account.name);
                field(&mut line, "from", &format!("<{}>", passed.from));
                field(&mut line, "to", &passed.to.join(","));
                field(&mut line, "size", &passed.octets.to_string());
                field(&mut line, "reply", &passed.reply);
                self.teller.line(&line);
            }
            Form::JsonLines => print(&json!({
                "event": word,
                "account": self.account.name,
                "from": passed.from,
                "to": passed.to,
                "size": passed.octets,
                "reply": passed.reply,
            })),
            Form::Json => {}
        }
    }

    /// The call is over.
    pub(super) fn end(self, report: &Report) {
        self.teller.notify.status(&format!("{}: {}", self.account.name, summary(report)));
        let mut document = document(self.account, report);
        if let (Verdict::Offered(_), Some(place)) = (&report.verdict, document.as_object_mut()) {
            place.insert("mechanism".into(), json!(self.mechanism));
            place.insert("tls".into(), json!(self.tls.as_ref().map(|tls| tls.version.to_string())));
            let key = self.tls.as_ref().and_then(|tls| tls.peer_key.as_deref());
            place.insert("provider_key".into(), json!(key));
        }
        match self.teller.form {
            Form::Lines => self.end_in_lines(report),
            Form::Json => self.teller.documents.borrow_mut().push(document),
            Form::JsonLines => {
                if let Some(place) = document.as_object_mut() {
                    place.insert("event".into(), json!("call"));
                }
                print(&document);
            }
        }
        // A refusal is worth a line for people even where scripts read the JSON.
        if self.teller.form != Form::Lines && report.verdict.trouble().is_some() {
            self.teller.line(&complaint(self.account, report));
        }
    }

    fn end_in_lines(&self, report: &Report) {
        if report.verdict.trouble().is_some() {
            self.teller.line(&complaint(self.account, report));
            if report.taken == 0 {
                return;
            }
        }
        if let Verdict::Offered(_) = &report.verdict {
            return self.offered(report);
        }
        let mut line = format!("{} {}", stamp(), report.verdict.word());
        field(&mut line, "account", &self.account.name);
        field(&mut line, "messages", &report.taken.to_string());
        field(&mut line, "refused", &report.refused.to_string());
        field(&mut line, "bytes", &report.octets.to_string());
        field(&mut line, "seconds", &format!("{:.1}", report.span.as_secs_f64()));
        self.teller.line(&line);
    }

    /// The report of a dry run, for people.
    fn offered(&self, report: &Report) {
        let Verdict::Offered(offers) = &report.verdict else { return };
        let tls = match &self.tls {
            None => "none: clear text".to_owned(),
            Some(tls) => {
                let key = tls.peer_key.as_deref().unwrap_or("unknown");
                format!("{} {}\nkey:        {key}  (for --pin)", tls.version, tls.cipher)
            }
        };
        let atrn = if offers.atrn { "yes" } else { "not announced" };
        let text = format!(
            "account:    {}\nprovider:   {}\ntls:        {tls}\nlogin:      ok with {}\nmechanisms: {}\n\
             ATRN:       {atrn}\nextensions: {}\n",
            self.account.name,
            offers.greeting,
            self.mechanism.unwrap_or("none"),
            offers.mechanisms.join(" "),
            offers.keywords.join(", "),
        );
        // A closed standard output is the reader's choice.
        let _ = std::io::stdout().write_all(clean(&text).as_bytes());
    }
}

/// One line that names the cause and the mend.
fn complaint(account: &Account, report: &Report) -> String {
    let Some(trouble) = report.verdict.trouble() else { return String::new() };
    let line = format!("restante fetch: {}: {}; {}", account.name, trouble.cause, trouble.mend);
    clean(&line.replace('\n', " "))
}

fn summary(report: &Report) -> String {
    match report.verdict.trouble() {
        Some(trouble) => trouble.cause.clone(),
        None => format!("{}, {} messages", report.verdict.word(), report.taken),
    }
}

fn document(account: &Account, report: &Report) -> Value {
    let trouble = report.verdict.trouble();
    let mut document = json!({
        "account": account.name,
        "provider": format!("{}:{}", account.host, account.port),
        "target": account.target.to_string(),
        "result": report.verdict.word(),
        "messages": report.taken,
        "refused": report.refused,
        "bytes": report.octets,
        "seconds": report.span.as_secs_f64(),
        "cause": trouble.map(|trouble| trouble.cause.as_str()),
        "mend": trouble.map(|trouble| trouble.mend),
    });
    if let (Verdict::Offered(offers), Some(place)) = (&report.verdict, document.as_object_mut()) {
        place.insert("atrn".into(), json!(offers.atrn));
        place.insert("mechanisms".into(), json!(offers.mechanisms));
        place.insert("extensions".into(), json!(offers.keywords));
    }
    document
}

fn stamp() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    format!("{} info", now.rfc3339())
}

/// ` key=value`, quoted where needed.
fn field(line: &mut String, key: &str, value: &str) {
    let is_plain = !value.is_empty() && !value.contains([' ', '"', '=', '\\']);
    let value = clean(value);
    let _ = match is_plain {
        true => write!(line, " {key}={value}"),
        false => write!(line, " {key}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    };
}

/// The provider's words reach a terminal: control characters except line ends become `?`.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

fn write_line(text: &str) {
    // Whoever closed standard error does not want to read it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn print(value: &Value) {
    let _ = writeln!(std::io::stdout(), "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_needed_and_carry_no_control_characters() {
        let mut line = String::new();
        field(&mut line, "a", "plain");
        field(&mut line, "b", "two \"words\"");
        field(&mut line, "c", "\x1b[2J");
        field(&mut line, "d", "");
        assert_eq!(line, " a=plain b=\"two \\\"words\\\"\" c=?[2J d=\"\"");
    }
}
