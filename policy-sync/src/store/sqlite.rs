//! The store in one SQLite file.
//!
//! Write-ahead log, every commit synced, one writer. Knows SQL. Never knows what a document says.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use super::schema::bring_up;
use super::{AuditLine, Change, Documents, Generations, Key, Store, StoreError, Version, chained};
use crate::roles::{Grant, Host};

/// How long another process's hold on the file is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// A policy in one file.
#[derive(Debug)]
pub(crate) struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    /// Opens the file at `path`, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::new(Connection::open(path).map_err(wrong)?)
    }

    fn new(mut connection: Connection) -> Result<Self, StoreError> {
        connection.busy_timeout(PATIENCE).map_err(wrong)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(wrong)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(wrong)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(wrong)?;
        bring_up(&mut connection).map_err(wrong)?;
        Ok(Self { connection })
    }

    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self::new(Connection::open_in_memory().unwrap()).unwrap()
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
        let done = work(&transaction)?;
        transaction.commit().map_err(wrong)?;
        Ok(done)
    }
}

fn wrong(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged(error.to_string()),
        Some(_) | None => StoreError::Other(error.to_string()),
    }
}

fn newest(connection: &Connection) -> Result<u64, StoreError> {
    let found = connection.query_row("SELECT coalesce(max(number), 0) FROM version", [], |row| row.get(0));
    found.map_err(wrong)
}

fn add_audit_line(connection: &Connection, at_ms: i64, who: &str, what: &str) -> Result<(), StoreError> {
    let last = connection
        .query_row("SELECT number, chain FROM audit ORDER BY number DESC LIMIT 1", [], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?))
        })
        .optional()
        .map_err(wrong)?;
    let (before, chain) = last.unwrap_or_default();
    let number = before + 1;
    let chain = chained(&chain, number, at_ms, who, what);
    let line = params![number, at_ms, who, what, chain];
    connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?)", line).map(|_| ()).map_err(wrong)
}

fn add_documents(connection: &Connection, version: u64, documents: &Documents) -> rusqlite::Result<()> {
    let mut content = connection.prepare("INSERT OR IGNORE INTO content VALUES (?, ?)")?;
    let mut document = connection.prepare("INSERT INTO document VALUES (?, ?, ?, ?)")?;
    for (key, text) in documents {
        let code: [u8; 32] = blake3::hash(text.as_bytes()).into();
        content.execute(params![code, text])?;
        document.execute(params![version, key.owner, key.name, code])?;
    }
    Ok(())
}

fn set_generations(connection: &Connection, version: u64, change: &Change) -> rusqlite::Result<()> {
    let mut put = connection.prepare("INSERT OR REPLACE INTO generation VALUES (?, ?, ?)")?;
    for (nic, code) in &change.nics {
        put.execute(params![nic, version, code])?;
    }
    let mut remove = connection.prepare("DELETE FROM generation WHERE nic = ?")?;
    for nic in &change.nics_gone {
        remove.execute([nic])?;
    }
    Ok(())
}

fn said(text: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(text).map_err(|error| StoreError::Other(error.to_string()))
}

fn heard<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Damaged(error.to_string()))
}

impl Store for Sqlite {
    fn head(&self) -> Result<u64, StoreError> {
        newest(&self.connection)
    }

    fn documents(&self, version: u64) -> Result<Documents, StoreError> {
        if version > self.head()? {
            return Err(StoreError::Missing(format!("version {version}")));
        }
        let query = "SELECT owner, name, text, content.code FROM document JOIN content USING (code) WHERE version = ?";
        let mut statement = self.connection.prepare(query).map_err(wrong)?;
        let rows = statement.query_map([version], |row| {
            let key = Key { owner: row.get(0)?, name: row.get(1)? };
            Ok((key, row.get::<_, String>(2)?, row.get::<_, [u8; 32]>(3)?))
        });
        let mut documents = Documents::new();
        for row in rows.map_err(wrong)? {
            let (key, text, code) = row.map_err(wrong)?;
            if blake3::hash(text.as_bytes()) != code {
                return Err(StoreError::Damaged(format!("document {}/{}", key.owner, key.name)));
            }
            documents.insert(key, text);
        }
        Ok(documents)
    }

