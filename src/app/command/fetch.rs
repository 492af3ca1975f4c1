//! `restante fetch`: hands the arguments to the customer's side and takes its exit status back.

use std::path::Path;

use super::Failure;
use crate::app::output::Format;
use crate::fetch::{FetchArgs, Form, run};

/// Collects mail; the customer's side says itself what happens.
pub(super) fn fetch(
    args: &FetchArgs,
    config: Option<&Path>,
    format: Format,
) -> Result<(), Failure> {
    let form = match format {
        Format::Text => Form::Lines,
        Format::Json => Form::Json,
        Format::JsonLines => Form::JsonLines,
    };
    match run(args, config, form) {
        0 => Ok(()),
        status => Err(Failure::Told(status)),
    }
}
