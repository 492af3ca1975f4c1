//! A Postfix that flushes its queue to the same sink, beside the drain: on loopback, and over the link of 40 ms.
//!
//! Needs root and Debian's package `postfix`; it runs in a folder of its own, reads nothing from /etc/postfix, and
//! listens on loopback only. Where it cannot be had the rows say so.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::link::link;
use super::place::{Kind, Place};
use super::sink::{self, Sink};
use super::{WAYS, drained, row};

const MASTER: &str = "/usr/lib/postfix/sbin/master";
const PATIENCE: Duration = Duration::from_secs(240);

const MAIN: &str = "
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = mail.sender.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_host_lookup = native
smtp_dns_support_level = disabled
disable_dns_lookups = yes
alias_maps =
alias_database =
local_recipient_maps =
in_flow_delay = 0
smtpd_peername_lookup = no
smtpd_client_connection_rate_limit = 0
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{relay}
default_transport = smtp
defer_transports = smtp
{more}
";

const SERVICES: &str = "
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
flush     unix  n - n 1000? 0 flush
tlsmgr    unix  - - n 1000? 1 tlsmgr
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
error     unix  - - n - - error
retry     unix  - - n - - error
proxymap  unix  - - n - - proxymap
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
showq     unix  n - n - - showq
postlog   unix-dgram n - n - 1 postlogd
";

struct Postfix {
    folder: PathBuf,
    port: u16,
    master: Child,
}

fn run(program: &str, words: &[&str]) -> Result<String, String> {
    let done = Command::new(program).args(words).stdin(Stdio::null()).output();
    let done = done.map_err(|error| format!("{program}: {error}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&done.stderr)))
}

fn wait_until(what: &str, mut question: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !question() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Postfix {
    /// Starts one that sends everything to `relay` once it may.
    fn start(folder: &Path, relay: SocketAddr, more: &str) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        for part in ["", "queue", "data"] {
            fs::create_dir_all(folder.join(part)).map_err(text)?;
        }
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder, mode).map_err(text)?;
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(text)?.port();
        let path = folder.display().to_string();
        let main = MAIN.replace("{folder}", &path).replace("{relay}", &relay.port().to_string());
        fs::write(folder.join("main.cf"), main.replace("{more}", more)).map_err(text)?;
        let services = SERVICES.replace("{port}", &port.to_string());
        fs::write(folder.join("master.cf"), services).map_err(text)?;
        run("chown", &["postfix", &format!("{path}/data")])?;
        run("postfix", &["-c", &path, "check"])?;
        let out = fs::File::create(folder.join("out")).map_err(text)?;
        let mut start = Command::new(MASTER);
        start.args(["-c", &path, "-d"]).stdin(Stdio::null()).stderr(out);
        let master = start.spawn().map_err(text)?;
        wait_until("Postfix to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Ok(Self { folder: folder.to_owned(), port, master })
    }

    /// Fills its queue, lets it go, and answers how many messages a second the sink then took.
    fn flush(&self, messages: usize) -> f64 {
        let folder = self.folder.display().to_string();
        let (port, count) = (format!("127.0.0.1:{}", self.port), messages.to_string());
        let words = ["-s", "20", "-m", &count, "-l", "4096", "-f", "t@foo.example"];
        run("smtp-source", &[&words[..], &["-t", "l@d0.example", &port]].concat()).expect("given");
        let queued = || {
            let waiting = self.folder.join("queue/deferred");
            let hashed = fs::read_dir(waiting).into_iter().flatten().flatten();
            hashed.map(|part| fs::read_dir(part.path()).map_or(0, Iterator::count)).sum::<usize>()
        };
        wait_until("all messages to be deferred", || queued() == messages);
        run("postconf", &["-c", &folder, "-e", "defer_transports="]).expect("set");
        run("postfix", &["-c", &folder, "reload"]).expect("reloaded");
        let before = sink::taken();
        let begin = Instant::now();
        run("postqueue", &["-c", &folder, "-f"]).expect("flushed");
        wait_until("the sink to have all", || sink::taken() >= before + messages as u64);
        let seconds = begin.elapsed().as_secs_f64();
        run("postconf", &["-c", &folder, "-e", "defer_transports=smtp"]).expect("set");
        messages as f64 / seconds
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let folder = self.folder.display().to_string();
        // Nothing is lost if it does not end: the folder goes away all the same.
        let _ = run("postfix", &["-c", &folder, "stop"]);
        let _ = self.master.wait();
    }
}

/// See the module's head.
pub(crate) fn rows(messages: usize) {
    let of_postfix = messages.min(5000);
    println!(
        "\n# postfix: messages of 4 KiB to one sink; Postfix flushes {of_postfix}, the drain {messages}"
    );
    if !Path::new(MASTER).exists() {
        println!("not measured: Postfix is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let sink = Sink::start(WAYS[2].1);
    let single =
        "smtp_destination_concurrency_limit = 1\nsmtp_connection_cache_destinations = 127.0.0.1";
    let mut instances = 0;
    let mut postfix = |to: SocketAddr, more: &str, messages: usize| {
        instances += 1;
        let begun = Postfix::start(&folder.path().join(instances.to_string()), to, more);
        begun.map_err(|error| println!("not measured: {error}")).ok().map(|one| one.flush(messages))
    };
    let place = Place::new(Kind::Sled(folder.path().join("store")), messages, 4096);
    let ours = drained(&place, &sink);
    row("restante, one connection, durable", ours, "messages/s", 1.0, "itself");
    for (name, more) in [("Postfix, up to 20 connections", ""), ("Postfix, one connection", single)]
    {
        let Some(theirs) = postfix(sink.address, more, of_postfix) else { return };
        row(name, theirs, "messages/s", ours / theirs, "restante is so many times that");
    }
    println!("\n# postfix: the same over the link with 40 ms round trip and 100 Mbit/s");
    let place = Place::new(Kind::Sled(folder.path().join("far")), 10_000, 4096);
    let begin = Instant::now();
    let last = place.drain(link(sink.address));
    let ours = last.messages as f64 / begin.elapsed().as_secs_f64();
    row("restante, one connection, durable", ours, "messages/s", 1.0, "itself");
    let rows = [
        ("Postfix, up to 20 connections, far", "", 400),
        ("Postfix, one connection, far", single, 60),
    ];
    for (name, more, messages) in rows {
        let Some(theirs) = postfix(link(sink.address), more, messages) else { return };
        row(name, theirs, "messages/s", ours / theirs, "restante is so many times that");
    }
}
