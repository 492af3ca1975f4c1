//! Command line and TOML file, made into accounts and their rhythm.
//!
//! Called once at the start. Every fault is one line that names the option, or file, line and column.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::account::Account;
use super::args::{FetchArgs, Form};
use super::rhythm::Rhythm;
use super::secret::{CREDENTIAL, SecretSource, credential};
use super::target::Target;
use crate::mail::Domain;
use crate::net::tls::{Identity, Trust};
use crate::smtp::MECHANISMS;
use crate::smtp::caller::Encryption;

/// An account and how often it is called.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) account: Account,
    pub(super) rhythm: Rhythm,
}

/// What both sources say of one account.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    provider: Option<String>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    password_credential: Option<String>,
    #[serde(skip)]
    password_stdin: bool,
    #[serde(default)]
    domains: Vec<String>,
    to: Option<String>,
    tls: Option<String>,
    ca: Option<PathBuf>,
    pin: Option<String>,
    #[serde(default)]
    mechanisms: Vec<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    hello: Option<String>,
    every: Option<String>,
    #[serde(default)]
    follow: bool,
}

/// The file of `-c`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    account: BTreeMap<String, toml::Spanned<Wish>>,
}

/// All accounts that the command line asks for.
///
/// # Errors
/// One line for the user.
pub(super) fn planned(
    args: &FetchArgs,
    config: Option<&Path>,
    form: Form,
) -> Result<Vec<Planned>, String> {
    let mut planned = match (config, &args.provider) {
        (Some(_), Some(_)) => return Err("give a provider or -c FILE, not both".into()),
        (Some(path), None) => from_file(path, args)?,
        (None, _) => vec![plan(None, wish_of(args))?],
    };
    for one in &mut planned {
        one.account.dry_run = args.dry_run;
        if args.dry_run {
            one.rhythm = Rhythm::Once;
        }
        if form == Form::Json && one.rhythm != Rhythm::Once {
            return Err("--json prints when all calls are over: use --json-lines here".into());
        }
    }
    Ok(planned)
}

fn wish_of(args: &FetchArgs) -> Wish {
    let is_stdin = args.password_file.as_deref() == Some(Path::new("-"));
    Wish {
        provider: args.provider.clone(),
        user: args.user.clone(),
        password_file: args.password_file.clone().filter(|_| !is_stdin),
        password_credential: args.password_credential.clone(),
        password_stdin: args.password_stdin || is_stdin,
        domains: args.domains.clone(),
        to: args.to.clone(),
        tls: args.tls.clone(),
        ca: args.ca.clone(),
        pin: args.pin.clone(),
        mechanisms: args.mechanisms.clone(),
        certificate: args.certificate.clone(),
        key: args.key.clone(),
        hello: args.hello.clone(),
        every: args.every.clone(),
        follow: args.follow,
    }
}

fn from_file(path: &Path, args: &FetchArgs) -> Result<Vec<Planned>, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let at = |offset: usize| {
        let before = text.get(..offset).unwrap_or(&text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        format!("{name}:{line}:{column}")
    };
    let file: File = toml::from_str(&text).map_err(|error| {
        let place = at(error.span().map_or(0, |span| span.start));
        format!("{place}: {}", error.message())
    })?;
    if file.account.is_empty() {
        return Err(format!("{name}: no account in it; expected [account.NAME]"));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut planned = Vec::new();
    for (account, wish) in file.account {
        let place = at(wish.span().start);
        let mut wish = wish.into_inner();
        wish.find_beside(folder);
        // What is said on the command line holds for all.
        wish.follow |= args.follow;
        wish.every = args.every.clone().or(wish.every);
        let one = plan(Some(&account), wish)
            .map_err(|fault| format!("{place}: account {account}: {fault}"))?;
        planned.push(one);
    }
    Ok(planned)
}

impl Wish {
    /// Paths in a file are meant from the file's own folder.
    fn find_beside(&mut self, folder: &Path) {
        let paths = [&mut self.password_file, &mut self.ca, &mut self.certificate, &mut self.key];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }

    fn secret(&self) -> Result<Option<SecretSource>, String> {
        let file = self.password_file.clone().map(SecretSource::File);
        let named = self.password_credential.clone().map(SecretSource::Credential);
        let stdin = self.password_stdin.then_some(SecretSource::Stdin);
        let mut given = [file, named, stdin].into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(_), Some(_)) => Err("give the password in one way only".into()),
            (Some(source), None) => Ok(Some(source)),
            (None, _) => {
                let is_there = credential(CREDENTIAL).is_some_and(|path| path.exists());
                Ok(is_there.then(|| SecretSource::Credential(CREDENTIAL.into())))
            }
        }
    }
}

