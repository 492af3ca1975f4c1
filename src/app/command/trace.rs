//! `restante trace`: sessions as they run.

use std::path::PathBuf;

use super::{Failure, load, unexpected};
use crate::app::admin::{Item, Refused, Request};
use crate::app::backend;
use crate::app::output::Out;
use crate::provider::watch::{Kind, Seen, Want};

pub(super) fn run(mut want: Want, chosen: Option<PathBuf>, out: &mut Out) -> Result<(), Failure> {
    want.address = want.address.map(|address| address.to_canonical());
    let config = load(chosen)?;
    let Some(mut desk) = backend::running(&config)? else {
        let mend = "start it: restante serve";
        return Err(Refused::new("no provider runs, so there are no sessions", mend).into());
    };
    desk.ask(Request::Trace { want }, &mut |item| {
        let seen = match item {
            Item::Seen(seen) => seen,
            Item::Stage(_) => return Ok(()),
            _ => return Err(unexpected()),
        };
        if out.is_text() {
            show(&seen, out)?
        } else {
            out.json(&seen)?
        }
        // Somebody looks at it now.
        out.flush()
    })?;
    Ok(())
}

fn show(seen: &Seen, out: &mut Out) -> Result<(), Refused> {
    if seen.missed > 0 {
        out.line(&format!("-- {} events were missed: too slow", seen.missed))?;
    }
    let time = seen.at.get(11..23).unwrap_or_default();
    let sign = match seen.kind {
        Kind::Heard => "<",
        Kind::Said => ">",
        Kind::Open | Kind::Event | Kind::Close | Kind::Drained => "*",
    };
    let who = seen.customer.as_ref().map_or("-", |name| name.as_str());
    let Seen { session, client, door, text, .. } = seen;
    out.line(&format!("{time} {session} {door} {client} {who} {sign} {text}"))
}
