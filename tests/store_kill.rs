//! A process that takes and delivers mail is killed with SIGKILL again and again; a checker beside it has written down
//! every acknowledgement, and compares.
//!
//! 100 rounds; `RESTANTE_LONG=1` makes it 500.

mod store_support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Stdio};

use futures::executor::block_on;
use restante::store::{Filter, LeaseAnswer, Options, SledStore, Store};
use store_support::disk::Dice;
use store_support::*;

/// Messages that a round may use.
const ROUND: u64 = 1_000_000;

fn put_for_two(store: &SledStore, n: u64, size: usize) {
    let sent = message(n, &[("a@x.example", "ax"), ("b@y.example", "by")]);
    put_body(store, sent, &body(n, size)).expect("kept");
    println!("kept {n} {size}");
}

/// Delivers both recipients of these.
fn deliver(store: &SledStore, numbers: &[u64]) {
    for n in numbers {
        println!("ending {n}");
    }
    for (customer, queue, index) in [("ax", "x.example", 0), ("by", "y.example", 1)] {
        let lease = loop {
            match block_on(store.lease(request(customer, &[queue]))).expect("answered") {
                LeaseAnswer::Granted(lease) => break lease,
                LeaseAnswer::Busy { .. } => std::thread::yield_now(),
            }
        };
        let gone = numbers.iter().map(|n| delivered(*n, index)).collect();
        block_on(store.settle(&lease, gone)).expect("settled");
        block_on(store.release(lease)).expect("released");
    }
    for n in numbers {
        println!("ended {n}");
    }
}

/// The process that is killed; started by the test below. It says what it finds, and then what it does.
#[test]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os("RESTANTE_KILLED_IN") else { return };
    let round: u64 =
        std::env::var("RESTANTE_KILLED_ROUND").expect("set").parse().expect("a number");
    let known: u64 =
        std::env::var("RESTANTE_KILLED_KNOWN").expect("set").parse().expect("a number");
    let options = Options { segment_bytes: 2 << 20, cache_bytes: 8 << 20, ..Options::default() };
    let store = SledStore::open(Path::new(&folder), options).expect("opened");
    println!();
    let mut old = Vec::new();
    for head in block_on(store.query(Filter::default(), None, usize::MAX)).expect("a listing") {
        let n = head.arrived.0 - arrived(0).0;
        let octets = read_from(&store, head.id, 0).expect("a body");
        let sound = octets == body(n, octets.len());
        println!("there {n} {} {} {sound}", head.recipients.len(), octets.len());
        old.push(n);
    }
    for line in block_on(store.health()).expect("health").damage {
        println!("damage {line}");
    }
    println!("looked");
    std::thread::scope(|scope| {
        let store = &store;
        scope.spawn(move || {
            for some in old.chunks(20) {
                deliver(store, some);
                block_on(store.maintain()).expect("a turn");
            }
        });
        for worker in 0..3 {
            scope.spawn(move || {
                for turn in 0..known / 3 {
                    let n = round * ROUND + turn * 3 + worker;
                    let size = if n.is_multiple_of(40) { 300_000 } else { 2_000 };
                    put_for_two(store, n, size);
                    if turn % 3 == 2 {
                        deliver(store, &[n - 3]);
                    }
                }
            });
        }
    });
}

/// What the checker has on its own side.
#[derive(Default)]
struct Checker {
    kept: BTreeMap<u64, usize>,
    ending: BTreeSet<u64>,
    ended: BTreeSet<u64>,
    acknowledged: u64,
}

impl Checker {
    fn compare(&self, there: &BTreeMap<u64, (usize, usize, bool)>, round: u64) {
        for (n, (left, _, sound)) in there {
            assert!(!self.ended.contains(n), "round {round}: message {n} came back");
            assert!(sound, "round {round}: the body of {n} is another one");
            assert!(self.ending.contains(n) || *left == 2, "round {round}: {n} has {left}");
        }
        for (n, size) in self.kept.iter().filter(|(n, _)| !self.ending.contains(n)) {
            let found = there.get(n).unwrap_or_else(|| panic!("round {round}: {n} was lost"));
            assert_eq!(found.1, *size, "round {round}: the size of {n}");
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    /// More messages than any round comes to.
    const KNOWN: u64 = 6_000;
    let rounds = if std::env::var_os("RESTANTE_LONG").is_some() { 500 } else { 100 };
    // In memory, where that can be: what a process leaves is the system's, whatever lies below.
    let memory = Path::new("/dev/shm");
    let home = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let home = home.expect("a folder");
    let mut dice = Dice(5);
    let mut checker = Checker::default();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "the_process_that_is_killed", "--nocapture"])
            .env("RESTANTE_KILLED_IN", home.path())
            .env("RESTANTE_KILLED_ROUND", round.to_string())
            .env("RESTANTE_KILLED_KNOWN", KNOWN.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
        // Often before the old ones are gone, sometimes in the middle of the opening.
        let many = dice.below(220);
        let (mut said, mut looked, mut there) = (0, false, BTreeMap::new());
        for line in lines.map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().expect("a number");
            match words[0] {
                "there" => {
                    let found = (number(2) as usize, number(3) as usize, words[4] == "true");
                    there.insert(number(1), found);
                }
                "damage" => panic!("round {round}: {line}"),
                "looked" => {
                    checker.compare(&there, round);
                    looked = true;
                }
                "kept" => {
                    checker.kept.insert(number(1), number(2) as usize);
                    checker.acknowledged += 1;
                }
                "ending" => {
                    checker.ending.insert(number(1));
                }
                "ended" => {
                    checker.ended.insert(number(1));
                    checker.acknowledged += 1;
                }
                _ => continue,
            }
            said += u64::from(looked);
            if said > many || (many < 12 && !there.is_empty()) {
                // Lines that are on their way are read to the end: they were said before the kill.
                child.kill().expect("killed");
            }
        }
        let ended = child.wait().expect("ended");
        assert!(!ended.success(), "round {round}: the child ended by itself");
    }
    println!("{rounds} rounds, {} acknowledgements", checker.acknowledged);
    assert!(checker.acknowledged > rounds * 20, "{}", checker.acknowledged);
}
