//! The real program under pressure: rows E4, E6, E7 and B10 of docs/security.md, its sockets and its words to a service
//! manager, logins that come and go, and what a running provider may not do.

mod support;

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use support::{Peer, Provider};

const PATIENCE: Duration = Duration::from_secs(60);

fn started(folder: &Path, more: &str) -> Provider {
    let mut provider = Provider::prepare(folder, more);
    provider.add_customer("acme", "example.com", "a password of acme");
    provider.start();
    provider
}

fn greeted(provider: &Provider, listener: &str) -> Peer {
    let mut peer = provider.connect(listener);
    peer.expect("220");
    peer.ask("EHLO client.example", "250");
    peer
}

fn in_data(provider: &Provider) -> Peer {
    let mut peer = greeted(provider, "mx");
    peer.ask("MAIL FROM:<a@b.example>", "250");
    peer.ask("RCPT TO:<x@example.com>", "250");
    peer.ask("DATA", "354");
    peer
}

#[test]
fn e4_open_bodies_are_on_disk_and_not_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = started(folder.path(), "[limits]\nsessions_per_address = 100\n");
    let line = format!("{}\r\n", "x".repeat(76));
    let megabyte = line.repeat((1 << 20) / line.len());
    // Once, so that everything is warm.
    let mut first = in_data(&provider);
    first.say(&megabyte);
    first.say(".\r\n");
    first.expect("250");
    let before = support::process::resident_kib(provider.pid());
    let mut open: Vec<Peer> = (0..24).map(|_| in_data(&provider)).collect();
    for peer in &mut open {
        peer.say(&megabyte);
    }
    let grown = support::process::resident_kib(provider.pid()).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB for 24 open bodies of 1 MiB");
    for mut peer in open {
        peer.say(".\r\n");
        peer.expect("250");
    }
}

#[test]
fn e6_without_descriptors_it_waits_and_recovers() {
    let folder = tempfile::tempdir().expect("a folder");
    let more = "[limits]\nsessions_per_address = 1000\n";
    let provider = started(folder.path(), more);
    let address = provider.address("mx");
    let pid = rustix::process::Pid::from_raw(provider.pid().cast_signed()).expect("a process");
    let limit = rustix::process::Rlimit { current: Some(64), maximum: Some(64) };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limit).expect("set");
    let flood: Vec<std::net::TcpStream> =
        (0..200).map(|_| std::net::TcpStream::connect(&address).expect("the backlog")).collect();
    provider.wait_for_log("accept-failed");
    let ticks = support::process::processor_ticks(provider.pid());
    let began = Instant::now();
    // Two seconds of shortage: the loop pauses, and says it once.
    while began.elapsed() < Duration::from_secs(2) {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let used = support::process::processor_ticks(provider.pid()) - ticks;
    assert!(used < 100, "{used} hundredths of a second in two seconds: it spins");
    assert!(provider.log().matches("accept-failed").count() <= 8, "{}", provider.log());
    drop(flood);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut peer = provider.connect("mx");
        if peer.line().starts_with("220") {
            break;
        }
        assert!(Instant::now() < deadline, "it does not recover");
    }
}

#[test]
fn e6_a_flood_leaves_descriptors_for_the_control_socket_and_for_running_drains() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut provider = Provider::prepare(folder.path(), "[limits]\nsessions_per_address = 1000\n");
    provider.add_customer("acme", "example.com", "a password of acme");
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -n 96; exec \"$0\" \"$@\"", support::program()]);
    provider.start_by(command);
    for number in 0..5 {
        let mut peer = in_data(&provider);
        peer.say(format!("Subject: {number}\r\n\r\nx\r\n.\r\n"));
        peer.expect("250");
        peer.ask("QUIT", "221");
    }
    let mut drain = greeted(&provider, "odmr");
    drain.cram("acme", "a password of acme");
    drain.ask("ATRN", "250");
    let addresses = ["mx", "odmr"].map(|listener| provider.address(listener));
    let flood: Vec<std::net::TcpStream> = (0..300)
        .map(|n| std::net::TcpStream::connect(&addresses[n % 2]).expect("the backlog"))
        .collect();
    // The door is full: whoever comes now is sent away.
    let mut late = provider.connect("mx");
    late.expect("421");
    // The control socket answers, and the drain goes on to its end: bodies are opened, marks are made.
    let sessions = &provider.json(&["status"])["sessions"];
    let taken = ["mx", "odmr"].map(|door| sessions[door].as_u64().expect("a number"));
    assert!(taken.iter().sum::<u64>() > 8, "whichever door took them: {taken:?}");
    let taken = support::sink(&mut drain, &support::Sink { keywords: &["8BITMIME"], keep: true });
    assert_eq!(taken.len(), 5);
    assert!(!provider.log().contains("accept-failed"), "{}", provider.log());
    drop(flood);
    let deadline = Instant::now() + PATIENCE;
    while !provider.connect("mx").line().starts_with("220") {
        assert!(Instant::now() < deadline, "it does not recover");
    }
}