fn plan(name: Option<&str>, wish: Wish) -> Result<Planned, String> {
    let missing = |what: &str| format!("{what} is missing");
    let provider = wish.provider.clone().ok_or_else(|| missing("the provider (or -c FILE)"))?;
    let target = wish.to.as_deref().ok_or_else(|| missing("the target (--to, or \"to\")"))?;
    let target: Target = target.parse().map_err(|fault: super::TargetError| fault.to_string())?;
    let identity = match (wish.certificate.clone(), wish.key.clone()) {
        (Some(certificate), Some(private_key)) => Some(Identity { certificate, private_key }),
        (None, None) => None,
        _ => return Err("a certificate needs its key, and a key its certificate".into()),
    };
    let secret = match wish.secret()? {
        Some(source) => Some(source.read()?),
        None if identity.is_some() => None,
        None => {
            return Err(
                "no password: use --password-file, --password-stdin, a systemd credential, or \
                        --certificate"
                    .into(),
            );
        }
    };
    let user = match (&wish.user, &secret) {
        (Some(user), _) => user.clone(),
        (None, None) => String::new(),
        (None, Some(_)) => return Err(missing("the user (--user, or \"user\")")),
    };
    let mut account =
        Account::new(&provider, &user, secret, target).map_err(|fault| fault.to_string())?;
    account.name = name.map_or(account.name, str::to_owned);
    account.encryption = encryption(wish.tls.as_deref())?;
    account.trust = trust(wish.ca, wish.pin.as_deref())?;
    account.identity = identity;
    account.domains = domains(&wish.domains)?;
    account.mechanisms = mechanisms(&wish.mechanisms)?;
    if let Some(hello) = wish.hello {
        account.hello = self::hello(&hello)?;
    }
    let rhythm = match (wish.every, wish.follow) {
        (Some(_), true) => return Err("every and follow exclude each other".into()),
        (Some(every), false) => Rhythm::Every(span(&every)?),
        (None, true) => Rhythm::Follow,
        (None, false) => Rhythm::Once,
    };
    Ok(Planned { account, rhythm })
}

fn encryption(text: Option<&str>) -> Result<Encryption, String> {
    match text {
        None | Some("starttls") => Ok(Encryption::StartTls),
        Some("implicit") => Ok(Encryption::Implicit),
        Some("none") => Ok(Encryption::Clear),
        Some(other) => Err(format!("tls \"{other}\": expected starttls, implicit or none")),
    }
}

fn trust(ca: Option<PathBuf>, pin: Option<&str>) -> Result<Trust, String> {
    match (ca, pin) {
        (Some(_), Some(_)) => Err("ca and pin exclude each other".into()),
        (Some(path), None) => Ok(Trust::Authority(path)),
        (None, Some(text)) => pinned(text)
            .map(Trust::Pin)
            .ok_or_else(|| format!("pin \"{text}\": expected 64 hexadecimal digits")),
        (None, None) => Ok(Trust::System),
    }
}

/// 64 hexadecimal digits in any case, with or without colons.
fn pinned(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u32> =
        text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::try_from(pair.iter().fold(0, |sum, digit| sum * 16 + digit)).unwrap_or(0))
        .collect();
    (digits.len() == 64).then(|| bytes.try_into().ok()).flatten()
}

fn domains(names: &[String]) -> Result<Vec<Domain>, String> {
    let mut domains = Vec::new();
    for name in names {
        let domain = Domain::parse(name).map_err(|fault| format!("domain \"{name}\": {fault}"))?;
        if !domain.has_two_labels() {
            return Err(format!("domain \"{name}\": ATRN takes names of two labels or more"));
        }
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    Ok(domains)
}

fn mechanisms(names: &[String]) -> Result<Vec<&'static str>, String> {
    if names.is_empty() {
        return Ok(MECHANISMS.to_vec());
    }
    let known = |name: &String| {
        let found = MECHANISMS.into_iter().find(|known| known.eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            format!("mechanism \"{name}\": expected one of {}", MECHANISMS.join(", "))
        })
    };
    names.iter().map(known).collect()
}

