//! The command line of `restante fetch` (section 6 of the interface).
//!
//! Read by the program; `settings` makes accounts of it. There is no option that takes a password. `-c`, `--json`
//! and `--json-lines` belong to all commands and come beside it.

use std::path::PathBuf;

/// How results leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Lines for people on standard error.
    #[default]
    Lines,
    /// One JSON document on standard output when all calls are over.
    Json,
    /// A JSON object for each message and each call on standard output.
    JsonLines,
}

/// Arguments of `restante fetch`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(
    after_help = "Exit status: 0 mail came or none was waiting; 75 nothing lost, try again later; \
    1 refused; 2 wrong usage.\nWith -c FILE (and without PROVIDER) all accounts of a TOML file are called.\nTARGET: smtp://host:port, lmtp://host:port, lmtp:///path/to/socket, maildir:DIR, \
    mbox:FILE."
)]
pub struct FetchArgs {
    /// The provider's host, and its port if it is not 366
    #[arg(value_name = "PROVIDER[:PORT]")]
    pub provider: Option<String>,

    /// The login name
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// File with the password in its first line; "-" is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["password_stdin", "password_credential"])]
    pub password_file: Option<PathBuf>,

    /// Read the password from standard input
    #[arg(long, conflicts_with = "password_credential")]
    pub password_stdin: bool,

    /// systemd credential with the password [default: "password", if there is one]
    #[arg(long, value_name = "CREDENTIAL")]
    pub password_credential: Option<String>,

    /// Collect for this domain only; may be repeated [default: all that the login may have]
    #[arg(long = "domain", value_name = "D")]
    pub domains: Vec<String>,

    /// Where the mail goes
    #[arg(long, value_name = "TARGET")]
    pub to: Option<String>,

    /// How the connection is protected: starttls, implicit or none (clear text) [default: starttls]
    #[arg(long, value_name = "HOW")]
    pub tls: Option<String>,

    /// PEM file with the authorities that may vouch for the provider [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    pub ca: Option<PathBuf>,

    /// SHA-256 of the provider's public key (SubjectPublicKeyInfo), hexadecimal
    #[arg(long, value_name = "SHA256")]
    pub pin: Option<String>,

    /// Allow only this login mechanism; may be repeated [default: all]
    #[arg(long = "mechanism", value_name = "M", value_delimiter = ',')]
    pub mechanisms: Vec<String>,

    /// Our certificate, PEM, for the mechanism EXTERNAL
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,

    /// The key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,

    /// Our name in EHLO [default: the machine's]
    #[arg(long, value_name = "NAME")]
    pub hello: Option<String>,

    /// Call again after this time, for ever: 90s, 5m, 2h
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    pub every: Option<String>,

    /// Stay connected where the provider holds open, and reconnect
    #[arg(long)]
    pub follow: bool,

    /// Log in, say what the provider offers, and leave without collecting
    #[arg(long)]
    pub dry_run: bool,
}
