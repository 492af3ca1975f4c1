//! What concerns several keys at once, and the files that keys name.
//!
//! Called after the reader. Contradictions that somebody wrote are faults; what follows from a default only is
//! a warning, so that a short configuration stays usable.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::keys;
use super::pair;
use super::place::Report;
use super::read::Values;
use super::value::Value;
use super::{LISTENERS, beside};

/// Longest path of a Unix socket (unix(7): 108 octets with the final zero).
const SOCKET_BYTES_MAX: usize = 107;

/// Looks at the whole.
pub(super) fn check(values: &mut Values, folder: &Path, report: &mut Report) {
    missing(values, report);
    addresses(values, report);
    certificate(values, folder, report);
    logins(values, report);
    relay(values, folder, report);
    data_dir(values, folder, report);
    paces(values, report);
    waits(values, report);
}

fn missing(values: &Values, report: &mut Report) {
    for (name, example) in [
        ("hostname", "hostname = \"mx.provider.example\""),
        ("data_dir", "data_dir = \"/var/lib/restante\""),
    ] {
        let written_badly =
            report.findings().iter().any(|f| f.what.starts_with(&format!("{name}: ")));
        if !values.contains_key(name) && !written_badly {
            report.fault(
                None,
                format!("`{name}` is missing"),
                format!("add at the top of the file: {example}"),
            );
        }
    }
    if let Some(found) = values.get("hostname")
        && let Value::Domain(host) = &found.value
        && !host.has_two_labels()
        && host.as_str() != "localhost"
    {
        report.warning(
            found.span.clone(),
            format!("hostname `{host}` has one label only; other servers may refuse it"),
            "write the full name, as it stands in the DNS",
        );
    }
}

fn listeners(values: &Values) -> Vec<(&'static str, SocketAddr, Option<Range<usize>>)> {
    let mut all = Vec::new();
    for name in LISTENERS {
        let path =
            keys::KEYS.iter().map(|key| key.path).find(|p| p.strip_prefix("listen.") == Some(name));
        let Some(found) = path.and_then(|path| values.get(path)) else { continue };
        if let Value::Addresses(list) = &found.value {
            for (address, span) in list {
                all.push((name, *address, found.span.as_ref().map(|_| span.clone())));
            }
        }
    }
    all
}

fn addresses(values: &Values, report: &mut Report) {
    let all = listeners(values);
    for (index, (name, address, span)) in all.iter().enumerate() {
        let clash = all[..index].iter().find(|(_, other, _)| collide(*other, *address));
        let Some((other_name, other, other_span)) = clash else { continue };
        let place = match other_span {
            Some(span) => format!("on line {}", report.line_and_column(span.start).0),
            None => "by default".into(),
        };
        let what = if other == address {
            format!("listen.{name}: {address} is already taken by listen.{other_name} {place}")
        } else {
            format!("listen.{name}: {address} collides with {other} of listen.{other_name} {place}")
        };
        report.fault(
            span.clone().or_else(|| other_span.clone()),
            what,
            "give each listener an address and port of its own, or `[]` to switch one off",
        );
    }
}

/// Whether both cannot be bound at once. Port 0 means any free port.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let overlap = a.ip() == b.ip() || same_family && (is_any(a.ip()) || is_any(b.ip()));
    a.port() != 0 && a.port() == b.port() && overlap
}

fn is_any(address: IpAddr) -> bool {
    address.is_unspecified()
}

fn path_of(values: &Values, key: &str, folder: &Path) -> Option<(PathBuf, Option<Range<usize>>)> {
    let found = values.get(key)?;
    match &found.value {
        Value::Path(text) => Some((beside(folder, text), found.span.clone())),
        _ => None,
    }
}

