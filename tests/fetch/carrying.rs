//! Behind the turn: every kind of target, stops, and servers that die.

use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use restante::fetch::{Event, Verdict};
use restante::net::stop::Stop;

use super::party::{Got, Habits, Server, Talk, provider};
use super::{account, bodies, call, call_with, maildir};

const LMTP: Habits = Habits {
    greeting: "220 home.example LMTP",
    hello: "250-home.example\n250-PIPELINING\n250 8BITMIME",
    dies_in_message: None,
};

fn three_messages(mut talk: Talk) -> Vec<String> {
    talk.log_in();
    talk.say("250 reversing");
    let words = talk.hello();
    for number in 1..=3 {
        let content = format!("Subject: {number}\r\n\r\n..body {number}\r\n");
        let reply = talk.deliver(&content);
        assert!(reply.starts_with("250"), "{reply}");
    }
    talk.quit();
    words
}

#[test]
fn a_server_gets_the_content_octet_by_octet() {
    let server = Server::start(Habits::default());
    let provider = provider(three_messages);
    let mut told = Vec::new();
    let (_giver, stop) = Stop::new();
    let account = account(provider.address, &format!("smtp://{}", server.address));
    let report = call_with(&account, &stop, &mut |event| {
        if let Event::Passed(passed) = event {
            told.push((passed.from.clone(), passed.to.clone(), passed.taken));
        }
    });
    assert_eq!((report.verdict, report.taken, report.refused), (Verdict::Collected, 3, 0));
    let words = provider.done();
    assert!(words.iter().any(|word| word.contains("STARTTLS")), "clear text may become TLS");
    let got = server.got();
    assert_eq!(got.messages[0], "Subject: 1\r\n\r\n..body 1\r\n");
    assert_eq!(got.messages.len(), 3);
    let one = ("sender@foo.example".to_owned(), vec!["user@home.example".to_owned()], true);
    assert_eq!(told, vec![one; 3]);
}

#[test]
fn lmtp_over_tcp_and_over_a_socket() {
    let server = Server::start(LMTP);
    let provider_tcp = provider(three_messages);
    let report = call(&account(provider_tcp.address, &format!("lmtp://{}", server.address)));
    assert_eq!((report.verdict, report.taken), (Verdict::Collected, 3));
    let words = provider_tcp.done();
    assert!(words.iter().any(|word| word.contains("LIMITS RCPTMAX=1")), "{words:?}");
    let got = server.got();
    assert!(got.commands.iter().any(|line| line.starts_with("LHLO")), "{got:?}");
    assert!(!got.commands.iter().any(|line| line.starts_with("EHLO")), "{got:?}");

    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("lmtp");
    let listener = UnixListener::bind(&path).expect("a socket");
    let thread = std::thread::spawn(move || {
        let got = Mutex::new(Got::default());
        let (socket, _) = listener.accept().expect("a caller");
        serve_unix(socket, &got);
        got.into_inner().expect("no panic")
    });
    let provider = provider(three_messages);
    let report = call(&account(provider.address, &format!("lmtp://{}", path.display())));
    assert_eq!((report.verdict, report.taken), (Verdict::Collected, 3));
    provider.done();
    assert_eq!(thread.join().expect("no panic").messages.len(), 3);
}

/// A Unix socket behind the TCP server of the other tests, by a relay of bytes.
fn serve_unix(socket: std::os::unix::net::UnixStream, got: &Mutex<Got>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = std::net::TcpStream::connect(listener.local_addr().expect("an address"));
    let there = there.expect("connected");
    let (here, _) = listener.accept().expect("a caller");
    let (mut a, mut b) =
        (socket.try_clone().expect("a clone"), there.try_clone().expect("a clone"));
    let (mut c, mut d) = (socket, there);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = std::io::copy(&mut a, &mut b);
            let _ = b.shutdown(std::net::Shutdown::Write);
        });
        scope.spawn(move || {
            let _ = std::io::copy(&mut d, &mut c);
            let _ = c.shutdown(std::net::Shutdown::Both);
        });
        super::party::serve(Talk::new(here), LMTP, got);
    });
}

