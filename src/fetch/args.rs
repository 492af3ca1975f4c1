//! The command line of `restante fetch` (section 6 of the interface).
//!
//! Read by the program; [`super::settings`] makes accounts of it. There is no option that takes a password.

use std::path::PathBuf;

/// Collect waiting mail from a provider (On-Demand Mail Relay, RFC 2645) and hand it to a local server or mailbox.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(
    after_help = "Exit status: 0 mail came or none was waiting; 75 nothing lost, try again later; \
    1 refused; 2 wrong usage.\nTARGET: smtp://host:port, lmtp://host:port, lmtp:///path/to/socket, maildir:DIR, \
    mbox:FILE."
)]
pub struct FetchArgs {
    /// The provider's host, and its port if it is not 366
    #[arg(value_name = "PROVIDER[:PORT]", required_unless_present = "config")]
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

    /// Several accounts from a TOML file
    #[arg(short = 'c', long = "config", value_name = "FILE", conflicts_with = "provider")]
    pub config: Option<PathBuf>,

    /// Log in, say what the provider offers, and leave without collecting
    #[arg(long)]
    pub dry_run: bool,

    /// Print one JSON document at the end
    #[arg(long, conflicts_with_all = ["json_lines", "every", "follow"])]
    pub json: bool,

    /// Print a JSON object for each message and each call
    #[arg(long)]
    pub json_lines: bool,
}