#[test]
fn e7_below_the_reserve_new_mail_is_for_later() {
    let folder = tempfile::tempdir().expect("a folder");
    // More than any disk has free.
    let provider = started(folder.path(), "[limits]\ndisk_free_min = \"1000000 TiB\"\n");
    let mut peer = greeted(&provider, "mx");
    assert!(peer.ask("MAIL FROM:<a@b.example>", "452").contains("4.3.1"));
    // Everything else goes on.
    let mut peer = greeted(&provider, "odmr");
    peer.cram("acme", "a password of acme");
    peer.ask("ATRN", "453");
}

/// A small file system of its own, gone with the value.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// `None` where we may not mount anything.
    fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("made");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "small"])
            .arg(folder)
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|status| status.success()).then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the provider may still be ending.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Sends until there is no room; how many messages were taken.
fn send_until_full(provider: &Provider, content: &str) -> usize {
    let mut taken = 0;
    while taken < 1000 {
        let mut peer = greeted(provider, "mx");
        peer.say("MAIL FROM:<a@b.example>\r\n");
        let reply = peer.line();
        if reply.starts_with("452") {
            return taken;
        }
        assert!(reply.starts_with("250"), "{reply}");
        peer.ask("RCPT TO:<x@example.com>", "250");
        peer.say("DATA\r\n");
        let mut reply = peer.line();
        if reply.starts_with("354") {
            peer.say(content);
            reply = peer.line();
        }
        if !reply.starts_with("250") {
            assert!(reply.starts_with("45"), "{reply}");
            return taken;
        }
        taken += 1;
    }
    panic!("it was never full");
}

#[test]
fn e7_a_disk_that_is_full_refuses_mail_drains_and_recovers() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(_disk) = SmallDisk::mount(&folder.path().join("data")) else {
        println!("not tried: this user may not mount a small disk");
        return;
    };
    let provider = started(folder.path(), "[limits]\ndisk_free_min = \"1 MiB\"\n");
    let line = format!("{}\r\n", "x".repeat(76));
    let content = format!("{}.\r\n", line.repeat((200 << 10) / line.len()));
    let taken = send_until_full(&provider, &content);
    assert!(taken > 10, "{taken}");
    // Somebody else takes the rest of the disk: now not even the reserve is there.
    let filler = folder.path().join("data").join("filler");
    let _ = std::fs::write(&filler, vec![7; 24 << 20]);
    assert_eq!(send_until_full(&provider, &content), 0);
    let mut customer = greeted(&provider, "odmr");
    customer.cram("acme", "a password of acme");
    customer.ask("ATRN", "250");
    let all = support::Sink { keywords: &["8BITMIME", "PIPELINING"], keep: true };
    let drained = support::sink(&mut customer, &all);
    assert_eq!(drained.len(), taken, "all that was acknowledged, and once");
    assert!(drained.iter().all(|one| one.content.ends_with(line.as_bytes())));
    std::fs::remove_file(&filler).expect("removed");
    // Reception comes back by itself.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut peer = greeted(&provider, "mx");
        peer.say("MAIL FROM:<a@b.example>\r\n");
        if peer.line().starts_with("250") {
            peer.ask("RCPT TO:<x@example.com>", "250");
            peer.ask("DATA", "354");
            peer.say("x\r\n.\r\n");
            peer.expect("250");
            break;
        }
        assert!(Instant::now() < deadline, "no mail is taken any more: {}", provider.log());
    }
    assert!(!provider.log().contains("panicked"), "{}", provider.log());
}

#[test]
fn b10_sighup_takes_the_new_certificate_and_keeps_the_old_one_instead_of_a_bad_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = started(folder.path(), "");
    let process = rustix::process::Pid::from_raw(provider.pid().cast_signed()).expect("a process");
    let hang_up = || {
        rustix::process::kill_process(process, rustix::process::Signal::HUP).expect("signalled");
    };
    let mut running = greeted(&provider, "mx");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    std::fs::write(folder.path().join("certificate.pem"), made.cert.pem()).expect("written");
    hang_up();
    provider.wait_for_log("certificate-refused");
    std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("ok");
    hang_up();
    provider.wait_for_log("certificate-loaded");
    // `secure` trusts the file as it is now.
    let mut peer = greeted(&provider, "mx");
    peer.ask("STARTTLS", "220");
    provider.secure(peer).ask("EHLO client.example", "250");
    running.ask("NOOP", "250");
}

