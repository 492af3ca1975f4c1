//! From the greeting to the reply to ATRN.

use restante::fetch::{Report, Verdict};
use restante::net::stop::Stop;
use restante::net::tls::Trust;
use restante::smtp::caller::Encryption;

use super::party::{Habits, Identity, Party, Server, Talk, provider};
use super::{account, bodies, call, call_with, maildir};

/// Runs a call against `script` with a Maildir as target.
fn outcome(script: impl FnOnce(Talk) + Send + 'static) -> (Report, Vec<String>) {
    let home = tempfile::tempdir().expect("a folder");
    let provider = provider(script);
    let report = call(&account(provider.address, &maildir(home.path())));
    provider.done();
    let bodies = if report.was_turned { bodies(home.path()) } else { Vec::new() };
    (report, bodies)
}

#[test]
fn a_multi_line_greeting_odd_spaces_and_one_mechanism_are_fine() {
    let (report, bodies) = outcome(|mut talk| {
        talk.say("220-provider.example\n220-\n220 ready  ");
        talk.expect("EHLO home.example");
        talk.say("250-provider.example  hello\n250-AUTH=CRAM-MD5\n250-AUTH  CRAM-MD5 \n250  atrn ");
        talk.expect("AUTH CRAM-MD5");
        talk.say("334 PDFAcHJvdmlkZXIuZXhhbXBsZT4= ");
        talk.hear();
        talk.say("235  welcome ");
        talk.expect("ATRN");
        talk.say("250");
        talk.hello();
        assert!(talk.deliver("Subject: x\r\n\r\nhello\r\n").starts_with("250"));
        talk.quit();
    });
    assert_eq!((report.verdict.clone(), report.taken), (Verdict::Collected, 1), "{report:?}");
    assert_eq!(bodies, ["hello\n"]);
}

#[test]
fn a_250_with_quit_behind_it_means_no_mail() {
    let (report, bodies) = outcome(|mut talk| {
        talk.log_in();
        talk.say("250 nothing for you\nQUIT");
        assert!(talk.reply().starts_with("220"));
        assert!(talk.reply().starts_with("221"));
    });
    assert_eq!((report.verdict, report.taken, bodies.len()), (Verdict::Collected, 0, 0));
}

#[test]
fn a_250_then_ehlo_and_quit_means_no_mail() {
    let (report, _) = outcome(|mut talk| {
        talk.log_in();
        talk.say("250-reversing\n250 now");
        talk.hello();
        talk.quit();
    });
    assert_eq!((report.verdict, report.taken), (Verdict::Collected, 0));
}

#[test]
fn refusals_have_their_exit_status_and_their_mend() {
    let cases = [
        ("450 4.7.1 not all of these domains are yours", 1, "--domain"),
        ("450 4.7.0 too many requests", 75, "--every"),
        ("451 4.3.0 unable to process", 75, "later"),
        ("502 5.5.1 unknown", 1, "366"),
        ("530 5.7.0 authentication required", 1, "--tls"),
        ("421 4.3.2 shutting down", 75, "later"),
    ];
    for (reply, status, mend) in cases {
        let (report, _) = outcome(move |mut talk| {
            talk.log_in();
            talk.say(reply);
            if !reply.starts_with("421") {
                talk.expect("QUIT");
                talk.say("221 bye");
            }
        });
        assert_eq!(report.verdict.exit_status(), status, "{reply}");
        let trouble = report.verdict.trouble().expect("trouble");
        assert!(trouble.cause.contains(reply), "{trouble:?}");
        assert!(trouble.mend.contains(mend), "{trouble:?}");
    }
    let (report, _) = outcome(|mut talk| {
        talk.log_in();
        talk.say("453 4.2.0 you have no mail");
        talk.expect("QUIT");
        talk.say("221 bye");
    });
    assert_eq!((report.verdict.clone(), report.verdict.exit_status()), (Verdict::NoMail, 0));
}

#[test]
fn a_wrong_password_is_refused_and_not_tried_in_another_way() {
    let (report, _) = outcome(|mut talk| {
        talk.say("220 provider.example");
        talk.expect("EHLO");
        talk.say("250-provider.example\n250-AUTH CRAM-MD5 PLAIN LOGIN\n250 ATRN");
        talk.expect("AUTH CRAM-MD5");
        talk.say("334 PDFAcHJvdmlkZXIuZXhhbXBsZT4=");
        talk.hear();
        talk.say("535 5.7.8 no");
        talk.expect("QUIT");
        talk.say("221 bye");
        assert_eq!(talk.hear(), "");
    });
    assert_eq!(report.verdict.exit_status(), 1);
}

