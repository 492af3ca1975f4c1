//! `restante quickstart`: from an empty folder to a provider that holds a message, in one command.
//!
//! Writes a commented configuration, a self-signed certificate, the customer `demo` and a fetchmailrc, prints the
//! commands that send a message and collect it, then serves. In a folder that it made before it serves what is
//! there; a folder with anything else in it is not touched. Folders are 0700, files 0600.

mod texts;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::admin::{Done, Refused, Request};
use super::backend::Backend;
use super::command::{Failure, load, serve};
use super::config::{self, Config};
use super::output::Out;
use crate::mail::{CustomerName, Domain};

/// The configuration's name inside the folder.
const CONFIG: &str = "restante.toml";
/// The customer's name and domain.
const CUSTOMER: &str = "demo";
const DOMAIN: &str = "demo.example";

/// Does it all; returns when the provider has stopped, or at once if it is not to serve.
///
/// # Errors
/// The folder is not ours to fill, something cannot be written, or the provider cannot start.
pub fn quickstart(dir: &Path, no_serve: bool, out: &mut Out) -> Result<(), Failure> {
    let dir = std::path::absolute(dir).map_err(|error| cannot(dir, &error))?;
    let file = dir.join(CONFIG);
    if file.exists() {
        let config = load(Some(file))?;
        if out.is_text() {
            out.text(&texts::again(&texts::program(), &dir, CUSTOMER))?;
        }
        out.flush()?;
        return if no_serve { Ok(()) } else { serve(&config) };
    }
    empty_folder(&dir)?;
    let config = fill(&dir, &file, out)?;
    out.flush()?;
    if no_serve { Ok(()) } else { serve(&config) }
}

fn cannot(path: &Path, error: &io::Error) -> Refused {
    Refused::new(format!("{}: {error}", path.display()), "name another folder")
}

/// A folder with nothing in it, mode 0700.
fn empty_folder(dir: &Path) -> Result<(), Refused> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| cannot(dir, &e)),
        Err(error) => Err(cannot(dir, &error)),
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(Refused::new(
                    format!(
                        "{} is not empty and holds no {CONFIG}; nothing was touched",
                        dir.display()
                    ),
                    "name a new or empty folder",
                ));
            }
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(|e| cannot(dir, &e))
        }
    }
}

/// Everything but the configuration first: a folder with a configuration is complete.
fn fill(dir: &Path, file: &Path, out: &mut Out) -> Result<Config, Failure> {
    let hostname = hostname();
    certificate(dir, &hostname)?;
    let text = texts::configuration(&hostname);
    let loaded = config::parse(file, &text);
    let config = loaded.config.ok_or(Failure::Config(Box::new(loaded.report)))?;
    let password = customer(&config)?;
    write(&dir.join("fetchmailrc"), texts::fetchmailrc(CUSTOMER, DOMAIN, &password).as_bytes())?;
    write(file, text.as_bytes())?;
    if out.is_text() {
        out.text(&texts::first(&texts::program(), dir, CUSTOMER, DOMAIN, &password))?;
    } else {
        out.json(&serde_json::json!({
            "config": file,
            "customer": CUSTOMER,
            "domain": DOMAIN,
            "password": *password,
            "fetchmailrc": dir.join("fetchmailrc"),
        }))?;
    }
    Ok(config)
}

/// The machine's full name if it has one, else `localhost`.
fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match Domain::parse(name.trim()) {
        Ok(name) if name.has_two_labels() => name.to_string(),
        _ => "localhost".to_owned(),
    }
}

/// A new file, mode 0600; one that exists is an error.
fn write(path: &Path, text: &[u8]) -> Result<(), Refused> {
    let written =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(
            |mut file| {
                file.write_all(text)?;
                file.sync_all()
            },
        );
    written.map_err(|error| cannot(path, &error))
}

/// A certificate for `localhost`, the loopback addresses and our name, signed by its own key.
fn certificate(dir: &Path, hostname: &str) -> Result<(), Refused> {
    let folder: PathBuf = dir.join("tls");
    fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| cannot(&folder, &error))?;
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if hostname != "localhost" {
        names.push(hostname.to_owned());
    }
    let trouble =
        |error: rcgen::Error| Refused::new(format!("no certificate can be made: {error}"), "");
    let made = rcgen::generate_simple_self_signed(names).map_err(trouble)?;
    write(&folder.join("cert.pem"), made.cert.pem().as_bytes())?;
    write(&folder.join("key.pem"), made.signing_key.serialize_pem().as_bytes())
}

/// Creates the customer in the store itself and gives its password.
fn customer(config: &Config) -> Result<zeroize::Zeroizing<String>, Failure> {
    let name = CustomerName::parse(CUSTOMER).map_err(|e| Refused::new(e.to_string(), ""))?;
    let domain = Domain::parse(DOMAIN).map_err(|e| Refused::new(e.to_string(), ""))?;
    let mut desk = Backend::open(config)?;
    let request = Request::CustomerAdd { name, domains: vec![domain], password: None };
    let done = desk.ask(request, &mut |_| Ok(()));
    desk.close()?;
    match done? {
        Done::Added(added) => {
            let password = added.password.as_ref().map(|p| p.expose().to_owned());
            Ok(zeroize::Zeroizing::new(password.unwrap_or_default()))
        }
        _ => Err(Refused::new("the customer could not be made", "").into()),
    }
}

#[cfg(test)]
mod tests;