#[test]
fn credentials_come_and_go_while_it_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = started(folder.path(), "");
    let add = ["customer", "credential", "add", "acme", "--label", "office", "--password-stdin"];
    provider.command(&add, "the office's own\n");
    greeted(&provider, "odmr").cram("acme/office", "the office's own");
    greeted(&provider, "odmr").cram("acme", "a password of acme");
    let listed = provider.command(&["customer", "credential", "list", "acme"], "");
    assert!(listed.contains("office"), "{listed}");
    provider.command(&["customer", "credential", "revoke", "acme", "office"], "");
    let mut peer = greeted(&provider, "odmr");
    peer.ask("STARTTLS", "220");
    let mut peer = provider.secure(peer);
    peer.ask("EHLO client.example", "250");
    let response = BASE64.encode("\0acme/office\0the office's own");
    peer.ask(&format!("AUTH PLAIN {response}"), "535");
    peer.plain("acme", "a password of acme");
}

#[test]
fn what_lasts_is_for_its_owner_only_and_no_program_is_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = started(folder.path(), "");
    let mut peer = in_data(&provider);
    peer.say("x\r\n.\r\n");
    peer.expect("250");
    let mut open = vec![folder.path().join("data")];
    let mut looked_at = 0;
    while let Some(path) = open.pop() {
        let facts = std::fs::symlink_metadata(&path).expect("there");
        let others = facts.permissions().mode() & 0o077;
        assert_eq!(others, 0, "{}: {:o}", path.display(), facts.permissions().mode());
        looked_at += 1;
        if facts.is_dir() {
            let entries = std::fs::read_dir(&path).expect("readable");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
    }
    assert!(looked_at > 3, "the store is there");
    let pid = provider.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    assert_eq!(children.unwrap_or_default(), "");
}

#[test]
fn an_ordinary_user_is_enough() {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().expect("a folder");
    let mut provider = Provider::prepare(folder.path(), "");
    // Root becomes somebody else for it; everybody else is an ordinary user already.
    let program = folder.path().join("restante");
    std::fs::copy(support::program(), &program).expect("copied");
    let mut command = Command::new(&program);
    if rustix::process::geteuid().is_root() {
        for name in ["", "restante", "restante.toml", "certificate.pem", "key.pem"] {
            let path = folder.path().join(name);
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("given away");
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    provider.start_by(command);
    let status = std::fs::read_to_string(format!("/proc/{}/status", provider.pid()));
    let status = status.expect("Linux");
    assert!(!status.contains("\nUid:\t0\t"), "{status}");
    assert!(status.contains("\nCapEff:\t0000000000000000\n"), "{status}");
    provider.add_customer("acme", "example.com", "a password of acme");
    let mut peer = in_data(&provider);
    peer.say("x\r\n.\r\n");
    peer.expect("250");
    let mut peer = greeted(&provider, "odmr");
    peer.cram("acme", "a password of acme");
    peer.ask("ATRN", "250");
}

#[test]
fn sockets_and_readiness_go_through_the_service_manager() {
    let folder = tempfile::tempdir().expect("a folder");
    let handed = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = handed.local_addr().expect("bound");
    let provider = Provider::prepare(folder.path(), "");
    let text = std::fs::read_to_string(provider.config()).expect("text");
    let text = text.replacen("mx = [\"127.0.0.1:0\"]", &format!("mx = [\"{address}\"]"), 1);
    std::fs::write(provider.config(), text).expect("written");
    let words = folder.path().join("words");
    let manager = UnixDatagram::bind(&words).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a socket");
    // The socket becomes descriptor 3 of a process that knows its own id, as systemd does it.
    rustix::io::fcntl_setfd(&handed, rustix::io::FdFlags::empty()).expect("inherited");
    let script =
        format!("LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve -c \"$1\" 3<&{}", handed.as_raw_fd());
    let mut child = Command::new("bash")
        .args(["-c", &script, support::program(), &provider.config()])
        .env("NOTIFY_SOCKET", &words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("bash");
    let heard = || {
        let mut place = [0; 256];
        let count = manager.recv(&mut place).expect("a word in time");
        String::from_utf8_lossy(&place[..count]).into_owned()
    };
    assert!(heard().contains("READY=1"));
    drop(handed);
    let mut greeting = String::new();
    let stream = std::net::TcpStream::connect(address).expect("the handed socket");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut greeting).expect("one");
    assert!(greeting.starts_with("220 "), "{greeting}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    assert!(heard().contains("STOPPING=1"));
    assert!(child.wait().expect("ended").success());
}