#[test]
fn a_target_that_is_down_costs_nothing() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("smtp://127.0.0.1:{}", gone.local_addr().expect("an address").port());
    drop(gone);
    let heard = refused_target(&target);
    assert!(!heard.iter().any(|line| line.starts_with("ATRN")), "{heard:?}");
    let home = tempfile::tempdir().expect("a folder");
    let file = home.path().join("file");
    std::fs::write(&file, "").expect("written");
    let heard = refused_target(&format!("maildir:{}/x", file.display()));
    assert!(!heard.iter().any(|line| line.starts_with("ATRN")), "{heard:?}");
    let busy = Server::start(Habits { greeting: "421 too busy", ..Habits::default() });
    let heard = refused_target(&format!("lmtp://{}", busy.address));
    assert!(!heard.iter().any(|line| line.starts_with("ATRN")), "{heard:?}");
}

fn refused_target(target: &str) -> Vec<String> {
    let provider = provider(|mut talk| {
        talk.log_in();
        talk.say("221 bye");
        talk.heard
    });
    let report = call(&account(provider.address, target));
    let trouble = report.verdict.trouble().expect("trouble");
    assert!(trouble.cause.contains("cannot be opened"), "{trouble:?}");
    assert_eq!((report.verdict.exit_status(), report.was_turned), (75, false));
    let heard = provider.done();
    assert_eq!(heard.last().map(String::as_str), Some("QUIT"));
    heard
}

#[test]
fn clear_text_behind_the_reply_to_starttls_ends_the_call() {
    let home = tempfile::tempdir().expect("a folder");
    let provider = provider(|mut talk| {
        talk.say("220 provider.example");
        talk.expect("EHLO");
        talk.say("250-provider.example\n250 STARTTLS");
        talk.expect("STARTTLS");
        talk.say("220 go\n250 AUTH PLAIN");
        assert_eq!(talk.hear(), "", "said something after the injection");
    });
    let mut account = account(provider.address, &maildir(home.path()));
    account.encryption = Encryption::StartTls;
    let report = call(&account);
    provider.done();
    assert_eq!(report.verdict.exit_status(), 1);
    assert!(report.verdict.trouble().expect("trouble").cause.contains("clear text"));
}

#[test]
fn a_provider_that_hides_starttls_gets_no_login() {
    let home = tempfile::tempdir().expect("a folder");
    let provider = provider(|mut talk| {
        talk.say("220 provider.example");
        talk.expect("EHLO");
        talk.say("250-provider.example\n250-AUTH CRAM-MD5\n250 ATRN");
        talk.expect("QUIT");
        talk.say("221 bye");
    });
    let mut account = account(provider.address, &maildir(home.path()));
    account.encryption = Encryption::StartTls;
    assert_eq!(call(&account).verdict.exit_status(), 1);
    provider.done();
}

/// A provider with STARTTLS; gives what it heard inside TLS, and nothing if the handshake failed.
fn tls_provider(identity: Identity) -> Party<Vec<String>> {
    provider(move |mut talk| {
        talk.say("220 provider.example");
        talk.expect("EHLO");
        talk.say("250-provider.example\n250 STARTTLS");
        talk.expect("STARTTLS");
        talk.say("220 go");
        let mut talk = talk.secure(&identity);
        talk.heard.clear();
        if talk.hear().is_empty() {
            return Vec::new();
        }
        talk.log_in_after_hello();
        talk.say("250 reversing");
        let words = talk.hello();
        assert!(!words.iter().any(|word| word.contains("STARTTLS")), "{words:?}");
        assert!(talk.deliver("Subject: x\r\n\r\nsealed\r\n").starts_with("250"));
        talk.quit();
        talk.heard
    })
}

#[test]
fn the_providers_certificate_must_be_vouched_for_or_pinned() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(Habits::default());
    let authority = home.path().join("ca.pem");
    let right = |identity: &Identity| {
        std::fs::write(&authority, &identity.pem).expect("written");
        Trust::Authority(authority.clone())
    };
    type Chosen<'a> = &'a dyn Fn(&Identity) -> Trust;
    let trusts: [(Chosen<'_>, bool); 5] = [
        (&|_| Trust::Pin([7; 32]), false),
        (&|identity| Trust::Pin(identity.pin), true),
        (&right, true),
        (&|_| right(&Identity::new()), false),
        (&|_| Trust::System, false),
    ];
    for (number, (trust, is_good)) in trusts.into_iter().enumerate() {
        let identity = Identity::new();
        let trust = trust(&identity);
        let provider = tls_provider(identity);
        let mut account = account(provider.address, &format!("smtp://{}", server.address));
        account.encryption = Encryption::StartTls;
        account.trust = trust;
        let report = call(&account);
        let heard = provider.done();
        assert_eq!(report.verdict == Verdict::Collected, is_good, "case {number}: {report:?}");
        assert_eq!(!heard.is_empty(), is_good, "case {number}: said something to a stranger");
        assert_eq!(report.verdict.exit_status(), u8::from(!is_good), "case {number}");
    }
    assert_eq!(server.got().messages.len(), 2);
}