#[test]
fn maildir_and_mbox_hold_what_came() {
    let home = tempfile::tempdir().expect("a folder");
    let one = provider(three_messages);
    let report = call(&account(one.address, &maildir(home.path())));
    assert_eq!((report.verdict, report.taken), (Verdict::Collected, 3));
    one.done();
    assert_eq!(bodies(home.path()), [".body 1\n", ".body 2\n", ".body 3\n"]);
    let files: Vec<_> = std::fs::read_dir(home.path().join("Maildir/new")).expect("new").collect();
    let text = std::fs::read_to_string(files[0].as_ref().expect("an entry").path()).expect("text");
    assert!(text.starts_with(
        "Return-Path: <sender@foo.example>\nDelivered-To: user@home.example\nReceived: from provider.example"
    ), "{text}");

    let path = home.path().join("mbox");
    let two = provider(three_messages);
    let report = call(&account(two.address, &format!("mbox:{}", path.display())));
    assert_eq!((report.verdict, report.taken), (Verdict::Collected, 3));
    two.done();
    let text = std::fs::read_to_string(&path).expect("text");
    assert_eq!(text.matches("\nFrom sender@foo.example ").count(), 2, "{text}");
    assert!(text.starts_with("From sender@foo.example ") && text.ends_with(".body 3\n\n"));
}

#[test]
fn a_server_that_dies_in_a_message_leaves_it_with_the_provider() {
    let habits = Habits { dies_in_message: Some(1), ..Habits::default() };
    let server = Server::start(habits);
    let provider = provider(|mut talk| {
        talk.log_in();
        talk.say("250 reversing");
        talk.hello();
        let first = talk.deliver("Subject: 1\r\n\r\nbody\r\n");
        let second = talk.deliver("Subject: 2\r\n\r\nbody\r\n");
        (first, second)
    });
    let report = call(&account(provider.address, &format!("smtp://{}", server.address)));
    let (first, second) = provider.done();
    assert!(first.starts_with("250"), "{first}");
    assert_eq!(second, "", "the provider must see the line end, not a reply");
    assert_eq!((report.verdict.exit_status(), report.taken), (75, 1));
    assert_eq!(server.got().messages.len(), 1);
}

#[test]
fn a_message_put_off_by_the_server_makes_the_call_one_for_later() {
    let server = provider(|mut talk| {
        talk.say("220 home.example");
        talk.expect("EHLO");
        talk.say("250 home.example");
        for _ in 0..2 {
            talk.hear();
            talk.say("250 ok");
        }
        talk.expect("DATA");
        talk.say("354 go");
        while talk.hear() != "." {}
        talk.say("452 4.3.1 full");
        talk.expect("QUIT");
        talk.say("221 bye");
    });
    let provider = provider(|mut talk| {
        talk.log_in();
        talk.say("250 reversing");
        talk.hello();
        let reply = talk.deliver("Subject: 1\r\n\r\nbody\r\n");
        assert_eq!(reply, "452 4.3.1 full");
        talk.quit();
    });
    let report = call(&account(provider.address, &format!("smtp://{}", server.address)));
    provider.done();
    server.done();
    assert_eq!((report.verdict.exit_status(), report.taken, report.refused), (75, 0, 1));
}

/// A provider that stops in the middle of a content and waits to see what becomes of the line.
fn half_a_message(began: mpsc::Sender<()>) -> impl FnOnce(Talk) -> Vec<String> + Send {
    move |mut talk| {
        talk.log_in();
        talk.say("250 reversing");
        talk.hello();
        assert!(talk.deliver("Subject: 1\r\n\r\nwhole\r\n").starts_with("250"));
        for command in ["MAIL FROM:<a@foo.example>", "RCPT TO:<b@home.example>", "DATA"] {
            talk.say(command);
            talk.reply();
        }
        talk.say("Subject: 2\n\nhalf");
        began.send(()).expect("heard");
        let before = talk.heard.len();
        while !talk.hear().is_empty() {}
        talk.heard.split_off(before)
    }
}

