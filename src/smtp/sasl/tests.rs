//! The mechanisms against the examples of their RFCs, against an independent client, and against liars.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sasl::client::Mechanism as _;
use sasl::client::mechanisms::{Plain, Scram};
use sasl::common::scram::Sha256;
use sasl::common::{ChannelBinding, Credentials};

use proptest::strategy::Strategy as _;

use super::*;
use crate::mail::{CramContexts, Domain, ScramVerifier, Timestamp};

fn terms() -> Terms {
    Terms {
        hostname: Domain::parse("mx.provider.example").expect("valid"),
        message_bytes_max: 0,
        recipients_max: 100,
        received_max: 100,
        tls_available: true,
        etrn: false,
        auth_requires_tls: false,
        mechanisms: crate::smtp::MECHANISMS.to_vec(),
        auth_failures_max: 3,
        errors_max: 20,
    }
}

fn tls() -> TlsFacts {
    TlsFacts { exporter: Some([9; 32]), peer_key: Some("ab".into()), ..TlsFacts::default() }
}

fn stored(password: &str, salt: &[u8]) -> Credential {
    let (scram, cram) = derive(&password.into(), salt.to_vec(), 4096).expect("a password");
    Credential { label: "".into(), scram, cram, created: Timestamp(0) }
}

fn challenge(step: Move) -> (String, Exchange) {
    match step {
        Move::Challenge(octets, exchange) => (String::from_utf8(octets).expect("text"), exchange),
        other => panic!("no challenge: {other:?}"),
    }
}

fn verdict(step: Move) -> Verdict {
    match step {
        Move::Verdict(verdict) => verdict,
        other => panic!("no verdict: {other:?}"),
    }
}

fn nonce(step: Move, nonce: [u8; 32]) -> Move {
    match step {
        Move::AskNonce(wanted) => wanted.answer(nonce),
        other => panic!("no nonce wanted: {other:?}"),
    }
}

fn credential(step: Move, credential: &Credential) -> Move {
    match step {
        Move::AskCredential(wanted) => wanted.answer(credential),
        other => panic!("no credential wanted: {other:?}"),
    }
}

/// Runs SCRAM up to the verdict.
fn scram(
    mechanism: Mechanism,
    tls: Option<&TlsFacts>,
    client: &mut Scram<Sha256>,
    credential_of: &Credential,
) -> (Verdict, bool) {
    let (_, exchange) = challenge(mechanism.begin(&terms(), tls));
    let step = exchange.respond(&client.initial());
    let (first, exchange) = challenge(credential(nonce(step, [3; 32]), credential_of));
    let last = client.response(first.as_bytes()).expect("client-final");
    match exchange.respond(&last) {
        Move::Challenge(signature, exchange) => {
            let is_signed = client.success(&signature).is_ok();
            (verdict(exchange.respond(b"")), is_signed)
        }
        step => (verdict(step), false),
    }
}

fn scram_client(password: &str, binding: ChannelBinding) -> Scram<Sha256> {
    let credentials = Credentials::default()
        .with_username("demo")
        .with_password(password)
        .with_channel_binding(binding);
    Scram::from_credentials(credentials).expect("a client")
}

// covers: SC-01, SC-02
#[test]
fn scram_with_an_independent_client() {
    let right = stored("secret", &[5; 16]);
    for (password, proves) in [("secret", true), ("Secret", false)] {
        let mut client = scram_client(password, ChannelBinding::None);
        let (verdict, is_signed) = scram(Mechanism::ScramSha256, None, &mut client, &right);
        assert_eq!((matches!(verdict.proof, Proof::Proven(_)), is_signed), (proves, proves));
        assert_eq!(verdict.name, "demo");
    }
}

