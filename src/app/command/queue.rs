//! `restante queue …`: the mail that waits.

use std::io::{BufRead, IsTerminal, Write};

use super::{Failure, ask, exchange, unexpected};
use crate::app::admin::{Done, Item, Message, Refused, Request, Select};
use crate::app::backend::Backend;
use crate::app::cli::{ActionArgs, QueueCommand};
use crate::app::config::units;
use crate::app::output::{Out, tell};
use crate::mail::QueueId;
use crate::store::QueueAction;

pub(super) fn run(command: QueueCommand, desk: &mut Backend, out: &mut Out) -> Result<(), Failure> {
    match command {
        QueueCommand::List(filter) => list(filter.select(), desk, out)?,
        QueueCommand::Show { id, body } => show(id, body, desk, out)?,
        QueueCommand::Hold(args) => act(&args, QueueAction::Hold, desk, out)?,
        QueueCommand::Release(args) => act(&args, QueueAction::Release, desk, out)?,
        QueueCommand::Remove(args) => act(&args, QueueAction::Remove, desk, out)?,
        QueueCommand::Bounce(args) => bounce(&args, desk, out)?,
        QueueCommand::Export(args) => exchange::export(&args, desk, out)?,
        QueueCommand::Import { files, quiet } => exchange::import(&files, quiet, desk, out)?,
    }
    Ok(())
}

/// Lines as they come: a queue of a million is not held in memory, so the columns have fixed widths.
fn list(filter: Select, desk: &mut Backend, out: &mut Out) -> Result<(), Refused> {
    let (mut messages, mut bytes, mut last) = (0u64, 0u64, None);
    out.begin_list("messages")?;
    desk.ask(Request::QueueList { filter }, &mut |item| {
        let Item::Message(message) = item else { return Err(unexpected()) };
        if !out.is_text() {
            return out.element(&message);
        }
        if last.is_none() {
            out.line(&row(["ID", "DOMAIN", "SIZE", "AGE", "TRIES", "STATE", "FROM", "TO"]))?;
        }
        if last != Some(message.id) {
            messages += 1;
            bytes += message.size;
        }
        last = Some(message.id);
        out.line(&message_row(&message))
    })?;
    out.end_list()?;
    if !out.is_text() {
        return Ok(());
    }
    match messages {
        0 => out.line("no messages"),
        1 => out.line(&format!("-- 1 message, {}", units::about_size(bytes))),
        many => out.line(&format!("-- {many} messages, {}", units::about_size(bytes))),
    }
}

fn row(cells: [&str; 8]) -> String {
    let [id, domain, size, age, tries, state, from, to] = cells;
    format!("{id:<26}  {domain:<24}  {size:>9}  {age:>7}  {tries:>5}  {state:<13}  {from}  {to}")
}

fn message_row(message: &Message) -> String {
    let paths: Vec<String> =
        message.forward_paths.iter().map(|p| format!("<{}>", p.address)).collect();
    let last = if message.goes_last { ",last" } else { "" };
    let standing = format!("{}{last}", message.state.word());
    row([
        &message.id.to_string(),
        message.domain.as_str(),
        &units::about_size(message.size),
        &units::about_time(message.age_seconds),
        &message.attempts.to_string(),
        &standing,
        &format!("<{}>", message.reverse_path),
        &paths.join(","),
    ])
}

fn show(id: QueueId, body: bool, desk: &mut Backend, out: &mut Out) -> Result<(), Refused> {
    let mut content = Vec::new();
    let text = out.is_text();
    let done = desk.ask(Request::QueueShow { id, body }, &mut |item| match item {
        // For people the content alone goes out, as it comes: it can be piped into a mail reader.
        Item::Body(chunk) if text => out.octets(&chunk),
        Item::Body(chunk) => {
            content.extend_from_slice(&chunk);
            Ok(())
        }
        _ => Err(unexpected()),
    })?;
    let Done::Message(message) = done else { return Err(unexpected()) };
    if !text {
        let mut document =
            serde_json::to_value(&message).map_err(|error| Refused::new(error.to_string(), ""))?;
        if body {
            document["body"] = String::from_utf8_lossy(&content).into();
        }
        return out.json(&document);
    }
    if body { Ok(()) } else { show_envelope(&message, out) }
}

fn show_envelope(message: &Message, out: &mut Out) -> Result<(), Refused> {
    out.line(&format!("id         {}", message.id))?;
    out.line(&format!("state      {}", message.state.word()))?;
    out.line(&format!("from       <{}>", message.reverse_path))?;
    out.line(&format!("size       {} octets", message.size))?;
    let age = units::about_time(message.age_seconds);
    out.line(&format!("queued     {} ({age} ago)", message.queued_at))?;
    out.line(&format!("expires    {}", message.expires_at))?;
    out.line(&format!("attempts   {}", message.attempts))?;
    if let Some(message_id) = &message.message_id {
        out.line(&format!("message-id {message_id}"))?;
    }
    if message.line_breaks > 0 {
        let last = if message.goes_last { "; it goes last in its queue" } else { "" };
        out.line(&format!(
            "the line broke {} time(s) while it was on its way{last}",
            message.line_breaks
        ))?;
    }
    for path in &message.forward_paths {
        let (address, customer, state) = (&path.address, &path.customer, path.state.word());
        out.line(&format!("to         <{address}> of {customer}: {state}"))?;
        if let Some(reply) = &path.reply {
            out.line(&format!("           {reply}"))?;
        }
    }
    Ok(())
}

