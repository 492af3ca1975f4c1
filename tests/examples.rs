//! The examples, run: each must do what its head says.

#[path = "../examples/by_hand.rs"]
#[allow(dead_code)]
mod by_hand;
#[path = "../examples/collect.rs"]
#[allow(dead_code)]
mod collect;
#[path = "../examples/provider_in_memory.rs"]
#[allow(dead_code)]
mod provider_in_memory;

use restante::fetch::{Account, Verdict};
use restante::smtp::caller::Ending;

#[test]
fn a_provider_in_memory_hands_its_message_over() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("Maildir");
    let report = provider_in_memory::run(&folder).expect("collected");
    assert_eq!((report.verdict, report.taken), (Verdict::Collected, 1));
    let new: Vec<_> = std::fs::read_dir(folder.join("new")).expect("a Maildir").collect();
    let path = new[0].as_ref().expect("an entry").path();
    let text = std::fs::read_to_string(path).expect("text");
    assert!(
        text.starts_with("Return-Path: <a@sender.example>\nDelivered-To: b@demo.example\n"),
        "{text}"
    );
    assert!(text.ends_with("\n\nIt rests here.\n"), "{text}");
}

#[test]
fn the_core_by_hand_comes_to_its_verdict() {
    let (transcript, ending) = by_hand::run().expect("a call");
    assert!(transcript.contains("C: AUTH SCRAM-SHA-256 "), "{transcript}");
    assert!(transcript.contains("P: 235 "), "{transcript}");
    assert!(transcript.contains("C: ATRN\nP: 453 "), "{transcript}");
    assert!(matches!(ending, Ending::NoMail(_)), "{ending:?}");
}

#[test]
fn the_library_call_says_what_went_wrong() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let provider = nobody.local_addr().expect("an address").to_string();
    drop(nobody);
    let target = "maildir:/nonexistent".parse().expect("a target");
    let account =
        Account::new(&provider, "demo", Some("secret".into()), target).expect("an account");
    let report = collect::call(&account);
    assert_eq!(report.verdict.exit_status(), 75);
    let lines = include_str!("../examples/collect.rs").lines().count();
    assert!(lines <= 40, "the shortest example has {lines} lines");
}
