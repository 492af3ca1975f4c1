//! `restante customer kit`: what a customer has to type, with the real names.

use std::fmt::Write;
use std::net::SocketAddr;

use super::{Failure, ask, unexpected};
use crate::app::admin::{Customer, Done, Request};
use crate::app::backend::Backend;
use crate::app::config::Config;
use crate::app::output::Out;
use crate::mail::CustomerName;

/// The texts, each to be copied as it stands. A field, once shipped, keeps its name.
#[derive(serde::Serialize)]
struct Kit {
    customer: String,
    provider: String,
    logins: Vec<String>,
    domains: Vec<String>,
    odmr_port: Option<u16>,
    odmrs_port: Option<u16>,
    dns: String,
    fetch: String,
    fetchmail: String,
    exim: String,
}

pub(super) fn run(
    name: CustomerName,
    config: &Config,
    desk: &mut Backend,
    out: &mut Out,
) -> Result<(), Failure> {
    let Done::Customer(customer) = ask(desk, Request::CustomerShow { name })? else {
        return Err(unexpected().into());
    };
    let kit = Kit::of(&customer, config);
    if !out.is_text() {
        return Ok(out.json(&kit)?);
    }
    out.text(&kit.text(&customer))?;
    Ok(())
}

fn port(listeners: &[SocketAddr]) -> Option<u16> {
    listeners.first().map(SocketAddr::port)
}

impl Kit {
    fn of(customer: &Customer, config: &Config) -> Self {
        let provider = config.hostname.to_string();
        let name = customer.name.to_string();
        let domains: Vec<String> = customer.domains.iter().map(ToString::to_string).collect();
        let (odmr, odmrs) = (port(&config.listen.odmr), port(&config.listen.odmrs));
        let has_tls = config.tls.is_some();
        Self {
            dns: dns(&provider, &domains, port(&config.listen.mx)),
            fetch: fetch(&provider, &name, odmr, odmrs, has_tls),
            fetchmail: fetchmail(&provider, &name, &domains, odmr, odmrs),
            exim: exim(&provider, &domains, odmr),
            logins: customer.credentials.iter().map(|c| c.login.clone()).collect(),
            customer: name,
            provider,
            domains,
            odmr_port: odmr,
            odmrs_port: odmrs,
        }
    }

    fn text(&self, customer: &Customer) -> String {
        let Self { customer: name, provider, logins, domains, dns, fetch, fetchmail, exim, .. } =
            self;
        let (logins, domains) = (logins.join(", "), domains.join(", "));
        let mut text = format!(
            "# Collecting the mail of {domains} from {provider}\n\n\
             Login: {logins}. The password was shown once, when the login was made; PASSWORD stands for it below.\n"
        );
        if customer.suspended {
            text += "This customer is suspended: logins and new mail are refused.\n";
        }
        for (title, part) in [
            ("DNS: the mail of each domain goes to the provider", dns),
            ("restante fetch: any mail server behind it", fetch),
            ("fetchmail 6: ~/.fetchmailrc, mode 0600", fetchmail),
            ("Exim 4.99 and newer, by cron", exim),
        ] {
            // Writing into a string does not fail.
            let _ = write!(text, "\n## {title}\n\n{part}");
        }
        let profile = customer.settings.get("client-profile").map(String::as_str);
        if profile != Some("fetchmail-tls") && self.odmrs_port.is_some() {
            let _ = write!(
                text,
                "\nFor fetchmail over TLS the provider needs: restante customer set {name} client-profile fetchmail-tls\n"
            );
        }
        text
    }
}

fn dns(provider: &str, domains: &[String], mx: Option<u16>) -> String {
    let mut text = String::new();
    for domain in domains {
        let _ = writeln!(text, "{domain}.  IN MX 10 {provider}.");
    }
    if mx.is_some_and(|port| port != 25) {
        text += "; other mail servers call port 25 only, and this provider listens elsewhere\n";
    }
    text
}

fn fetch(provider: &str, name: &str, odmr: Option<u16>, odmrs: Option<u16>, tls: bool) -> String {
    let (port, how) = match (odmr, odmrs) {
        (Some(port), _) if tls => (port, ""),
        (_, Some(port)) => (port, " --tls implicit"),
        (Some(port), None) => (port, " --tls none"),
        (None, None) => return "The provider listens on no port for it.\n".into(),
    };
    let place = if port == 366 { provider.to_owned() } else { format!("{provider}:{port}") };
    format!(
        "echo 'PASSWORD' > pw; chmod 600 pw\n\
         restante fetch {place} --user {name} --password-file pw{how} --to smtp://localhost:25 --dry-run\n\
         restante fetch {place} --user {name} --password-file pw{how} --to smtp://localhost:25 --every 5m\n"
    )
}

fn fetchmail(
    provider: &str,
    name: &str,
    domains: &[String],
    odmr: Option<u16>,
    odmrs: Option<u16>,
) -> String {
    let (port, ssl) = match (odmrs, odmr) {
        (Some(port), _) => (port, "\n  ssl sslcertck"),
        (None, Some(port)) => (port, ""),
        (None, None) => return "The provider listens on no port for it.\n".into(),
    };
    let domains: Vec<String> = domains.iter().map(|domain| format!("\"{domain}\"")).collect();
    format!(
        "poll \"{provider}\" protocol ODMR service {port}\n  auth cram-md5\n  user \"{name}\" password \"PASSWORD\"\n  \
         fetchdomains {}\n  smtphost \"localhost/25\"{ssl}\n",
        domains.join(" ")
    )
}

fn exim(provider: &str, domains: &[String], odmr: Option<u16>) -> String {
    let note = match odmr {
        Some(366) => "",
        Some(_) => "# the provider's port is not 366, which Exim calls\n",
        None => return "The provider listens on no port for it.\n".into(),
    };
    format!(
        "{note}# login and TLS are those of the smtp transport and the client authenticators\n\
         exim -atrn {provider} {}\n",
        domains.join(",")
    )
}