/// `hold`, `release`, `remove`.
fn act(
    args: &ActionArgs,
    action: QueueAction,
    desk: &mut Backend,
    out: &mut Out,
) -> Result<(), Failure> {
    let (word, past) = match action {
        QueueAction::Hold => ("hold", "held"),
        QueueAction::Release => ("release", "released"),
        QueueAction::Remove => ("remove", "removed"),
    };
    let Some(filter) = meant(args, word, desk, out)? else { return Ok(()) };
    let request = Request::QueueApply { filter: filter.clone(), action };
    let messages = count(ask(desk, request)?)?;
    // Nothing touched: they may be held (or released) already, or gone.
    if messages == 0 && !filter.ids.is_empty() {
        let there = count(ask(desk, Request::QueueCount { filter })?)?;
        if there == 0 {
            let mend = "it may have been collected meanwhile; see `restante queue list`";
            let what = format!("there is nothing to {word}: no such message");
            return Err(Refused::new(what, mend).into());
        }
    }
    if out.is_text() {
        return Ok(out.line(&format!("{past}: {messages} message(s)"))?);
    }
    Ok(out.json(&serde_json::json!({"action": word, "messages": messages, "dry_run": false}))?)
}

/// What is meant, once it is clear that it is; nothing if there is nothing to do.
fn meant(
    args: &ActionArgs,
    word: &str,
    desk: &mut Backend,
    out: &mut Out,
) -> Result<Option<Select>, Failure> {
    let filter = args.filter.select();
    let conditions = Select { ids: Vec::new(), ..filter.clone() } != Select::default();
    if filter == Select::default() && !args.all {
        let mend = "name ids or a filter such as --customer NAME, or --all";
        return Err(Failure::Usage(Refused::new(format!("which messages shall I {word}?"), mend)));
    }
    if args.dry_run {
        dry_run(filter, word, desk, out)?;
        return Ok(None);
    }
    if conditions || args.all {
        confirm(&filter, word, args.yes, desk)?;
    } else if filter.ids.len() > 1 {
        // Ids are an answer already: the count is shown, and nobody is asked.
        confirm(&filter, word, true, desk)?;
    }
    Ok(Some(filter))
}

/// `bounce`.
fn bounce(args: &ActionArgs, desk: &mut Backend, out: &mut Out) -> Result<(), Failure> {
    let Some(filter) = meant(args, "bounce", desk, out)? else { return Ok(()) };
    let by_id = !filter.ids.is_empty();
    let done = ask(desk, Request::QueueBounce { filter })?;
    let Done::Bounced { messages, busy, untold } = done else { return Err(unexpected().into()) };
    desk.report_now();
    if !out.is_text() {
        let said = serde_json::json!({
            "action": "bounce", "messages": messages, "busy": busy, "untold": untold, "dry_run": false
        });
        out.json(&said)?;
    } else {
        out.line(&format!("bounced: {messages} message(s)"))?;
    }
    let (what, mend) = match (messages, busy, untold) {
        (0, 0, 0) if by_id => (
            "there is nothing to bounce: no such message".to_owned(),
            "it may have been collected meanwhile; see `restante queue list`",
        ),
        (_, 0, 0) => return Ok(()),
        (_, 0, untold) => (
            format!("{untold} message(s) have the null reverse-path: nobody can be told"),
            "`restante queue remove` forgets them",
        ),
        (_, busy, _) => (
            format!("{busy} message(s) are on their way to the customer"),
            "try again when the drain is over",
        ),
    };
    Err(Refused::new(what, mend).into())
}

fn count(done: Done) -> Result<u64, Refused> {
    match done {
        Done::Count { messages } => Ok(messages),
        _ => Err(unexpected()),
    }
}

fn dry_run(filter: Select, word: &str, desk: &mut Backend, out: &mut Out) -> Result<(), Failure> {
    if out.is_text() {
        list(filter, desk, out)?;
        return Ok(out.line(&format!("nothing was done; without --dry-run I would {word} these"))?);
    }
    let messages = count(ask(desk, Request::QueueCount { filter })?)?;
    Ok(out.json(&serde_json::json!({"action": word, "messages": messages, "dry_run": true}))?)
}

/// Before anything is done to many: how many they are, and a yes.
fn confirm(filter: &Select, word: &str, yes: bool, desk: &mut Backend) -> Result<(), Failure> {
    let messages = count(ask(desk, Request::QueueCount { filter: filter.clone() })?)?;
    if messages <= 1 {
        return Ok(());
    }
    if yes {
        tell(&format!("{word}: {messages} messages are meant"));
        return Ok(());
    }
    let mend = "repeat with --yes, or look at them with --dry-run";
    let refused = Refused::new(format!("{messages} messages are meant; nothing was done"), mend);
    if !std::io::stdin().is_terminal() {
        return Err(refused.into());
    }
    // The question is on the screen or there is no screen; both ways the answer is read.
    let mut screen = std::io::stderr();
    let _ = write!(screen, "{word} {messages} messages? [y/N] ").and_then(|()| screen.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(refused.into()),
    }
}
