//! `customer kit` and `top` on the command line.

mod app_support;

use app_support::*;

#[test]
fn the_kit_has_the_real_names() {
    let running = Running::new();
    add(&running.office, "acme", &["a.example", "b.example"]);
    let text = running.run(&["customer", "kit", "acme"]);
    for part in [
        "a.example.  IN MX 10 mx.provider.example.",
        "b.example.  IN MX 10 mx.provider.example.",
        "restante fetch mx.provider.example --user acme --password-file pw",
        "poll \"mx.provider.example\" protocol ODMR service 366",
        "fetchdomains \"a.example\" \"b.example\"",
        "exim -atrn mx.provider.example a.example,b.example",
        "Login: acme.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("an ordinary password"));
    let kit = running.json(&["customer", "kit", "acme"]);
    assert_eq!((&kit["customer"], &kit["odmr_port"]), (&"acme".into(), &366.into()));
    assert!(running.fails(1, &["customer", "kit", "nobody"]).contains("no customer"));
}

#[test]
fn the_command_in_the_kit_is_one_that_fetch_takes() {
    let running = Running::new();
    add(&running.office, "acme", &["a.example"]);
    let kit = running.json(&["customer", "kit", "acme"]);
    let fetch = kit["fetch"].as_str().expect("text");
    let line = fetch.lines().find(|line| line.starts_with("restante fetch")).expect("a command");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("pw"), "x\n").expect("written");
    // Nobody is there to be called; what counts is that the usage is right.
    let line = line.replace("mx.provider.example", "127.0.0.1:1");
    let output = program().current_dir(folder.path()).args(line.split(' ').skip(1)).output();
    assert_ne!(output.expect("started").status.code(), Some(2), "{line}");
}

#[test]
fn top_without_a_terminal_is_one_snapshot() {
    let running = Running::new();
    add(&running.office, "acme", &["a.example"]);
    let text = running.run(&["top"]);
    assert!(
        text.starts_with("restante ") && text.contains("a.example") && !text.contains('\x1b'),
        "{text}"
    );
    assert!(running.json(&["top"])["queues"].is_array());
}