fn hello(name: &str) -> Result<String, String> {
    let inside = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_literal = inside.is_some_and(|literal| {
        let address = literal.strip_prefix("IPv6:").unwrap_or(literal);
        address.parse::<std::net::IpAddr>().is_ok()
    });
    if is_literal {
        return Ok(name.to_owned());
    }
    let domain = Domain::parse(name).map_err(|fault| format!("hello \"{name}\": {fault}"))?;
    Ok(domain.as_str().to_owned())
}

/// A time with its unit: `90s`, `5m`, `2h`, `1d`; a second at least.
fn span(text: &str) -> Result<Duration, String> {
    let fault = || format!("time \"{text}\": expected a number with s, m, h or d, like 5m");
    let (number, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(fault()),
    };
    let number: u64 = number.parse().map_err(|_| fault())?;
    number
        .checked_mul(seconds)
        .filter(|total| (1..=86_400 * 366).contains(total))
        .map(Duration::from_secs)
        .ok_or_else(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("pw"), "secret\n").expect("written");
        let path = folder.path().join("fetch.toml");
        std::fs::write(&path, text).expect("written");
        (folder, path)
    }

    fn all(path: &Path) -> Result<Vec<Planned>, String> {
        planned(&FetchArgs::default(), Some(path), Form::Lines)
    }

    #[test]
    fn a_file_holds_several_accounts() {
        let (_folder, path) = written(
            "[account.a]\nprovider = \"mx.example\"\nuser = \"a\"\npassword_file = \"pw\"\n\
             to = \"maildir:/tmp/x\"\nevery = \"5m\"\n\
             [account.b]\nprovider = \"[::1]:3660\"\nuser = \"b\"\npassword_file = \"pw\"\n\
             to = \"smtp://localhost:25\"\ntls = \"none\"\ndomains = [\"B.example\", \"b.example\"]\n\
             mechanisms = [\"cram-md5\"]\nfollow = true\n",
        );
        let planned = all(&path).expect("two accounts");
        let names: Vec<_> = planned.iter().map(|one| one.account.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(planned[0].rhythm, Rhythm::Every(Duration::from_secs(300)));
        assert_eq!((planned[1].account.host.as_str(), planned[1].account.port), ("::1", 3660));
        assert_eq!(planned[1].account.domains.len(), 1);
        assert_eq!(planned[1].account.mechanisms, ["CRAM-MD5"]);
        assert_eq!(planned[1].rhythm, Rhythm::Follow);
    }

    #[test]
    fn faults_name_file_line_and_column() {
        let fault = |text: &str| {
            let (folder, path) = written(text);
            let fault = all(&path).expect_err("a fault");
            fault.replace(&folder.path().display().to_string(), "DIR")
        };
        let text = "[account.a]\nprovider = \"mx.example\"\npasword_file = \"x\"\n";
        assert!(fault(text).starts_with("DIR/fetch.toml:3:1: unknown field `pasword_file`"));
        assert!(fault("[account.a]\nuser = 5\n").starts_with("DIR/fetch.toml:2:8: "));
        let text = "\n[account.a]\nuser = \"a\"\n";
        assert_eq!(
            fault(text),
            "DIR/fetch.toml:2:1: account a: the provider (or -c FILE) is missing"
        );
        assert!(fault("").contains("account"));
    }

    #[test]
    fn values_are_checked_one_by_one() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "5", "m", "0s", "-1m", "5 m", "99999999999999999999d", "999d"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        assert_eq!(pinned(&"0A:".repeat(32)), Some([10; 32]));
        assert_eq!((pinned(&"0".repeat(63)), pinned(&"g".repeat(64))), (None, None));
        assert!(
            hello("[127.0.0.1]").is_ok()
                && hello("[IPv6:::1]").is_ok()
                && hello("a.example").is_ok()
        );
        assert!(hello("a b").is_err() && hello("[x]").is_err());
        assert!(domains(&["localhost".into()]).is_err());
        assert!(mechanisms(&["LOGIN".into()]).is_err());
    }
}
