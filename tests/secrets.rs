//! The real program's memory after logins: no password is left in it.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
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

/// Where a text stands in the memory of a process.
fn places(pid: u32, text: &[u8]) -> Vec<String> {
    let finder = memchr::memmem::Finder::new(text);
    let mut found = Vec::new();
    for (region, octets) in memory(pid) {
        for at in finder.find_iter(&octets) {
            let around = &octets[at.saturating_sub(48)..(at + text.len() + 24).min(octets.len())];
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

/// Looks for a password and for the line in base64 that it went over the wire in.
#[track_caller]
fn is_forgotten(provider: &Provider, what: &str, texts: &[&str]) {
    until_quiet(provider);
    // Memory that was given back may have lost its first octets to the allocator: half of a secret is a secret.
    let halves = texts.iter().flat_map(|text| {
        let (front, back) = text.split_at(text.len() / 2);
        [front, back]
    });
    let found: Vec<String> =
        halves.flat_map(|half| places(provider.pid(), half.as_bytes())).collect();
    assert!(found.is_empty(), "{what}: {} places:\n{}", found.len(), found.join("\n"));
}

fn started(folder: &Path, secret: &str) -> Provider {
    let mut provider = Provider::prepare(folder, "");
    provider.add_customer("acme", "example.com", secret);
    provider.start();
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
    assert!(!places(own, text.as_bytes()).is_empty());
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
            ("as a line that is too long", vec![format!("NOOP {response}{}", "x".repeat(20_000))]),
        ] {
            for is_in_order in [true, false] {
                let mut peer = secured(&provider);
                for line in &lines {
                    peer.say(line);
                    if line.ends_with('\n') {
                        let reply = peer.line();
                        assert!(reply.starts_with("334") || reply.starts_with(code), "{reply}");
                    }
                }
                if is_in_order && what != "cut off" {
                    peer.say("\r\nQUIT\r\n");
                    while !peer.line().is_empty() {}
                }
                drop(peer);
                is_forgotten(&provider, what, &[password, &response]);
            }
        }
    }
    let mut peer = provider.connect("odmr");
    peer.expect("220");
    peer.ask("EHLO client.example", "250");
    peer.cram("acme", &right);
    drop(peer);
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
