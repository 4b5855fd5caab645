//! What every store must do, told once: each test runs against each implementation.
//!
//! Knows the trait alone, but for the tests of what one disk can do to one file.

use super::sqlite::Sqlite;
use super::*;
use crate::roles::Role;

fn on_each(test: impl Fn(&mut dyn Store)) {
    let folder = tempfile::tempdir().unwrap();
    test(&mut Sqlite::in_memory());
    test(&mut Sqlite::open(&folder.path().join("policy.db")).unwrap());
}

fn change(base: u64, name: &str, text: &str) -> Change {
    let key = Key { owner: "shop".to_owned(), name: name.to_owned() };
    Change {
        base,
        who: "ann".to_owned(),
        note: format!("put {name}"),
        documents: [(key, text.to_owned())].into(),
        nics: [(name.to_owned(), [7; 32])].into(),
        ..Change::default()
    }
}

#[test]
fn versions_follow_each_other_and_stay_readable() {
    on_each(|store| {
        assert_eq!((store.head().unwrap(), store.documents(0).unwrap().len()), (0, 0));
        assert_eq!(store.commit(&change(0, "web", "one")).unwrap(), 1);
        assert_eq!(store.commit(&change(1, "app", "two")).unwrap(), 2);
        let texts = |version| store.documents(version).unwrap().into_values().collect::<Vec<_>>();
        assert_eq!((texts(1), texts(2)), (vec!["one".to_owned()], vec!["two".to_owned()]));
        let history = store.history(10).unwrap();
        assert_eq!(history.iter().map(|version| version.version).collect::<Vec<_>>(), [2, 1]);
        assert!(matches!(store.documents(3), Err(StoreError::Missing(_))));
    });
}

#[test]
fn who_builds_on_an_old_version_changes_nothing() {
    on_each(|store| {
        store.commit(&change(0, "web", "one")).unwrap();
        let refused = store.commit(&change(0, "web", "other"));
        assert!(matches!(refused, Err(StoreError::Stale { base: 0, found: 1 })), "{refused:?}");
        assert_eq!((store.head().unwrap(), store.audit_log().unwrap().len()), (1, 1));
    });
}

#[test]
fn a_nic_keeps_the_version_in_which_it_last_changed() {
    on_each(|store| {
        store.commit(&change(0, "web", "one")).unwrap();
        let mut second = change(1, "app", "two");
        second.nics_gone = vec!["gone".to_owned()];
        store.commit(&second).unwrap();
        let generations = store.generations().unwrap();
        assert_eq!((generations["web"].0, generations["app"].0), (1, 2));
        store.commit(&Change { base: 2, nics_gone: vec!["web".to_owned()], ..Change::default() }).unwrap();
        assert_eq!(store.generations().unwrap().len(), 1);
    });
}

#[test]
fn tokens_are_found_by_their_code_and_go_by_their_name() {
    on_each(|store| {
        let grant = Grant { name: "ci".to_owned(), role: Role::Operator, tenant: None, expires_ms: Some(9) };
        store.add_token([1; 32], &grant).unwrap();
        assert!(store.add_token([2; 32], &grant).is_err(), "a name is one token's");
        assert_eq!(store.token([1; 32]).unwrap(), Some(grant));
        assert_eq!(store.token([2; 32]).unwrap(), None);
        assert_eq!((store.remove_token("ci").unwrap(), store.remove_token("ci").unwrap()), (true, false));
        assert_eq!(store.token([1; 32]).unwrap(), None);
    });
}

#[test]
fn a_word_to_enrol_is_good_once_and_not_for_ever() {
    on_each(|store| {
        store.add_enrolment([1; 32], "host-a", 100).unwrap();
        store.add_enrolment([2; 32], "host-b", 100).unwrap();
        assert_eq!(store.take_enrolment([1; 32], 99).unwrap().as_deref(), Some("host-a"));
        assert_eq!(store.take_enrolment([1; 32], 99).unwrap(), None);
        assert_eq!(store.take_enrolment([2; 32], 100).unwrap(), None);
    });
}

#[test]
fn the_audit_log_shows_what_was_altered() {
    on_each(|store| {
        for what in ["one", "two", "three"] {
            store.audit(5, "ann", what).unwrap();
        }
        let lines = store.audit_log().unwrap();
        assert_eq!(first_broken(&lines), None);
        let mut altered = lines.clone();
        altered[1].who = "bob".to_owned();
        assert_eq!(first_broken(&altered), Some(2));
        let mut shorter = lines;
        shorter.remove(0);
        assert_eq!(first_broken(&shorter), Some(1));
    });
}

#[test]
fn a_full_disk_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.db");
    let mut store = Sqlite::open(&path).unwrap();
    store.commit(&change(0, "web", "one")).unwrap();
    let pages: i64 = store.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.connection().pragma_update(None, "max_page_count", pages).unwrap();
    let refused = store.commit(&change(1, "web", &"x".repeat(100_000)));
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    assert_eq!((store.head().unwrap(), store.audit_log().unwrap().len()), (1, 1));
    store.connection().pragma_update(None, "max_page_count", pages + 100).unwrap();
    assert_eq!(store.commit(&change(1, "web", &"x".repeat(100_000))).unwrap(), 2);
}

#[test]
fn a_file_that_another_holds_or_that_is_damaged_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.db");
    let mut store = Sqlite::open(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(store.commit(&change(0, "web", "one")), Err(StoreError::Busy)));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.commit(&change(0, "web", "one")).unwrap(), 1);
    store.connection().execute("UPDATE content SET text = 'other'", []).unwrap();
    assert!(matches!(store.documents(1), Err(StoreError::Damaged(_))));
    std::fs::write(folder.path().join("no.db"), [9; 4096]).unwrap();
    assert!(matches!(Sqlite::open(&folder.path().join("no.db")), Err(StoreError::Damaged(_))));
}