/// Certificate and key: both or none, and they must be a pair. A default that is not there is taken out.
fn certificate(values: &mut Values, folder: &Path, report: &mut Report) {
    let certificate = path_of(values, "tls.certificate", folder);
    let private_key = path_of(values, "tls.private_key", folder);
    let (Some((certificate, written)), Some((private_key, key_written))) =
        (certificate, private_key)
    else {
        return;
    };
    match (&written, &key_written) {
        (Some(span), None) => {
            report.fault(
                span.clone(),
                "tls.certificate is set and tls.private_key is not",
                "set both, or none",
            );
            return;
        }
        (None, Some(span)) => {
            report.fault(
                span.clone(),
                "tls.private_key is set and tls.certificate is not",
                "set both, or none",
            );
            return;
        }
        (None, None) if !certificate.exists() && !private_key.exists() => {
            values.remove("tls.certificate");
            values.remove("tls.private_key");
            without_certificate(values, report);
            return;
        }
        _ => {}
    }
    if let Err((of_key, what, mend)) = pair::check(&certificate, &private_key) {
        let (name, span) =
            if of_key { ("tls.private_key", key_written) } else { ("tls.certificate", written) };
        report.fault(span, format!("{name}: {what}"), mend);
        return;
    }
    readable_by_others(&private_key, key_written, "tls.private_key", report);
    if let Some((ca, span)) = path_of(values, "tls.client_ca", folder)
        && let Err(what) = pair::check_authority(&ca)
    {
        report.fault(span, format!("tls.client_ca: {what}"), "name a file of PEM certificates");
    }
    more_certificates(values, folder, report);
}

/// The folders of `tls.also`: each holds a pair.
fn more_certificates(values: &Values, folder: &Path, report: &mut Report) {
    let Some(found) = values.get("tls.also") else { return };
    let Value::Words(names) = &found.value else { return };
    for name in names {
        let (certificate, private_key) = pair::in_folder(&beside(folder, name));
        match pair::check(&certificate, &private_key) {
            Ok(()) => readable_by_others(&private_key, found.span.clone(), "tls.also", report),
            Err((_, what, mend)) => {
                report.fault(found.span.clone(), format!("tls.also: {what}"), mend);
            }
        }
    }
}

fn without_certificate(values: &mut Values, report: &mut Report) {
    for (name, path) in [("mxs", "listen.mxs"), ("odmrs", "listen.odmrs")] {
        let Some(found) = values.get_mut(path) else { continue };
        if !matches!(&found.value, Value::Addresses(list) if !list.is_empty()) {
            continue;
        }
        let mend = format!("set tls.certificate and tls.private_key, or {name} = []");
        match &found.span {
            Some(span) => {
                let what = format!("{path} needs a certificate, and none is set");
                report.fault(span.clone(), what, mend);
            }
            None => {
                let what = format!("{path} stays closed: there is no certificate");
                report.warning(None, what, mend);
                found.value = Value::Addresses(Vec::new());
            }
        }
    }
    if let Some(found) = values.get("tls.client_ca") {
        report.fault(
            found.span.clone(),
            "tls.client_ca is set without a certificate of our own",
            "set tls.certificate and tls.private_key",
        );
    }
    if let Some(found) = values.get("auth.require_tls")
        && found.value == Value::Bool(true)
    {
        report.warning(
                found.span.clone(),
                "nobody can log in: auth.require_tls is true and there is no certificate",
                "set tls.certificate and tls.private_key (only on a network that you trust: auth.require_tls = false)",
            );
    }
}

/// Secrets belong to their owner alone.
fn readable_by_others(file: &Path, span: Option<Range<usize>>, key: &str, report: &mut Report) {
    let Ok(facts) = std::fs::metadata(file) else { return };
    if facts.permissions().mode() & 0o007 != 0 {
        report.warning(
            span,
            format!("{key}: {} can be read by everybody on this machine", file.display()),
            format!("chmod 600 {}", file.display()),
        );
    }
}

fn logins(values: &Values, report: &mut Report) {
    let Some(found) = values.get("auth.mechanisms") else { return };
    let Value::Words(words) = &found.value else { return };
    let secure = values.get("auth.require_tls").is_some_and(|f| f.value == Value::Bool(true));
    if !secure && words.iter().all(|word| word == "PLAIN" || word == "EXTERNAL") {
        report.warning(
            found.span.clone(),
            "PLAIN and EXTERNAL are offered under TLS only, whatever auth.require_tls says",
            "add CRAM-MD5 or SCRAM-SHA-256 for logins in clear text",
        );
    }
}

