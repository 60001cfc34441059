//! The data folder: who holds it, and what of the simulated AWS is on disk.
//!
//! Rows are committed before the reply that tells of them is sent. SQLite in
//! WAL mode with `synchronous = NORMAL` does not wait for the disk at a commit,
//! but has handed the data to the operating system: a killed process (kill -9
//! included) loses nothing. Only a power cut could lose the last commits, and
//! then whole ones, newest first; this is a development tool, and the wait would
//! be paid at every call.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};

/// A change of one row: its key, and its new value or none.
pub(crate) type Change = (String, Option<String>);

/// The data folder, held by this process until it ends.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Locked; the operating system unlocks it when the process ends, however.
    _lock: File,
}

/// Why a data folder cannot be used.
#[derive(Debug)]
pub(crate) enum FolderError {
    /// Another process has it.
    Held,
    /// It cannot be made or written.
    Io(std::io::Error),
}

impl Folder {
    /// Makes the folder if it is not there, and takes it.
    pub(crate) fn take(path: &Path) -> Result<Self, FolderError> {
        std::fs::create_dir_all(path).map_err(FolderError::Io)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(FolderError::Io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::Held),
            Err(TryLockError::Error(error)) => Err(FolderError::Io(error)),
        }
    }

    /// A file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// The simulated AWS on disk, `DynamoDB` excepted.
#[derive(Debug)]
pub(crate) struct Store(Connection);

impl Store {
    /// Opens or makes the file.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS cloud (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS local (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;",
        )?;
        Ok(Self(connection))
    }

    /// Every row of the simulated AWS.
    pub(crate) fn rows(&self) -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement = self.0.prepare("SELECT key, value FROM cloud ORDER BY key")?;
        let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

    /// A value of the local mode's own.
    pub(crate) fn own(&self, key: &str) -> rusqlite::Result<Option<String>> {
        self.0
            .query_row("SELECT value FROM local WHERE key = ?1", [key], |row| row.get(0))
            .optional()
    }

    /// Commits rows of the simulated AWS and values of our own, all or none.
    pub(crate) fn commit(
        &mut self,
        changes: &[Change],
        own: &[(&str, &str)],
    ) -> rusqlite::Result<()> {
        if changes.is_empty() && own.is_empty() {
            return Ok(());
        }
        let transaction = self.0.transaction()?;
        {
            let mut put = transaction
                .prepare_cached("INSERT OR REPLACE INTO cloud (key, value) VALUES (?1, ?2)")?;
            let mut delete = transaction.prepare_cached("DELETE FROM cloud WHERE key = ?1")?;
            let mut put_own = transaction
                .prepare_cached("INSERT OR REPLACE INTO local (key, value) VALUES (?1, ?2)")?;
            for (key, value) in changes {
                match value {
                    Some(value) => put.execute(params![key, value])?,
                    None => delete.execute(params![key])?,
                };
            }
            for (key, value) in own {
                put_own.execute(params![key, value])?;
            }
        }
        transaction.commit()
    }
}
