//! The exchanges against the vectors of their RFCs, and against servers that cheat.

use super::*;

fn keys(secret: &str) -> Keys {
    Keys { login: "user".into(), secret: Some(Secret::from(secret)), has_certificate: false }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn tls() -> TlsFacts {
    TlsFacts { exporter: Some([7; 32]), ..TlsFacts::default() }
}

const FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

fn rfc7677() -> Scram {
    Scram::with_nonce_text("user", &Secret::from("pencil"), "rOprNGfwEbeRWgbNEkqO")
}

#[test]
fn scram_speaks_the_vector_of_rfc_7677() {
    let mut scram = rfc7677();
    assert_eq!(scram.initial().as_slice(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let proof = scram.respond(FIRST.as_bytes()).expect("a proof");
    assert_eq!(
        std::str::from_utf8(&proof).expect("text"),
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    );
    assert!(!scram.is_proven());
    let end = scram.respond(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").expect("proven");
    assert!(end.is_empty() && scram.is_proven());
}

#[test]
fn scram_believes_no_wrong_signature() {
    for last in ["v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "v=", "e=other-error", ""] {
        let mut scram = rfc7677();
        scram.respond(FIRST.as_bytes()).expect("a proof");
        assert_eq!(scram.respond(last.as_bytes()), Err(LoginFault::Unproven), "{last}");
        assert!(!scram.is_proven());
    }
}

#[test]
fn scram_takes_no_foreign_nonce_and_no_odd_count() {
    let cases = [
        (FIRST.replace("r=rOpr", "r=sOpr"), LoginFault::Garbled),
        ("r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".into(), LoginFault::Garbled),
        (FIRST.replace("4096", "4095"), LoginFault::Iterations(4095)),
        (FIRST.replace("4096", "1000001"), LoginFault::Iterations(1_000_001)),
        (FIRST.replace("s=W22ZaJ0SNY7soEsUEjb6gQ==", "s="), LoginFault::Garbled),
        (format!("m=ext,{FIRST}"), LoginFault::Garbled),
        (String::new(), LoginFault::Garbled),
    ];
    for (first, fault) in cases {
        assert_eq!(rfc7677().respond(first.as_bytes()), Err(fault), "{first}");
    }
}

#[test]
fn scram_escapes_the_name_and_names_its_binding() {
    let mut keys = keys("pencil");
    keys.login = "a,b=c".into();
    let facts = tls();
    let begin = |mechanism, offered: &[&str], tls: Option<&TlsFacts>| {
        let mut exchange =
            Exchange::begin(mechanism, &names(offered), &keys, b"abc", tls).expect("an exchange");
        String::from_utf8(exchange.initial().expect("client first").to_vec()).expect("text")
    };
    let both = ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];
    let bound = begin("SCRAM-SHA-256-PLUS", &both, Some(&facts));
    assert_eq!(bound, "p=tls-exporter,,n=a=2Cb=3Dc,r=YWJj");
    assert!(begin("SCRAM-SHA-256", &["SCRAM-SHA-256"], Some(&facts)).starts_with("y,,"));
    assert!(begin("SCRAM-SHA-256", &both, Some(&facts)).starts_with("n,,"));
    assert!(begin("SCRAM-SHA-256", &["SCRAM-SHA-256"], None).starts_with("n,,"));
}

#[test]
fn cram_speaks_the_example_of_rfc_2195() {
    let keys = Keys {
        login: "tim".into(),
        secret: Some(Secret::from("tanstaaftanstaaf")),
        has_certificate: false,
    };
    let mut exchange = Exchange::begin("CRAM-MD5", &[], &keys, b"", None).expect("an exchange");
    assert!(exchange.initial().is_none() && !exchange.is_satisfied());
    let answer = exchange.respond(b"<1896.697170952@postoffice.reston.mci.net>").expect("a digest");
    assert_eq!(answer.as_slice(), b"tim b913a602c7eda7a495b4e6e7334d3890");
    assert!(exchange.is_satisfied());
    assert_eq!(exchange.respond(b"<2@x>"), Err(LoginFault::Garbled));
}

#[test]
fn plain_and_external_are_single_messages() {
    let mut plain =
        Exchange::begin("PLAIN", &[], &keys("secret"), b"", Some(&tls())).expect("an exchange");
    assert_eq!(plain.initial().expect("message").as_slice(), b"\0user\0secret");
    assert_eq!(plain.respond(b""), Err(LoginFault::Garbled));
    let mut external =
        Exchange::begin("EXTERNAL", &[], &keys("x"), b"", Some(&tls())).expect("an exchange");
    assert_eq!(external.initial().expect("message").as_slice(), b"");
    assert!(Exchange::begin("PLAIN", &[], &keys("a\0b"), b"", Some(&tls())).is_err());
}

#[test]
fn the_strongest_common_mechanism_is_chosen_and_never_an_excluded_one() {
    let all = names(&["PLAIN", "login", "cram-md5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]);
    let every = crate::smtp::MECHANISMS;
    let facts = tls();
    let old = TlsFacts::default();
    let keys = keys("x");
    assert_eq!(choose(&all, &every, &keys, Some(&facts)), Some("SCRAM-SHA-256-PLUS"));
    assert_eq!(choose(&all, &every, &keys, Some(&old)), Some("SCRAM-SHA-256"));
    assert_eq!(choose(&all[..3], &every, &keys, Some(&facts)), Some("CRAM-MD5"));
    assert_eq!(choose(&all[..2], &every, &keys, Some(&facts)), Some("PLAIN"));
    assert_eq!(choose(&all[..2], &every, &keys, None), None);
    assert_eq!(choose(&all[..3], &["SCRAM-SHA-256"], &keys, Some(&facts)), None);
    assert_eq!(choose(&names(&["EXTERNAL"]), &every, &keys, Some(&facts)), None);
    let certified = Keys { secret: None, has_certificate: true, ..keys };
    assert_eq!(choose(&names(&["EXTERNAL"]), &every, &certified, Some(&facts)), Some("EXTERNAL"));
    assert_eq!(choose(&all, &every, &certified, Some(&facts)), None);
}
