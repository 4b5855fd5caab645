//! What the database looks like, and how an older one becomes a newer one.
//!
//! Knows SQL. Never knows who asks.

use rusqlite::Connection;

/// One step from each version to the next; a step that was ever shipped is never changed.
const STEPS: &[&str] = &["
    CREATE TABLE version (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, who TEXT NOT NULL, note TEXT NOT NULL);
    CREATE TABLE content (code BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE document (version INTEGER NOT NULL REFERENCES version, owner TEXT NOT NULL, name TEXT NOT NULL,
        code BLOB NOT NULL REFERENCES content, PRIMARY KEY (version, owner, name)) WITHOUT ROWID;
    CREATE TABLE generation (nic TEXT PRIMARY KEY, number INTEGER NOT NULL, code BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE token (name TEXT PRIMARY KEY, code BLOB NOT NULL UNIQUE, said TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE enrolment (code BLOB PRIMARY KEY, host TEXT NOT NULL, expires_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE host (name TEXT PRIMARY KEY, said TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE audit (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
        chain TEXT NOT NULL);
"];

/// Takes the database to the newest form; each step is whole or not at all.
pub(super) fn bring_up(connection: &mut Connection) -> rusqlite::Result<()> {
    let found: usize =
        connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).map(known)?;
    if found > STEPS.len() {
        return Err(rusqlite::Error::InvalidParameterName(format!(
            "it is of form {found}, and this program knows {}: start a newer one",
            STEPS.len()
        )));
    }
    for (step, number) in STEPS.iter().zip(1..).skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}

fn known(number: i64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