fn relay(values: &Values, folder: &Path, report: &mut Report) {
    if let Some(found) = values.get("relay.route")
        && found.value == Value::Word("none".into())
    {
        report.warning(
            found.span.clone(),
            "relay.route is \"none\": reports to foreign addresses wait here until they expire",
            "set it to \"mx\" or to a host:port that takes mail from us",
        );
    }
    let username = values.get("relay.username");
    let password = path_of(values, "relay.password_file", folder);
    match (username, &password) {
        (Some(name), None) => report.fault(
            name.span.clone(),
            "relay.username is set and relay.password_file is not",
            "set both, or none; the password stands on the first line of that file",
        ),
        (None, Some((_, span))) => report.fault(
            span.clone(),
            "relay.password_file is set and relay.username is not",
            "set both, or none",
        ),
        (None, None) => return,
        (Some(_), Some((file, span))) => {
            if let Err(error) = std::fs::read(file) {
                let what =
                    format!("relay.password_file: {} cannot be read: {error}", file.display());
                report.fault(span.clone(), what, "write the password to this file, mode 0600");
            }
            readable_by_others(file, span.clone(), "relay.password_file", report);
        }
    }
    let route = values.get("relay.route").map(|found| &found.value);
    if matches!(route, Some(Value::Word(word)) if word == "mx" || word == "none") {
        let span =
            username.and_then(|found| found.span.clone()).or(password.and_then(|(_, span)| span));
        report.fault(
            span,
            "a login for the relay is set, but relay.route names no relay",
            "set relay.route = \"host:port\", or remove the login",
        );
    }
}

fn data_dir(values: &Values, folder: &Path, report: &mut Report) {
    let Some((path, span)) = path_of(values, "data_dir", folder) else { return };
    let octets = path.join("control.sock").as_os_str().len();
    if octets > SOCKET_BYTES_MAX {
        let what =
            format!("data_dir: the path of the control socket in it would have {octets} octets");
        report.fault(
            span.clone(),
            what,
            format!("choose a shorter path: a socket's may have {SOCKET_BYTES_MAX}"),
        );
    }
    if path.exists() && !path.is_dir() {
        report.fault(
            span,
            format!("data_dir: {} is not a folder", path.display()),
            "name a folder; it is created when missing",
        );
    } else if !path.exists() && !path.parent().is_some_and(Path::is_dir) {
        report.fault(
            span,
            format!("data_dir: the folder above {} does not exist", path.display()),
            format!("mkdir -p {}", path.parent().unwrap_or(&path).display()),
        );
    }
}

/// A held connection must speak before the customer's server drops it, and nothing may be said without a pause.
fn paces(values: &Values, report: &mut Report) {
    for (key, usual) in [("drain.noop_after", "4m"), ("drain.stall_after", "90s")] {
        let Some(found) = values.get(key) else { continue };
        match found.value {
            Value::Number(0) => report.fault(
                found.span.clone(),
                format!("{key} is a pause and cannot be zero"),
                format!("the default is \"{usual}\""),
            ),
            Value::Number(seconds) if seconds >= 300 => report.warning(
                found.span.clone(),
                format!("{key} is not below 5m, the time after which Postfix and Exim drop a silent client"),
                format!("the default is \"{usual}\""),
            ),
            _ => {}
        }
    }
}

/// RFC 2645 §5.2.1 lets a customer give up after ten minutes without an answer.
fn waits(values: &Values, report: &mut Report) {
    if let Some(found) = values.get("drain.wait_for_mail")
        && matches!(found.value, Value::Number(seconds) if seconds > 600)
    {
        report.warning(
                found.span.clone(),
                "drain.wait_for_mail is above 10m, the time after which customers may give up (RFC 2645 section 5.2.1)",
                "set \"10m\" or less; fetchmail waits for 5m unless its `timeout` says more",
            );
    }
}
