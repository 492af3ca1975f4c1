//! A store on a real file system of 16 MiB, filled to the brim: mail is refused, drains go on, intake returns by itself.
//!
//! On tmpfs in a mount namespace of its own, which needs no root where the system allows user namespaces, and on ext4
//! in a loop image, which does. Says so where it can do neither.

mod store_support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use restante::store::{Options, SledStore, Store, StoreError};
use store_support::recorder::{format, mount, run};
use store_support::work::*;
use store_support::*;

const OCTETS: u64 = 16 << 20;

fn live(home: &Path) {
    let book = Book::default();
    for opening in 0..2 {
        let store = SledStore::open(home, Options::default()).expect("it opens");
        for round in 0..3 {
            let first = 1 + opening * 100_000 + round * 10_000;
            let refused = (first..first + 5_000).find(|n| {
                let size = if u64::is_multiple_of(*n, 9) { 400_000 } else { 5_000 };
                match put_body(&store, two(*n), &body(*n, size)) {
                    Ok(()) => {
                        book.note(*n, |told| (told.kept, told.size) = (true, size));
                        false
                    }
                    Err(StoreError::Full(_)) => true,
                    Err(error) => panic!("message {n}: {error}"),
                }
            });
            let refused = refused.expect("the disk never was full");
            assert!(refused > first + 30, "only {} messages of a round fitted", refused - first);
            compare(&store, &book.page(), "full");
            let page = book.page();
            let all: Vec<u64> = page.iter().filter(|(_, t)| !t.ended).map(|(n, _)| *n).collect();
            for some in all.chunks(40) {
                block_on(deliver(&store, &book, some));
            }
            assert!(book.page().values().all(|told| told.ended), "draining stopped");
            compare(&store, &book.page(), "drained");
            // The keeper removes empty segments by itself, and nobody asks it to.
            let n = first + 9_999;
            let deadline = Instant::now() + Duration::from_secs(60);
            while let Err(error) = put_body(&store, two(n), &body(n, 2_000_000)) {
                assert!(matches!(error, StoreError::Full(_)), "{error}");
                assert!(Instant::now() < deadline, "intake did not return");
                std::thread::park_timeout(Duration::from_millis(20));
            }
            book.note(n, |told| (told.kept, told.size) = (true, 2_000_000));
            let health = block_on(store.health()).expect("health");
            assert_eq!((health.broken, health.damage), (None, Vec::new()));
        }
        block_on(store.close()).expect("closed");
    }
}

fn is_small(place: &Path) -> bool {
    let stat = run("stat", &["-f", "-c", "%b %S", &place.to_string_lossy()]).expect("stat");
    let mut words = stat.split(' ').map(|word| word.parse::<u64>().expect("a number"));
    words.next().expect("blocks") * words.next().expect("octets") <= OCTETS
}

/// What runs inside the namespace; started by the test below.
#[test]
fn the_life_in_a_namespace() {
    let Some(folder) = std::env::var_os("RESTANTE_SMALL") else { return };
    assert!(is_small(Path::new(&folder)));
    live(&Path::new(&folder).join("store"));
    println!("\nlived");
}

#[test]
fn a_full_tmpfs_refuses_mail_and_goes_on_draining() {
    let folder = tempfile::tempdir().expect("a folder");
    let test = std::env::current_exe().expect("this test");
    let mounts = "mount -t tmpfs -o size=16m restante-small \"$0\" || { echo no mount; exit 0; }; exec \"$@\"";
    let inside = Command::new("unshare")
        .args(["-Urm", "sh", "-c", mounts])
        .args([folder.path().as_os_str(), test.as_os_str()])
        .args(["--exact", "the_life_in_a_namespace", "--nocapture"])
        .env("RESTANTE_SMALL", folder.path())
        .output();
    let inside = match inside {
        Ok(inside) => inside,
        Err(error) => return println!("SKIPPED: unshare: {error}"),
    };
    let said = String::from_utf8_lossy(&inside.stdout).into_owned();
    let complained = String::from_utf8_lossy(&inside.stderr).into_owned();
    if said.contains("no mount") || complained.starts_with("unshare:") {
        return println!("SKIPPED: no tmpfs of one's own here: {complained}");
    }
    assert!(inside.status.success() && said.contains("lived"), "{said}\n{complained}");
}

#[test]
fn a_full_ext4_refuses_mail_and_goes_on_draining() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("image");
    let made = format(&image, OCTETS, &["mkfs.ext4", "-q"]);
    match made.and_then(|()| mount(&image, &folder.path().join("mounted"), "loop")) {
        Ok(mounted) => {
            assert!(is_small(&mounted.0));
            live(&mounted.0.join("store"));
        }
        Err(why) => println!("SKIPPED: no small ext4 can be made here: {why}"),
    }
}
