//! MAIL and RCPT in the forms that are read and those that are not.

use super::*;

fn home() -> Domain {
    Domain::parse("mx.provider.example").expect("valid")
}

fn to(argument: &str) -> Result<Recipient, Refusal> {
    rcpt(argument, true, false, &home()).map(|(recipient, _)| recipient)
}

// covers: Z-01, B-02, U-01, G-01
#[test]
fn mail_with_everything() {
    let mail = mail(
        "From:<\"a > b\"@x.example> SIZE=1000 body=8bitmime SMTPUTF8 RET=hdrs ENVID=QQ+2B314 AUTH=<>",
        true,
    )
    .expect("sound");
    assert_eq!(mail.reverse_path.as_str(), "\"a > b\"@x.example");
    assert_eq!(mail.parameters.size, 1000);
    assert_eq!(mail.parameters.body, BodyKind::EightBitMime);
    assert!(mail.parameters.smtputf8 && !mail.has_space);
    assert_eq!(mail.parameters.dsn.ret, Some(Ret::Headers));
    assert_eq!(mail.parameters.dsn.envid.as_deref(), Some("QQ+2B314"));
}

// covers: S-20, S-14
#[test]
fn the_null_path_and_a_space() {
    assert!(mail("FROM:<>", false).expect("sound").reverse_path.is_null());
    assert!(mail("FROM: <a@b.example>", false).expect("sound").has_space);
}

// covers: B-02, G-01, Z-03, U-02, A-17
#[test]
fn mail_that_is_refused() {
    for (argument, refusal) in [
        ("FROM:a@b.example", Refusal::Syntax),
        ("FROM <a@b.example>", Refusal::Syntax),
        ("TO:<a@b.example>", Refusal::Syntax),
        ("FROM:<a@b.example", Refusal::Syntax),
        ("FROM:<a@b.example>SIZE=1", Refusal::Syntax),
        ("é", Refusal::Syntax),
        ("FROM:<a b@c.example>", Refusal::BadReversePath),
        ("FROM:<a>", Refusal::BadReversePath),
        ("FROM:<jürgen@b.example>", Refusal::SenderNeedsSmtpUtf8),
        ("FROM:<> SIZE=abc", Refusal::BadParameter),
        ("FROM:<> SIZE=-1", Refusal::BadParameter),
        ("FROM:<> SIZE=", Refusal::BadParameter),
        ("FROM:<> SIZE", Refusal::BadParameter),
        ("FROM:<> SIZE=18446744073709551616", Refusal::TooBig),
        ("FROM:<> SIZE=1 SIZE=1", Refusal::BadParameter),
        ("FROM:<> BODY=BINARYMIME", Refusal::BadParameter),
        ("FROM:<> SMTPUTF8=yes", Refusal::BadParameter),
        ("FROM:<> RET=SOME", Refusal::BadParameter),
        ("FROM:<> ENVID=", Refusal::BadParameter),
        ("FROM:<> ENVID=a+0D+0Ab", Refusal::BadParameter),
        ("FROM:<> ENVID=a+2b", Refusal::BadParameter),
        ("FROM:<> ENVID=a+", Refusal::BadParameter),
        ("FROM:<> AUTH=+0D+0AX:+20y", Refusal::BadParameter),
        ("FROM:<> REQUIRETLS", Refusal::UnknownParameter),
        ("FROM:<> NOTIFY=NEVER", Refusal::UnknownParameter),
    ] {
        assert_eq!(mail(argument, true), Err(refusal), "{argument}");
    }
    assert_eq!(mail("FROM:<> SIZE=1", false), Err(Refusal::UnknownParameter));
    assert_eq!(
        mail(&format!("FROM:<> ENVID={}", "a".repeat(101)), true),
        Err(Refusal::BadParameter)
    );
    assert!(mail(&format!("FROM:<> ENVID={}", "a".repeat(100)), true).is_ok());
}

// covers: G-01, S-02
#[test]
fn recipients() {
    let recipient =
        to("TO:<l@Example.com> NOTIFY=success,FAILURE,DELAY ORCPT=rfc822;l+2Bx@example.com")
            .expect("sound");
    assert_eq!(recipient.forward_path.as_str(), "l@Example.com");
    assert_eq!(recipient.notify, Some(Notify { success: true, failure: true, delay: true }));
    assert_eq!(recipient.orcpt.as_deref(), Some("rfc822;l+2Bx@example.com"));
    assert_eq!(to("TO:<a@b.example> NOTIFY=NEVER").expect("sound").notify, Some(Notify::default()));
    assert_eq!(
        to("TO:<PostMaster>").expect("sound").forward_path.as_str(),
        "PostMaster@mx.provider.example"
    );
    let long = format!("TO:<a@b.example> ORCPT=rfc822;{}", "a".repeat(493));
    assert!(to(&long).is_ok());
    assert_eq!(to(&format!("{long}a")), Err(Refusal::BadParameter));
}

// covers: G-01, U-02
#[test]
fn recipients_that_are_refused() {
    for (argument, refusal) in [
        ("TO:l@example.com", Refusal::Syntax),
        ("TO:<>", Refusal::BadAddress),
        ("TO:<u>", Refusal::BadAddress),
        ("TO:<u@[127.0.0.1]>", Refusal::BadAddress),
        ("TO:<u@d@e.example>", Refusal::BadAddress),
        ("TO:<ü@example.com>", Refusal::NeedsSmtpUtf8),
        ("TO:<u@ü.example>", Refusal::NeedsSmtpUtf8),
        ("TO:<a@b.example> NOTIFY=NEVER,SUCCESS", Refusal::BadParameter),
        ("TO:<a@b.example> NOTIFY=SUCCESS,SUCCESS", Refusal::BadParameter),
        ("TO:<a@b.example> NOTIFY=", Refusal::BadParameter),
        ("TO:<a@b.example> NOTIFY", Refusal::BadParameter),
        ("TO:<a@b.example> NOTIFY=NEVER NOTIFY=NEVER", Refusal::BadParameter),
        ("TO:<a@b.example> ORCPT=l@example.com", Refusal::BadParameter),
        ("TO:<a@b.example> ORCPT=rfc822;", Refusal::BadParameter),
        ("TO:<a@b.example> ORCPT=rfc822;a+0D+0Ab", Refusal::BadParameter),
        ("TO:<a@b.example> ORCPT=utf-8;ü@b.example", Refusal::BadParameter),
        ("TO:<a@b.example> SIZE=1", Refusal::UnknownParameter),
        ("TO:<a@b.example> X=1", Refusal::UnknownParameter),
    ] {
        assert_eq!(to(argument), Err(refusal), "{argument}");
    }
}

// covers: U-01
#[test]
fn utf8_where_it_was_announced() {
    let (recipient, _) =
        rcpt("TO:<jürgen@bücher.example> ORCPT=utf-8;jürgen@bücher.example", true, true, &home())
            .expect("sound");
    assert_eq!(recipient.forward_path.domain().as_str(), "xn--bcher-kva.example");
    assert_eq!(recipient.orcpt.as_deref(), Some("utf-8;jürgen@bücher.example"));
}