#[test]
fn a_stop_in_mid_message_cuts_it_for_both_sides() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(Habits::default());
    for target in [maildir(home.path()), format!("smtp://{}", server.address)] {
        let (began, has_begun) = mpsc::channel();
        let provider = provider(half_a_message(began));
        let mut account = account(provider.address, &target);
        account.stop_patience = Duration::ZERO;
        let (giver, stop) = Stop::new();
        let stopper = std::thread::spawn(move || {
            has_begun.recv().expect("in the middle");
            giver.give();
        });
        let report = call_with(&account, &stop, &mut |_| {});
        stopper.join().expect("no panic");
        let replies = provider.done();
        assert_eq!((report.verdict, report.taken), (Verdict::Stopped, 1), "{target}");
        assert!(!replies.iter().any(|line| line.starts_with('2')), "{target}: {replies:?}");
    }
    assert_eq!(bodies(home.path()), ["whole\n"]);
    let tmp = std::fs::read_dir(home.path().join("Maildir/tmp")).expect("tmp");
    assert_eq!(tmp.count(), 0);
    assert_eq!(server.got().messages, ["Subject: 1\r\n\r\nwhole\r\n"]);
}

#[test]
fn a_stop_between_messages_is_said_aloud() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(Habits::default());
    for target in [maildir(home.path()), format!("smtp://{}", server.address)] {
        let (idle, is_idle) = mpsc::channel();
        let provider = provider(move |mut talk| {
            talk.log_in();
            talk.say("250 reversing");
            talk.hello();
            assert!(talk.deliver("Subject: 1\r\n\r\nwhole\r\n").starts_with("250"));
            idle.send(()).expect("heard");
            talk.reply()
        });
        let account = account(provider.address, &target);
        let (giver, stop) = Stop::new();
        let stopper = std::thread::spawn(move || {
            is_idle.recv().expect("between messages");
            giver.give();
        });
        let report = call_with(&account, &stop, &mut |_| {});
        stopper.join().expect("no panic");
        let said = provider.done();
        assert!(said.starts_with("421 4.3.2"), "{target}: {said}");
        assert_eq!((report.verdict, report.taken), (Verdict::Stopped, 1), "{target}");
    }
}

#[test]
fn a_server_that_waited_too_long_is_opened_anew() {
    let server = Server::start(Habits::default());
    let provider = provider(three_messages);
    let mut account = account(provider.address, &format!("smtp://{}", server.address));
    account.reopen_after = Duration::ZERO;
    let report = call(&account);
    provider.done();
    assert_eq!((report.verdict, report.taken), (Verdict::Collected, 3));
    let got = server.got();
    // The first connection was opened to see that the server is up, and left.
    assert_eq!((got.connections, got.messages.len()), (2, 3));
}

#[test]
fn a_server_that_went_away_while_the_provider_looked_is_greeted_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("smtp://{}", listener.local_addr().expect("an address"));
    let (gone, is_gone) = mpsc::channel();
    let server = std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("a caller");
        drop(listener);
        let mut talk = Talk::new(socket);
        talk.say("220 home.example ready");
        gone.send(()).expect("heard");
        talk.hear()
    });
    let provider = provider(move |mut talk| {
        talk.log_in();
        is_gone.recv().expect("the server is gone");
        talk.say("250 reversing");
        talk.reply()
    });
    let mut account = account(provider.address, &target);
    account.reopen_after = Duration::ZERO;
    let report = call(&account);
    assert!(
        provider.done().starts_with("421 4.3.2"),
        "the provider must hear that it is for later"
    );
    assert_eq!((report.verdict.exit_status(), report.taken), (75, 0));
    assert_eq!(server.join().expect("no panic"), "");
}

#[test]
fn a_provider_that_closes_its_half_still_hears_the_last_reply() {
    let server = Server::start(Habits::default());
    let provider = provider(|mut talk| {
        talk.log_in();
        talk.say("250 reversing");
        talk.hello();
        talk.say("MAIL FROM:<a@foo.example>\nRCPT TO:<b@home.example>\nDATA");
        for code in ["250", "250", "354"] {
            assert!(talk.reply().starts_with(code));
        }
        talk.say("Subject: 1\n\nlast\n.\nQUIT");
        talk.close_half();
        assert!(talk.reply().starts_with("250"));
        assert!(talk.reply().starts_with("221"));
    });
    let report = call(&account(provider.address, &format!("smtp://{}", server.address)));
    provider.done();
    assert_eq!((report.verdict, report.taken), (Verdict::Collected, 1));
}
