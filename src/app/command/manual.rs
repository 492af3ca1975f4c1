//! `restante completions` and `restante man`: made from the command line's own description.

use std::path::Path;

use clap::CommandFactory;

use super::Failure;
use crate::app::admin::Refused;
use crate::app::cli::Cli;
use crate::app::output::Out;

pub(super) fn completions(shell: clap_complete::Shell, out: &mut Out) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "restante", &mut text);
    Ok(out.octets(&text)?)
}

pub(super) fn pages(dir: &Path, out: &mut Out) -> Result<(), Failure> {
    let mut root = Cli::command();
    root.build();
    let pages = count(&root);
    clap_mangen::generate_to(root, dir).map_err(|error| {
        Refused::new(format!("{}: {error}", dir.display()), "name an existing folder")
    })?;
    Ok(out.line(&format!("{pages} man pages in {}", dir.display()))?)
}

/// A page for the command and for each below it.
fn count(command: &clap::Command) -> usize {
    1 + command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(count).sum::<usize>()
}
