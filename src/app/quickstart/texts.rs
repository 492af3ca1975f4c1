//! What quickstart writes and prints.

use std::path::Path;

/// The configuration: every key that matters, with its reason. Keys left out have their defaults.
pub(super) fn configuration(hostname: &str) -> String {
    format!(
        r##"# Restante's configuration, made by `restante quickstart`. Everything listens on this machine only.
# All keys and their defaults: `restante check --show -c THIS_FILE`, and docs/operator.md.
# Relative paths are looked up beside this file.

hostname = "{hostname}"          # greeting, EHLO, Received; the public name of a real provider
data_dir = "data"                # queue, customers, control socket

[listen]                         # each a list of "address:port"; [] switches it off
mx    = ["127.0.0.1:2525"]       # mail for customers' domains; a real provider: "[::]:25"
mxs   = ["127.0.0.1:4650"]       # the same under implicit TLS;              "[::]:465"
odmr  = ["127.0.0.1:3660"]       # customers collect here, RFC 2645;         "[::]:366"
odmrs = ["127.0.0.1:3661"]       # the same under implicit TLS (fetchmail --ssl)
http  = ["127.0.0.1:9366"]       # metrics, health, status page

[tls]                            # a self-signed pair for localhost; a real provider has one from an authority
certificate = "tls/cert.pem"
private_key = "tls/key.pem"

[auth]
# fetchmail speaks CRAM-MD5 only and cannot STARTTLS before ATRN. With `false` it may log in without TLS, which is
# harmless between programs on one machine and nowhere else: a real provider keeps the default, true.
# PLAIN is never offered without TLS.
require_tls = false

[limits]
message_bytes_max = "50 MiB"     # announced as SIZE
disk_free_min     = "100 MiB"    # below it new mail gets 452; the default is 1 GiB

[drain]
wait_for_mail = "0s"             # e.g. "5m": ATRN on empty queues waits that long for mail
hold_open     = "0s"             # e.g. "1h": the connection stays, and new mail goes out at once

[log]
level  = "info"                  # error, warn, info, debug, trace
format = "text"                  # text, json, postfix
"##
    )
}

/// A fetchmailrc that works as it stands. fetchmail reads the password from here and nowhere else.
pub(super) fn fetchmailrc(customer: &str, domain: &str, password: &str) -> String {
    format!(
        r#"# Collects the mail of {domain} and hands it to the mail server on port 2599 of this machine.
# A real mail server listens on port 25: smtphost "localhost"
poll "localhost" protocol ODMR service 3660
  auth cram-md5
  user "{customer}" password "{password}"
  fetchdomains "{domain}"
  smtphost "localhost/2599"
"#
    )
}

/// A path as a shell takes it.
fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// The first time.
pub(super) fn first(
    program: &str,
    dir: &Path,
    customer: &str,
    domain: &str,
    password: &str,
) -> String {
    let config = shell(&dir.join("restante.toml"));
    let fetchmailrc = shell(&dir.join("fetchmailrc"));
    format!(
        r#"A provider is set up in {dir}.

  customer  {customer}
  domain    {domain}
  password  {password}
            (shown this once; a new one: {program} customer passwd {customer} -c {config})

It serves until Ctrl-C. In other terminals:

1. Send a message to the customer, as any mail server would:

  swaks --server 127.0.0.1:2525 --from you@sender.example --to you@{domain} --header "Subject: It works"

   or, without swaks:

  printf 'From: you@sender.example\nTo: you@{domain}\nSubject: It works\n\nHello.\n' |
    curl --crlf --mail-from you@sender.example --mail-rcpt you@{domain} --upload-file - smtp://127.0.0.1:2525

2. See it wait:

  {program} queue list -c {config}

3. Start a mail server for the customer on port 2599. This one prints what it gets
   (Debian: apt install python3-aiosmtpd; else: python3 -m pip install aiosmtpd):

  python3 -m aiosmtpd -n -l localhost:2599

4. Collect it, as the customer would (Debian: apt install fetchmail):

  fetchmail -f {fetchmailrc} --nosyslog -v

5. See that it is gone, and how the drain ended:

  {program} status -c {config}

Change {config} and you have a real provider; docs/operator.md says how.
"#,
        dir = dir.display()
    )
}

/// Every other time.
pub(super) fn again(program: &str, dir: &Path, customer: &str) -> String {
    let config = shell(&dir.join("restante.toml"));
    format!(
        "Serving what is in {dir}, until Ctrl-C. The password was shown when it was made;\n\
         for a new one: {program} customer passwd {customer} -c {config}\n\
         (then write it into {fetchmailrc})\n",
        dir = dir.display(),
        fetchmailrc = dir.join("fetchmailrc").display()
    )
}

/// How this program is called from a shell: by its name where it was found by its name, else by its path.
pub(super) fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let by_path = called.to_string_lossy().contains('/');
    match std::env::current_exe() {
        Ok(path) if by_path => shell(&path),
        _ => "restante".to_owned(),
    }
}
