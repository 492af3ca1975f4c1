//! `restante fetch` as a process: exit status, what it prints, where passwords come from, signals, memory.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::party::{Habits, Identity, Server, Talk, provider};
use super::{bodies, maildir};

struct Fetch {
    command: Command,
    home: tempfile::TempDir,
}

/// `restante fetch` for the account `demo`, in clear text, into a Maildir.
fn fetch(provider: SocketAddr) -> Fetch {
    let home = tempfile::tempdir().expect("a folder");
    std::fs::write(home.path().join("pw"), "secret\n").expect("written");
    let mut command = program();
    command.args(["fetch", &format!("localhost:{}", provider.port())]);
    command.args(["--user", "demo", "--tls", "none", "--to", &maildir(home.path())]);
    Fetch { command, home }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_restante"));
    for name in ["RESTANTE_CONFIG", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Fetch {
    fn with(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    fn with_password(self) -> Self {
        let file = self.home.path().join("pw").display().to_string();
        self.with(&["--password-file", &file])
    }

    fn run(mut self) -> (Output, tempfile::TempDir) {
        (self.command.output().expect("the program runs"), self.home)
    }

    fn start(mut self) -> (Child, tempfile::TempDir) {
        (self.command.spawn().expect("the program runs"), self.home)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn one_message(mut talk: Talk) {
    talk.log_in();
    talk.say("250 reversing");
    talk.hello();
    assert!(talk.deliver("Subject: 1\r\n\r\nbody\r\n").starts_with("250"));
    talk.quit();
}

fn refusing(reply: &'static str) -> impl FnOnce(Talk) + Send + 'static {
    move |mut talk| {
        talk.log_in();
        talk.say(reply);
        talk.expect("QUIT");
        talk.say("221 bye");
    }
}

fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
}

#[test]
fn a_message_is_a_line_and_status_0() {
    let provider = provider(one_message);
    let (output, home) = fetch(provider.address).with_password().run();
    provider.done();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("passed account=demo@localhost from=<sender@foo.example>"), "{said}");
    assert!(said.contains("collected account=demo@localhost messages=1 "), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(bodies(home.path()), ["body\n"]);
}

#[test]
fn refusals_are_one_line_with_cause_and_mend() {
    let cases = [
        ("450 4.7.1 not yours", 1, "check --domain"),
        ("451 4.3.0 not now", 75, "try later"),
        ("453 4.2.0 no mail", 0, ""),
        ("502 5.5.1 unknown", 1, "usually 366"),
        ("530 5.7.0 log in", 1, "--tls none"),
    ];
    for (reply, status, mend) in cases {
        let provider = provider(refusing(reply));
        let (output, _home) = fetch(provider.address).with_password().run();
        provider.done();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(status), "{reply}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        if status != 0 {
            assert!(said.starts_with("restante fetch: demo@localhost: ATRN refused: "), "{said}");
            assert!(said.contains(reply) && said.contains(mend), "{said}");
        }
    }
}

#[test]
fn passwords_come_from_a_file_standard_input_or_a_credential() {
    // Each way: arguments, standard input, and whether systemd's folder is there.
    let ways: [(&[&str], &str, bool); 4] = [
        (&["--password-stdin"], "secret\n", false),
        (&["--password-file", "-"], "secret", false),
        (&["--password-credential", "pw"], "", true),
        (&[], "", true),
    ];
    for (arguments, input, with_credentials) in ways {
        let provider = provider(|mut talk| {
            talk.log_in();
            talk.say("453 none");
            talk.heard
        });
        let mut fetch = fetch(provider.address).with(arguments);
        if with_credentials {
            std::fs::write(fetch.home.path().join("password"), "secret").expect("written");
            fetch.command.env("CREDENTIALS_DIRECTORY", fetch.home.path());
        }
        fetch.command.stdin(Stdio::piped());
        let (mut child, _home) = fetch.start();
        let mut stdin = child.stdin.take().expect("a pipe");
        // A program that does not ask for it may have ended.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        assert_eq!(child.wait().expect("an end").code(), Some(0), "{arguments:?}");
        let heard = provider.done();
        // "demo " and the digest that only this password gives for the challenge.
        assert_eq!(heard[2], RIGHT_ANSWER, "{arguments:?}");
    }
}

/// base64 of `demo` and HMAC-MD5 of `<1@provider.example>` under `secret`.
const RIGHT_ANSWER: &str = "ZGVtbyBjNjU3YzM3YTI4ODIyODNjNmMyMjIyNmRiYzQ3YTRiOA==";

#[test]
fn no_password_can_be_given_as_an_argument() {
    let nobody: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let (output, _home) = fetch(nobody).with(&["--password", "secret"]).run();
    assert_eq!(output.status.code(), Some(2));
    let (output, _home) = fetch(nobody).run();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--password-file"), "{}", said(&output));
}

#[test]
fn scripts_read_json() {
    let provider_1 = provider(one_message);
    let (output, _home) = fetch(provider_1.address).with_password().with(&["--json"]).run();
    provider_1.done();
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    let account = &document["accounts"][0];
    assert_eq!((&account["result"], &account["messages"]), (&"collected".into(), &1.into()));
    assert_eq!(account["account"], "demo@localhost");
    assert!(output.stderr.is_empty(), "{}", said(&output));

    let provider_2 = provider(one_message);
    let (output, _home) = fetch(provider_2.address).with_password().with(&["--json-lines"]).run();
    provider_2.done();
    let lines: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(&line.expect("text")).expect("an object"))
        .collect();
    assert_eq!(
        (&lines[0]["event"], &lines[0]["to"][0]),
        (&"passed".into(), &"user@home.example".into())
    );
    assert_eq!((&lines[1]["event"], &lines[1]["result"]), (&"call".into(), &"collected".into()));

    let provider_3 = provider(refusing("450 4.7.1 not yours"));
    let (output, _home) = fetch(provider_3.address).with_password().with(&["--json"]).run();
    provider_3.done();
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    let account = &document["accounts"][0];
    assert_eq!(account["result"], "refused");
    assert!(account["cause"].as_str().expect("a cause").contains("450 4.7.1"));
    assert_eq!((output.status.code(), said(&output).lines().count()), (Some(1), 1));
}

#[test]
fn a_dry_run_prints_what_is_offered() {
    let provider = provider(|mut talk| {
        talk.log_in();
        talk.say("221 bye");
    });
    let (output, home) = fetch(provider.address).with_password().with(&["--dry-run"]).run();
    provider.done();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("login:      ok with CRAM-MD5\n"), "{text}");
    assert!(text.contains("ATRN:       yes\n") && text.contains("clear text"), "{text}");
    assert_eq!(output.status.code(), Some(0));
    assert!(!home.path().join("Maildir").exists());
}

#[test]
fn a_file_calls_all_its_accounts_and_the_worst_status_counts() {
    let home = tempfile::tempdir().expect("a folder");
    let (good, bad) = (provider(one_message), provider(refusing("451 4.3.0 not now")));
    std::fs::write(home.path().join("pw"), "secret\n").expect("written");
    let account = |name: &str, port: u16| {
        format!(
            "[account.{name}]\nprovider = \"localhost:{port}\"\nuser = \"demo\"\npassword_file = \"pw\"\n\
             tls = \"none\"\nto = \"{}\"\n",
            maildir(home.path())
        )
    };
    let text = account("good", good.address.port()) + &account("bad", bad.address.port());
    let path = home.path().join("fetch.toml");
    std::fs::write(&path, text).expect("written");
    let output = program().arg("fetch").arg("-c").arg(&path).output().expect("the program runs");
    good.done();
    bad.done();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("passed account=good "), "{said}");
    assert!(said.contains("restante fetch: bad: ATRN refused: 451 4.3.0 not now"), "{said}");
}

#[test]
fn a_service_tells_systemd_and_stops_when_told() {
    let provider = provider(one_message);
    let fetch = fetch(provider.address).with_password().with(&["--every", "1h"]);
    let socket = UnixDatagram::bind(fetch.home.path().join("notify")).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let mut fetch = fetch;
    let path = fetch.home.path().join("notify");
    fetch.command.env("NOTIFY_SOCKET", path);
    let (child, _home) = fetch.start();
    let mut heard = Vec::new();
    let mut hear_until = |word: &str| {
        let mut buffer = [0; 512];
        loop {
            let length = socket.recv(&mut buffer).expect("a notification");
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            if heard.last().is_some_and(|last| last.contains(word)) {
                return;
            }
        }
    };
    hear_until("READY=1");
    hear_until("collected, 1 messages");
    hear_until("next call in 3600 s");
    provider.done();
    terminate(&child);
    hear_until("STOPPING=1");
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn sigterm_in_mid_message_lets_it_finish() {
    let (began, has_begun) = mpsc::channel();
    let (stopping, is_stopping) = mpsc::channel::<()>();
    let provider = provider(move |mut talk| {
        talk.log_in();
        talk.say("250 reversing");
        talk.hello();
        for command in ["MAIL FROM:<a@foo.example>", "RCPT TO:<b@home.example>", "DATA"] {
            talk.say(command);
            talk.reply();
        }
        talk.say("Subject: 2\n\nfirst half");
        began.send(()).expect("heard");
        is_stopping.recv().expect("told");
        talk.say("second half\n.");
        assert!(talk.reply().starts_with("250"), "the message was cut");
        // Whatever comes next is answered by the farewell.
        assert!(talk.reply().starts_with("421"));
    });
    let fetch = fetch(provider.address).with_password();
    let path = fetch.home.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let mut fetch = fetch;
    fetch.command.env("NOTIFY_SOCKET", path);
    let (child, home) = fetch.start();
    has_begun.recv().expect("in the middle");
    terminate(&child);
    let mut buffer = [0; 512];
    loop {
        let length = socket.recv(&mut buffer).expect("a notification");
        if &buffer[..length] == b"STOPPING=1" {
            break;
        }
    }
    stopping.send(()).expect("heard");
    provider.done();
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(bodies(home.path()), ["first half\nsecond half\n"]);
}

/// The greatest resident size of a running process so far, in KiB. In a debug build without the pages of the program's own
/// file, which is several times as large as what is installed and says nothing about what passes through it.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
    let status = status.expect("a running process");
    let figure = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a figure");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    };
    let own_file = if cfg!(debug_assertions) { figure("RssFile:") } else { 0 };
    figure("VmHWM:") - own_file
}

#[test]
fn fifty_mebibytes_pass_in_sixteen() {
    const MESSAGE_BYTES: usize = 50 << 20;
    let identity = Identity::new();
    let pin: String = identity.pin.iter().map(|byte| format!("{byte:02x}")).collect();
    let (passed, has_passed) = mpsc::channel();
    let (measured, is_measured) = mpsc::channel::<()>();
    let provider = provider(move |mut talk| {
        talk.say("220 provider.example");
        talk.expect("EHLO");
        talk.say("250-provider.example\n250 STARTTLS");
        talk.expect("STARTTLS");
        talk.say("220 go");
        let mut talk = talk.secure(&identity);
        talk.expect("EHLO");
        talk.log_in_after_hello();
        talk.say("250 reversing");
        talk.hello();
        for command in ["MAIL FROM:<a@foo.example>", "RCPT TO:<b@home.example>", "DATA"] {
            talk.say(command);
            talk.reply();
        }
        let line = [&[b'x'; 76][..], b"\r\n"].concat();
        let block = line.repeat(1000);
        for _ in 0..MESSAGE_BYTES.div_ceil(block.len()) {
            talk.send(&block);
        }
        talk.say(".");
        assert!(talk.reply().starts_with("250"));
        passed.send(()).expect("heard");
        is_measured.recv().expect("told");
        talk.quit();
    });
    let server = Server::start(Habits::default());
    let home = tempfile::tempdir().expect("a folder");
    std::fs::write(home.path().join("pw"), "secret\n").expect("written");
    let file = home.path().join("pw").display().to_string();
    let address = format!("localhost:{}", provider.address.port());
    let to = format!("smtp://{}", server.address);
    let arguments = ["--user", "demo", "--pin", &pin, "--to", &to, "--password-file", &file];
    let mut command = program();
    command.args(["fetch", &address]).args(arguments);
    let child = command.spawn().expect("the program runs");
    has_passed.recv().expect("passed");
    let kib = memory(child.id());
    measured.send(()).expect("heard");
    provider.done();
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(server.got().messages[0].len() >= MESSAGE_BYTES);
    assert!(kib < 16 * 1024, "{kib} KiB");
}