#[test]
fn a_certificate_for_another_name_is_no_good() {
    let home = tempfile::tempdir().expect("a folder");
    let identity = Identity::new();
    let authority = home.path().join("ca.pem");
    std::fs::write(&authority, &identity.pem).expect("written");
    let provider = tls_provider(identity);
    let mut account = account(provider.address, &maildir(home.path()));
    account.host = "127.0.0.1".into();
    account.encryption = Encryption::StartTls;
    account.trust = Trust::Authority(authority);
    assert_eq!(call(&account).verdict.exit_status(), 1);
    assert!(provider.done().is_empty());
}

#[test]
fn a_certificate_of_ours_logs_in_by_external() {
    let home = tempfile::tempdir().expect("a folder");
    let own = rcgen::generate_simple_self_signed(vec!["customer".into()]).expect("made");
    let (certificate, private_key) = (home.path().join("own.pem"), home.path().join("own.key"));
    std::fs::write(&certificate, own.cert.pem()).expect("written");
    std::fs::write(&private_key, own.signing_key.serialize_pem()).expect("written");
    let identity = Identity::asking(Some(own.cert.der().clone()));
    let pin = identity.pin;
    let provider = provider(move |talk| {
        let mut talk = talk.secure(&identity);
        talk.say("220 provider.example");
        talk.expect("EHLO");
        talk.say("250-provider.example\n250-AUTH EXTERNAL CRAM-MD5\n250 ATRN");
        assert_eq!(talk.hear(), "AUTH EXTERNAL =");
        talk.say("235 ok");
        talk.expect("ATRN");
        talk.say("453 none");
    });
    let mut account = account(provider.address, &maildir(home.path()));
    account.encryption = Encryption::Implicit;
    account.trust = Trust::Pin(pin);
    account.secret = None;
    account.identity = Some(restante::net::tls::Identity { certificate, private_key });
    assert_eq!(call(&account).verdict, Verdict::NoMail);
    provider.done();
}

#[test]
fn a_dry_run_says_what_is_offered_and_leaves_the_mail() {
    let provider = provider(|mut talk| {
        talk.log_in();
        talk.say("221 bye");
        talk.heard
    });
    let mut account = account(provider.address, "maildir:/nonexistent/never/opened");
    account.dry_run = true;
    let Verdict::Offered(offers) = call(&account).verdict else { panic!("not a dry run") };
    assert!(offers.atrn);
    assert_eq!(offers.mechanisms, ["CRAM-MD5"]);
    let heard = provider.done();
    assert!(!heard.iter().any(|line| line.starts_with("ATRN")), "{heard:?}");
}

#[test]
fn a_stop_while_the_provider_holds_the_reply_ends_at_once() {
    let home = tempfile::tempdir().expect("a folder");
    let (waiting, is_waiting) = std::sync::mpsc::channel();
    let provider = provider(move |mut talk| {
        talk.log_in();
        waiting.send(()).expect("heard");
        assert_eq!(talk.hear(), "", "the caller is gone");
    });
    let account = account(provider.address, &maildir(home.path()));
    let (giver, stop) = Stop::new();
    let stopper = std::thread::spawn(move || {
        is_waiting.recv().expect("the provider has ATRN");
        giver.give();
    });
    let report = call_with(&account, &stop, &mut |_| {});
    assert_eq!((report.verdict, report.was_turned), (Verdict::Stopped, false));
    stopper.join().expect("no panic");
    provider.done();
}

#[test]
fn nobody_there_is_a_matter_for_later() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = gone.local_addr().expect("an address");
    drop(gone);
    let report = call(&account(address, "maildir:/tmp/x"));
    assert_eq!(report.verdict.exit_status(), 75);
    let (report, _) = outcome(|mut talk| talk.say("SSH-2.0-OpenSSH_9.2"));
    assert_eq!(report.verdict.exit_status(), 75);
    let (report, _) = outcome(|talk| talk.cut());
    assert_eq!(report.verdict.exit_status(), 75);
}