// covers: C-04
#[test]
fn what_is_stored_for_one_mechanism_serves_it_alone_and_tells_no_password() {
    let whole = stored("the secret", &[5; 16]);
    let text = serde_json::to_string(&whole).expect("JSON");
    assert!(!text.contains("secret"), "{text}");
    // Without the record of the other mechanism each works as before.
    let ScramVerifier { salt, iterations, .. } = whole.scram.clone();
    let nothing = ScramVerifier { salt, iterations, stored_key: [0; 32], server_key: [0; 32] };
    let cram_only = Credential { scram: nothing, ..whole.clone() };
    let nothing = CramContexts { inner: [0; 16], outer: [0; 16] };
    let scram_only = Credential { cram: nothing, ..whole };
    for (credential_of, by_scram) in [(&cram_only, false), (&scram_only, true)] {
        let mut client = scram_client("the secret", ChannelBinding::None);
        let (judged, _) = scram(Mechanism::ScramSha256, None, &mut client, credential_of);
        assert_eq!(matches!(judged.proof, Proof::Proven(_)), by_scram);
        let step = nonce(Mechanism::CramMd5.begin(&terms(), None), [3; 32]);
        let (words, exchange) = challenge(step);
        let mut mac = <hmac::Hmac<md5::Md5> as hmac::KeyInit>::new_from_slice(b"the secret")
            .expect("any length");
        hmac::Mac::update(&mut mac, words.as_bytes());
        let digest: String =
            hmac::Mac::finalize(mac).into_bytes().iter().map(|o| format!("{o:02x}")).collect();
        let step = exchange.respond(format!("demo {digest}").as_bytes());
        let judged = verdict(credential(step, credential_of));
        assert_eq!(matches!(judged.proof, Proof::Proven(_)), !by_scram);
    }
}

