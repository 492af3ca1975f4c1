//! `restante flush`: the ETRN path for a domain, started by hand.

use super::{Failure, ask, changed};
use crate::app::admin::Request;
use crate::app::backend::Backend;
use crate::app::output::Out;
use crate::mail::Domain;

pub(super) fn run(domain: Domain, desk: &mut Backend, out: &mut Out) -> Result<(), Failure> {
    let done = ask(desk, Request::Flush { domain })?;
    // Beside a running provider the delivery is under way already.
    if let Some(last) = desk.call_now()? {
        let result = format!("delivery ended with {}", last.ended);
        let note = format!(
            "{} delivered, {} deferred, {} failed",
            last.delivered, last.deferred, last.failed
        );
        let subject = last.customer.to_string();
        let note = match last.detail {
            Some(detail) => format!("{note}; {detail}"),
            None => note,
        };
        let done = crate::app::admin::Done::Changed { subject, result, note: Some(note) };
        return Ok(changed(&done, out)?);
    }
    Ok(changed(&done, out)?)
}
