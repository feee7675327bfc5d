//! A journal in a SQLite file of its own, for stores that are opened again in one test.

use std::sync::Arc;

use tempfile::TempDir;
use tollgate::ledger::sqlite::file::{Durability, File};
use tollgate::ledger::sqlite::journal::SqliteJournal;
use tollgate::ledger::sqlite::schema;

/// The file is gone when this is dropped.
#[derive(Clone)]
pub struct InFile {
    pub journal: Arc<SqliteJournal>,
    _directory: Arc<TempDir>,
}

impl InFile {
    pub async fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("tollgate.db");
        let file = File::create(&path, Durability::Process).await;
        let file = file.expect("a file");
        let migrated = schema::migrate(&file, None).await;
        migrated.expect("a schema");
        Self {
            journal: Arc::new(SqliteJournal::new(Arc::new(file))),
            _directory: Arc::new(directory),
        }
    }
}