/// The example of RFC 7677 §3. The server's nonce there is text of its own, so the server's states are entered
/// behind the point where we would make ours.
#[test]
fn the_example_of_rfc_7677() {
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
    let user = stored("pencil", &salt);
    let binding = scram::Binding::None { plus_is_offered: false };
    let opened = match scram::first(binding, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") {
        Move::AskNonce(NonceWanted::Scram(opened)) => opened,
        other => panic!("{other:?}"),
    };
    let whole = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let (first, exchange) = challenge(scram::example(opened, whole).credential(&user.scram));
    assert_eq!(first, format!("r={whole},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
    let last = format!("c=biws,r={whole},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    let (signature, exchange) = challenge(exchange.respond(last.as_bytes()));
    assert_eq!(signature, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert!(matches!(verdict(exchange.respond(b"")).proof, Proof::Proven(_)));
}

/// A client of our own making, since the independent one knows no tls-exporter.
fn bound_exchange(header: &str, bound: &[u8], nonce_tail: &str, extra: &str) -> Move {
    let right = stored("secret", &[5; 16]);
    let mechanism =
        if header.starts_with('p') { Mechanism::ScramSha256Plus } else { Mechanism::ScramSha256 };
    let (_, exchange) = challenge(mechanism.begin(&terms(), Some(&tls())));
    let bare = "n=demo,r=abc";
    let step = exchange.respond(format!("{header}{bare}").as_bytes());
    if matches!(step, Move::Verdict(_)) {
        return step;
    }
    let (first, exchange) = challenge(credential(nonce(step, [3; 32]), &right));
    let whole_nonce = first.split([',', '=']).nth(1).expect("r=");
    let c = BASE64.encode([header.as_bytes(), bound].concat());
    let unproven = format!("c={c},r={whole_nonce}{nonce_tail}{extra}");
    let proof = proof("secret", &format!("{bare},{first},{unproven}"));
    exchange.respond(format!("{unproven},p={proof}").as_bytes())
}

fn proof(password: &str, auth_message: &str) -> String {
    let mut salted = [0u8; 32];
    pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password.as_bytes(), &[5; 16], 4096, &mut salted);
    let client_key = credential::hmac_sha256(&salted, &["Client Key"]);
    let stored_key: [u8; 32] =
        sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(client_key)).into();
    let signature = credential::hmac_sha256(&stored_key, &[auth_message]);
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(k, s)| k ^ s).collect();
    BASE64.encode(proof)
}

// covers: SC-04, SC-05, C13
#[test]
fn scram_binding_and_its_liars() {
    let is_right = |step: Move| matches!(step, Move::Challenge(..));
    assert!(is_right(bound_exchange("p=tls-exporter,,", &[9; 32], "", "")));
    assert!(is_right(bound_exchange("n,,", b"", "", "")));
    assert!(is_right(bound_exchange("n,,", b"", "", ",x=ignored")));
    assert!(is_right(bound_exchange("n,a=demo,", b"", "", "")));
    for (header, bound, tail, extra) in [
        ("p=tls-exporter,,", &[8u8; 32][..], "", ""),
        ("p=tls-exporter,,", b"", "", ""),
        ("p=tls-unique,,", &[9; 32], "", ""),
        ("y,,", b"", "", ""),
        ("n,,", b"x", "", ""),
        ("n,,", b"", "x", ""),
        ("n,,", b"", "", ",m=must"),
        ("n,a=demo", b"", "", ""),
        ("n,demo,", b"", "", ""),
        ("x,,", b"", "", ""),
    ] {
        assert!(!is_right(bound_exchange(header, bound, tail, extra)), "{header} {tail} {extra}");
    }
}

// covers: SC-02
#[test]
fn scram_first_messages_that_are_refused() {
    for message in [
        "n,,m=x,n=demo,r=abc",
        "n,,n=demo,r=",
        "n,,n=,r=abc",
        "n,,n=de=mo,r=abc",
        "n,,n=demo=2,r=abc",
        "n,,n=demo=2c,r=abc",
        "n,,r=abc,n=demo",
        "n,,n=demo,r=abc,m=x",
        "n,,n=demo",
        "n",
        "",
        "n,,n=d\u{7}emo,r=abc",
    ] {
        let (_, exchange) = challenge(Mechanism::ScramSha256.begin(&terms(), None));
        let step = exchange.respond(message.as_bytes());
        assert!(matches!(verdict(step).proof, Proof::Wrong), "{message}");
    }
    let (_, exchange) = challenge(Mechanism::ScramSha256.begin(&terms(), None));
    let step = nonce(exchange.respond(b"n,,n=a=2Cb=3Dc,r=abc"), [0; 32]);
    assert!(matches!(step, Move::AskCredential(wanted) if wanted.name() == "a,b=c"));
}

// covers: P-01
#[test]
fn plain_with_an_independent_client_and_liars() {
    let respond = |message: &[u8]| {
        let (empty, exchange) = challenge(Mechanism::Plain.begin(&terms(), Some(&tls())));
        assert_eq!(empty, "");
        verdict(exchange.respond(message))
    };
    let right = respond(&Plain::new("demo", "secret").initial());
    assert_eq!(right.name, "demo");
    assert!(matches!(right.proof, Proof::Password(password) if password == "secret".into()));
    let long = [vec![0u8], vec![b'u'; 255], vec![0], vec![b'p'; 255]].concat();
    assert!(matches!(respond(&long).proof, Proof::Password(_)));
    assert!(matches!(respond(b"demo\0demo/office\0pw").proof, Proof::Password(_)));
    let too_long = [vec![0u8], vec![b'u'; 256], vec![0], vec![b'p'; 255]].concat();
    for wrong in [
        &b""[..],
        b"demo",
        b"\0\0",
        b"\0demo\0",
        b"\0\0secret",
        b"\0demo\0secret\0",
        b"\0demo\0secret\0more",
        b"other\0demo\0secret",
        b"*\0demo\0secret",
        b"root\0demo\0secret",
        b"DEMO\0demo\0secret",
        b"\0de\xff\0secret",
        b"\0de\r\nmo\0secret",
        &too_long,
    ] {
        assert!(matches!(respond(wrong).proof, Proof::Wrong), "{wrong:?}");
    }
}

// covers: C-01, C-02
#[test]
fn cram_md5() {
    let begin = || challenge(nonce(Mechanism::CramMd5.begin(&terms(), None), [0xab; 32]));
    let (text, exchange) = begin();
    let (unique, host) = text.trim_matches(['<', '>']).split_once('@').expect("a msg-id");
    assert_eq!((unique.len(), host), (49, "mx.provider.example"));
    let right = stored("secret", &[5; 16]);
    let digest = credential::cram_digest(&right.cram, text.as_bytes());
    let step = exchange.respond(format!("demo {digest}").as_bytes());
    assert!(matches!(verdict(credential(step, &right)).proof, Proof::Proven(_)));
    let (_, exchange) = begin();
    let step = exchange.respond(format!("no body {digest}").as_bytes());
    assert!(matches!(&step, Move::AskCredential(wanted) if wanted.name() == "no body"));
    assert!(matches!(verdict(credential(step, &right)).proof, Proof::Wrong));
    for wrong in ["demo", "", " ", "demo ", &format!("demo {}", digest.to_uppercase())] {
        let (_, exchange) = begin();
        let step = exchange.respond(wrong.as_bytes());
        let step =
            if matches!(step, Move::AskCredential(_)) { credential(step, &right) } else { step };
        assert!(matches!(verdict(step).proof, Proof::Wrong), "{wrong}");
    }
}

// covers: X-01, C7
#[test]
fn external() {
    let respond = |message: &[u8]| {
        let (_, exchange) = challenge(Mechanism::External.begin(&terms(), Some(&tls())));
        verdict(exchange.respond(message))
    };
    assert!(matches!(respond(b""), Verdict { authzid: None, proof: Proof::Certificate, .. }));
    let named = respond(b"demo");
    assert_eq!((named.name.as_str(), named.authzid.as_deref()), ("demo", Some("demo")));
    assert!(matches!(respond(b"de\0mo").proof, Proof::Wrong));
    assert!(matches!(respond(b"\xff").proof, Proof::Wrong));
}

// covers, D-05
#[test]
fn what_is_offered_where() {
    let names = |terms: &Terms, tls: Option<&TlsFacts>| -> Vec<&str> {
        Mechanism::offered(terms, tls).into_iter().map(Mechanism::name).collect()
    };
    let open = terms();
    let strict = Terms { auth_requires_tls: true, ..terms() };
    assert_eq!(names(&open, None), ["SCRAM-SHA-256", "CRAM-MD5"]);
    assert!(names(&strict, None).is_empty());
    assert_eq!(names(&strict, Some(&tls())), crate::smtp::MECHANISMS);
    let bare = TlsFacts::default();
    assert_eq!(names(&strict, Some(&bare)), ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN"]);
    let narrow = Terms { mechanisms: vec!["PLAIN"], ..terms() };
    assert_eq!(names(&narrow, Some(&tls())), ["PLAIN"]);
    assert_eq!(Mechanism::ALL.map(Mechanism::name), crate::smtp::MECHANISMS);
}

proptest::proptest! {
    /// Whatever a client answers, nothing breaks and nothing is proved.
    #[test]
    fn any_response_is_borne(
        responses in proptest::collection::vec(
            proptest::prelude::prop_oneof![
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
                "[np],(a=x)?,n=[a-z=2C,]{0,6},r=[a-z,]{0,4}".prop_map(String::into_bytes),
                "c=[a-zA-Z=]{0,6},r=[a-z]{0,4},p=[a-zA-Z=]{0,44}".prop_map(String::into_bytes),
            ],
            4,
        ),
    ) {
        use proptest::prelude::prop_assert;
        static RIGHT: std::sync::OnceLock<Credential> = std::sync::OnceLock::new();
        let right = RIGHT.get_or_init(|| stored("secret", &[5; 16]));
        for mechanism in Mechanism::ALL {
            let mut step = mechanism.begin(&terms(), Some(&tls()));
            let mut responses = responses.iter();
            loop {
                step = match step {
                    Move::AskNonce(wanted) => wanted.answer([3; 32]),
                    Move::AskCredential(wanted) => wanted.answer(right),
                    Move::Challenge(_, exchange) => match responses.next() {
                        Some(response) => exchange.respond(response),
                        None => break,
                    },
                    Move::Verdict(verdict) => {
                        prop_assert!(!matches!(verdict.proof, Proof::Proven(_)));
                        prop_assert!(verdict.name.len() <= NAME_BYTES_MAX);
                        break;
                    }
                };
            }
        }
    }
}

#[test]
fn a_name_that_grows_in_preparation_keeps_its_limit() {
    // Each of these three octets becomes eighteen characters.
    assert_eq!(super::prepared(&"\u{fdfa}".repeat(20)), None);
    assert!(super::prepared(&"\u{be}".repeat(20)).is_some_and(|name| name.len() == 100));
}
