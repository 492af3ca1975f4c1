//! The mailboxes on a real disk.

use super::maildir::Maildir;
use super::mbox::Mbox;
use super::*;

fn sender() -> ReversePath {
    ReversePath::parse("a@foo.example").expect("a path")
}

fn names(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn a_maildir_shows_a_message_only_when_it_is_whole() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("Maildir");
    let mut maildir = Maildir::open(&folder, "home/example").expect("a Maildir");
    maildir.begin(&sender(), Timestamp(0)).expect("begun");
    maildir.append(b"Subject: x\r\n\r").expect("written");
    maildir.append(b"\nbo\rdy\r\n").expect("written");
    assert_eq!((names(&folder.join("tmp")).len(), names(&folder.join("new")).len()), (1, 0));
    maildir.commit().expect("durable");
    assert!(names(&folder.join("tmp")).is_empty());
    let new = names(&folder.join("new"));
    assert_eq!(std::fs::read(&new[0]).expect("a file"), b"Subject: x\n\nbo\rdy\n");
    assert!(new[0].to_string_lossy().ends_with(".home_example"));
}

#[test]
fn what_is_not_committed_leaves_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("Maildir");
    let mut maildir = Maildir::open(&folder, "h").expect("a Maildir");
    maildir.begin(&sender(), Timestamp(0)).expect("begun");
    maildir.append(b"half").expect("written");
    maildir.discard();
    maildir.begin(&sender(), Timestamp(0)).expect("begun");
    drop(maildir);
    assert!(names(&folder.join("tmp")).is_empty() && names(&folder.join("new")).is_empty());
    let path = home.path().join("mbox");
    let mut mbox = Mbox::open(&path).expect("an mbox");
    mbox.begin(&sender(), Timestamp(0)).expect("begun");
    mbox.append(b"half").expect("written");
    drop(mbox);
    assert_eq!(std::fs::read(&path).expect("a file"), b"");
    assert_eq!(names(home.path()).len(), 2);
}

#[test]
fn an_mbox_keeps_messages_apart() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("mbox");
    std::fs::write(&path, "From x Thu Jan  1 00:00:00 1970\n\nold").expect("written");
    let mut mbox = Mbox::open(&path).expect("an mbox");
    for from in [sender(), ReversePath::Null] {
        mbox.begin(&from, Timestamp(0)).expect("begun");
        mbox.append(b"S: 1\r\n\r\nFrom here\r\n").expect("written");
        mbox.commit().expect("durable");
    }
    assert_eq!(
        std::fs::read_to_string(&path).expect("text"),
        "From x Thu Jan  1 00:00:00 1970\n\nold\n\n\
         From a@foo.example Thu Jan  1 00:00:00 1970\nS: 1\n\n>From here\n\n\
         From MAILER-DAEMON Thu Jan  1 00:00:00 1970\nS: 1\n\n>From here\n\n"
    );
    assert_eq!(names(home.path()), [path]);
}

#[test]
fn an_mbox_waits_for_who_holds_its_lock() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("mbox");
    let lock = home.path().join("mbox.lock");
    let mut mbox = Mbox::open(&path).expect("an mbox");
    mbox.begin(&sender(), Timestamp(0)).expect("begun");
    mbox.append(b"x\r\n").expect("written");
    std::fs::write(&lock, "").expect("a lock");
    let (started, has_started) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        started.send(()).expect("heard");
        mbox.commit()
    });
    has_started.recv().expect("started");
    assert_eq!(std::fs::read(&path).expect("a file"), b"", "written in spite of the lock");
    std::fs::remove_file(&lock).expect("released");
    writer.join().expect("no panic").expect("durable");
    assert!(std::fs::read_to_string(&path).expect("text").starts_with("From a@foo.example "));
    assert!(!lock.exists());
}