    fn commit(&mut self, change: &Change) -> Result<u64, StoreError> {
        self.write(|transaction| {
            let found = newest(transaction)?;
            if found != change.base {
                return Err(StoreError::Stale { base: change.base, found });
            }
            let version = found + 1;
            let row = params![version, change.at_ms, change.who, change.note];
            transaction.execute("INSERT INTO version VALUES (?, ?, ?, ?)", row).map_err(wrong)?;
            add_documents(transaction, version, &change.documents).map_err(wrong)?;
            set_generations(transaction, version, change).map_err(wrong)?;
            let what = format!("policy version {version}: {}", change.note);
            add_audit_line(transaction, change.at_ms, &change.who, &what)?;
            Ok(version)
        })
    }

    fn history(&self, count: u32) -> Result<Vec<Version>, StoreError> {
        let query = "SELECT number, at_ms, who, note FROM version ORDER BY number DESC LIMIT ?";
        let mut statement = self.connection.prepare(query).map_err(wrong)?;
        let rows = statement.query_map([count], |row| {
            Ok(Version { version: row.get(0)?, at_ms: row.get(1)?, who: row.get(2)?, note: row.get(3)? })
        });
        rows.and_then(Iterator::collect).map_err(wrong)
    }

    fn generations(&self) -> Result<Generations, StoreError> {
        let query = "SELECT nic, number, code FROM generation";
        let mut statement = self.connection.prepare(query).map_err(wrong)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))));
        rows.and_then(Iterator::collect).map_err(wrong)
    }

    fn add_token(&mut self, code: [u8; 32], grant: &Grant) -> Result<(), StoreError> {
        let row = params![grant.name, code, said(grant)?];
        self.connection.execute("INSERT INTO token VALUES (?, ?, ?)", row).map(|_| ()).map_err(wrong)
    }

    fn token(&self, code: [u8; 32]) -> Result<Option<Grant>, StoreError> {
        let query = "SELECT said FROM token WHERE code = ?";
        let found = self.connection.query_row(query, [code], |row| row.get::<_, String>(0)).optional();
        found.map_err(wrong)?.map(|text| heard(&text)).transpose()
    }

    fn remove_token(&mut self, name: &str) -> Result<bool, StoreError> {
        let removed = self.connection.execute("DELETE FROM token WHERE name = ?", [name]);
        removed.map(|count| count > 0).map_err(wrong)
    }

    fn add_enrolment(&mut self, code: [u8; 32], host: &str, expires_ms: i64) -> Result<(), StoreError> {
        let row = params![code, host, expires_ms];
        self.connection.execute("INSERT INTO enrolment VALUES (?, ?, ?)", row).map(|_| ()).map_err(wrong)
    }

    fn take_enrolment(&mut self, code: [u8; 32], now_ms: i64) -> Result<Option<String>, StoreError> {
        let query = "DELETE FROM enrolment WHERE code = ? RETURNING host, expires_ms";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
        let found = self.connection.query_row(query, [code], row).optional().map_err(wrong)?;
        Ok(found.filter(|(_, expires_ms)| now_ms < *expires_ms).map(|(host, _)| host))
    }

    fn put_host(&mut self, host: &Host) -> Result<(), StoreError> {
        let row = params![host.host, said(host)?];
        self.connection.execute("INSERT OR REPLACE INTO host VALUES (?, ?)", row).map(|_| ()).map_err(wrong)
    }

    fn hosts(&self) -> Result<Vec<Host>, StoreError> {
        let mut statement = self.connection.prepare("SELECT said FROM host").map_err(wrong)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(wrong)?;
        rows.map(|row| heard(&row.map_err(wrong)?)).collect()
    }

    fn audit(&mut self, at_ms: i64, who: &str, what: &str) -> Result<(), StoreError> {
        self.write(|transaction| add_audit_line(transaction, at_ms, who, what))
    }

    fn audit_log(&self) -> Result<Vec<AuditLine>, StoreError> {
        let query = "SELECT number, at_ms, who, what, chain FROM audit ORDER BY number";
        let mut statement = self.connection.prepare(query).map_err(wrong)?;
        let rows = statement.query_map([], |row| {
            let (number, at_ms, who) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(AuditLine { number, at_ms, who, what: row.get(3)?, chain: row.get(4)? })
        });
        rows.and_then(Iterator::collect).map_err(wrong)
    }
}
