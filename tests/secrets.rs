//! The real program's memory after logins: no password is left in it.
//!
//! The program wipes what is its own. TLS library and JSON reader give memory back as it is, so the C library's allocator is told
//! to overwrite it, as packaging/restante.service does (docs/security.md, section 3). Linux with glibc.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use memchr::memmem;
use support::{Peer, Provider};

const PATIENCE: Duration = Duration::from_secs(60);

/// A process's writable memory, region by region.
fn memory(pid: u32) -> Vec<(String, Vec<u8>)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("Linux");
    let file = File::open(format!("/proc/{pid}/mem")).expect("our child");
    let mut regions = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().expect("a range"), fields.next().expect("rights"));
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').expect("from and to");
        let from = u64::from_str_radix(from, 16).expect("hexadecimal");
        let to = u64::from_str_radix(to, 16).expect("hexadecimal");
        let mut octets = vec![0; usize::try_from(to - from).expect("fits")];
        // A region may go away meanwhile; what cannot be read cannot be seen by others either.
        if file.read_exact_at(&mut octets, from).is_ok() {
            regions.push((line.to_owned(), octets));
        }
    }
    assert!(!regions.is_empty(), "nothing was read");
    regions
}

/// Where one of these texts stands in the memory of a process.
fn places(pid: u32, texts: &[&str]) -> Vec<String> {
    let finders: Vec<_> = texts.iter().map(|text| memmem::Finder::new(text.as_bytes())).collect();
    let mut found = Vec::new();
    for (region, octets) in memory(pid) {
        for at in finders.iter().flat_map(|finder| finder.find_iter(&octets)) {
            let around = &octets[at.saturating_sub(48)..(at + 72).min(octets.len())];
            found.push(format!("{region} +{at:x}: {:?}", String::from_utf8_lossy(around)));
        }
    }
    found
}

fn secured(provider: &Provider) -> Peer {
    let mut peer = provider.connect("odmr");
    peer.expect("220");
    peer.ask("EHLO client.example", "250");
    peer.ask("STARTTLS", "220");
    let mut peer = provider.secure(peer);
    peer.ask("EHLO client.example", "250");
    peer
}

/// Waits until no session is left.
fn until_quiet(provider: &Provider) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = provider.json(&["status"]);
        let sessions = &status["sessions"];
        if sessions["mx"] == 0 && sessions["odmr"] == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
    }
}

/// Looks for a password, or for the line in base64 that it went over the wire in.
#[track_caller]
fn is_forgotten(provider: &Provider, what: &str, texts: &[&str]) {
    // Memory that was given back may have lost its first octets to the allocator: half of a secret is a secret.
    let halves = texts.iter().flat_map(|text| {
        let (front, back) = text.split_at(text.len() / 2);
        [front, back]
    });
    let found = places(provider.pid(), &halves.collect::<Vec<&str>>());
    assert!(found.is_empty(), "{what}: {} places:\n{}", found.len(), found.join("\n"));
}

/// The variable of the packaged service.
fn allocator() -> (String, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/restante.service");
    let unit = std::fs::read_to_string(file).expect("the unit");
    let setting = unit.lines().find_map(|line| line.strip_prefix("Environment=GLIBC_TUNABLES="));
    ("GLIBC_TUNABLES".into(), setting.expect("the setting").to_owned())
}

fn started(folder: &Path, secret: &str) -> Provider {
    let mut provider = Provider::prepare(folder, "");
    provider.add_customer("acme", "example.com", secret);
    let (name, value) = allocator();
    provider.start_with(&[(&name, &value)]);
    provider
}

/// A recognisable password, made at run time, so that it stands nowhere but where it is used.
fn secret() -> String {
    let mut octets = [0; 24];
    getrandom::fill(&mut octets).expect("chance");
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn the_search_finds_what_is_there() {
    let text = secret();
    let own = std::process::id();
    assert!(!places(own, &[&text]).is_empty());
    drop(text);
}

#[test]
fn no_password_is_left_in_memory_after_a_login() {
    let folder = tempfile::tempdir().expect("a folder");
    let (right, wrong) = (secret(), secret());
    let provider = started(folder.path(), &right);
    for (password, code) in [(&right, "235"), (&wrong, "535")] {
        let response = BASE64.encode(format!("\0acme\0{password}"));
        for (what, lines) in [
            ("with the command", vec![format!("AUTH PLAIN {response}\r\n")]),
            ("behind it", vec!["AUTH PLAIN\r\n".into(), format!("{response}\r\n")]),
            ("cut off", vec![format!("AUTH PLAIN {response}")]),
            ("too long", vec![format!("AUTH PLAIN {response}{}\r\n", "A".repeat(20_000))]),
        ] {
            let mut peer = secured(&provider);
            for line in &lines {
                peer.say(line);
                if line.ends_with('\n') {
                    let reply = peer.line();
                    let is_right = ["334", "500", code].iter().any(|code| reply.starts_with(code));
                    assert!(is_right, "{what}: {reply}");
                }
            }
            if what != "cut off" {
                // It is answered when the session has gone on.
                peer.ask("NOOP", "250");
                is_forgotten(
                    &provider,
                    &format!("{what}, during the session"),
                    &[password, &response],
                );
            }
            drop(peer);
            until_quiet(&provider);
            is_forgotten(&provider, what, &[password, &response]);
        }
    }
    let mut peer = provider.connect("odmr");
    peer.expect("220");
    peer.ask("EHLO client.example", "250");
    peer.cram("acme", &right);
    is_forgotten(&provider, "CRAM-MD5", &[&right]);
}

#[test]
fn no_password_is_left_in_memory_after_a_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = started(folder.path(), "an ordinary one");
    let given = secret();
    let input = format!("{given}\n");
    provider.command(&["customer", "passwd", "acme", "--password-stdin"], &input);
    is_forgotten(&provider, "given", &[&given]);
    let made = provider.json(&["customer", "passwd", "acme"]);
    let made = made["password"].as_str().expect("a new password");
    is_forgotten(&provider, "made", &[made]);
}
