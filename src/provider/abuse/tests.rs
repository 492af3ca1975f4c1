//! The memory of failures under a clock that the test moves.

use super::*;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn delays() -> Vec<Duration> {
    vec![seconds(0), seconds(1), seconds(4)]
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn refusals_wait_longer_and_longer() {
    let abuse = Abuse::default();
    let (peer, mut now) = (address("192.0.2.1"), seconds(100));
    let mut waits = Vec::new();
    for _ in 0..5 {
        now += abuse.before_verdict(peer, now);
        let wait = abuse.failed(peer, "acme", now, &delays());
        now += wait;
        waits.push(wait.as_secs());
    }
    assert_eq!(waits, [0, 1, 4, 4, 4]);
}

#[test]
fn a_right_password_from_elsewhere_never_waits() {
    let abuse = Abuse::default();
    let now = seconds(100);
    for host in 1..=200u8 {
        let guesser = IpAddr::from([198, 51, 100, host]);
        let _ = abuse.failed(guesser, "acme", now, &delays());
    }
    assert_eq!(abuse.before_verdict(address("192.0.2.1"), now), Duration::ZERO);
    // A wrong one does, though its address is new.
    assert_eq!(abuse.failed(address("192.0.2.1"), "acme", now, &delays()), seconds(4));
}

#[test]
fn many_sessions_of_one_address_stand_in_one_line() {
    let abuse = Abuse::default();
    let (peer, now) = (address("192.0.2.1"), seconds(100));
    let waits: Vec<u64> = (0..20u32)
        .map(|n| abuse.failed(peer, &format!("name{n}"), now, &delays()).as_secs())
        .collect();
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert_eq!(waits.last().copied(), Some(WAIT_MAX.as_secs()));
    assert_eq!(abuse.before_verdict(peer, now), WAIT_MAX);
    // The same IPv6 line is the same address.
    let _ = abuse.failed(address("2001:db8::1"), "x", now, &[seconds(9)]);
    assert_eq!(abuse.before_verdict(address("2001:db8::2"), now), seconds(9));
    assert_eq!(abuse.before_verdict(address("2001:db8:0:1::2"), now), Duration::ZERO);
}

#[test]
fn failures_are_forgotten() {
    let abuse = Abuse::default();
    let peer = address("192.0.2.1");
    for _ in 0..9 {
        let _ = abuse.failed(peer, "acme", seconds(0), &delays());
    }
    let later = FORGOTTEN_AFTER + seconds(1);
    assert_eq!(abuse.before_verdict(peer, later), Duration::ZERO);
    assert_eq!(abuse.failed(peer, "acme", later, &delays()), Duration::ZERO);
}

#[test]
fn strangers_cannot_fill_the_memory() {
    let abuse = Abuse::default();
    for n in 0..(REMEMBERED_MAX as u64 + 100) {
        let peer = IpAddr::from(std::net::Ipv6Addr::from_bits(u128::from(n) << 64));
        let _ = abuse.failed(peer, &format!("name{n}"), Duration::from_millis(n), &delays());
    }
    let state = abuse.state();
    assert_eq!((state.addresses.len(), state.names.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
}

#[test]
fn calls_in_vain_run_out_and_come_back() {
    let abuse = Abuse::default();
    let acme = CustomerName::parse("acme").expect("a name");
    let other = CustomerName::parse("other").expect("a name");
    let now = seconds(100);
    for _ in 0..6 {
        assert!(abuse.may_call(&acme, now, 6));
        abuse.called_in_vain(&acme, now, 6);
    }
    assert!(!abuse.may_call(&acme, now, 6));
    assert!(abuse.may_call(&other, now, 6));
    assert!(!abuse.may_call(&acme, now + seconds(9), 6));
    assert!(abuse.may_call(&acme, now + seconds(11), 6));
}
