//! Lineage: what ran, from what, with what result, in one SQLite file.
//!
//! Owns: the database, its migrations, and every SQL statement. One process writes for a run: the engine.
//! Must not know: how a stage runs. The store is the truth: losing this file loses history, never a result.

mod address;
mod artifacts;
mod attempts;
mod changed;
mod columns;
mod copy;
mod curves;
mod fresh;
mod health;
mod integrity;
mod opening;
mod rebuild;
mod recall;
mod record;
mod recorder;
pub mod ro_crate;
mod row;
mod runs;
mod stages;
#[cfg(test)]
mod tests;
mod write;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use llmflow_contract::Failure;
use sqlx::{
    ConnectOptions, SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tempfile::TempDir;

pub use artifacts::{Descendant, Descendants};
pub use curves::Curve;
use health::{failed, unmigrated, unreadable};
pub use opening::{Opening, PlannedRow};
pub use rebuild::{Rebuilt, rebuild};
pub use recall::Success;
pub use record::{InputAside, InputRecord, RunRecord, StageRecord};
pub use recorder::Recorder;
pub use row::{AttemptRow, InputRow, OutputRow, PipelineRow, RunRow, StageRow, Whereabouts};
pub use runs::RunFilter;
pub use stages::{Follower, NOT_STARTED, StageCount};
pub use write::Note;

use crate::{device::filesystem, event::RunId, home::Home};

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(30);

/// Longer than any statement waits.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// The history of one home. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lineage {
    pool: SqlitePool,
    /// Where the copy lies that is looked at.
    #[allow(dead_code, reason = "held for its drop")]
    aside: Option<Arc<TempDir>>,
    /// The file that was opened.
    file: Option<Identity>,
}

impl Lineage {
    /// Opens, or makes, the home's `lineage.db`, and notes which runs died without saying so. Of a home that may not be
    /// written it opens a copy.
    ///
    /// # Errors
    /// Those of [`health`]: damaged, locked, written by a newer LLMflow, no space left.
    pub async fn open(home: &Home) -> Result<Self, Failure> {
        let alone = home.alone("history")?; // of many that make it, one brings it up to date
        let database = match home.aside() {
            Some(aside) => copy::make(&home.database(), aside.path())?,
            None => home.database(),
        };
        if fresh::is_wanted(&database)? {
            fresh::make(&database).await?;
        }
        let mut lineage = Self::open_file(&database, BUSY).await?;
        (lineage.aside, lineage.file) = (home.aside().cloned(), identity(&database));
        drop(alone);
        lineage.bury_the_dead(home).await?;
        Ok(lineage)
    }

    /// Is what was opened still the home's history, and not one that was made anew in its place meanwhile?
    pub fn is_in_place(&self, home: &Home) -> bool {
        self.file == identity(&home.database())
    }

    /// Ends every connection: nothing of it is written after this.
    pub async fn close(self) {
        self.pool.close().await;
    }

    /// `busy`: how long a statement waits for another process that writes.
    async fn open_file(path: &Path, busy: Duration) -> Result<Self, Failure> {
        let options = options(path).synchronous(SqliteSynchronous::Full).busy_timeout(busy).foreign_keys(true);
        let pool = connections(2).connect_with(options).await.map_err(failed)?;
        MIGRATIONS.run(&pool).await.map_err(unmigrated)?;
        Ok(Self { pool, aside: None, file: None })
    }

    /// Runs that say `running` while no process holds them were killed.
    async fn bury_the_dead(&self, home: &Home) -> Result<(), Failure> {
        let running: Vec<(String,)> = sqlx::query_as("SELECT run FROM runs WHERE status = 'running'")
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        for (run,) in running {
            if home.is_alive(&RunId(run.clone())) {
                continue;
            }
            let mut change = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            sqlx::query("UPDATE runs SET status = 'interrupted' WHERE run = ? AND status = 'running'")
                .bind(&run)
                .execute(&mut *change)
                .await
                .map_err(failed)?;
            sqlx::query("UPDATE stages SET status = 'interrupted' WHERE run = ? AND status IN ('running', 'waiting')")
                .bind(&run)
                .execute(&mut *change)
                .await
                .map_err(failed)?;
            change.commit().await.map_err(failed)?;
        }
        Ok(())
    }
}

/// Which file a database is, whatever is written to it: inode and time of birth in ns.
pub type Identity = (u64, u64);

/// None of an empty one.
pub fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::metadata(path).ok().filter(|meta| meta.len() > 0)?;
    let born = meta.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    Some((meta.ino(), born.and_then(|born| u64::try_from(born.as_nanos()).ok()).unwrap_or(0)))
}

/// At most so many connections to one database. Whoever waits for one waits for those who hold them, and they for the
/// database: its limit is the one that is told. A file needs neither a question before each statement nor new connections
/// now and then.
fn connections(most: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(most)
        .acquire_timeout(FOREVER)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

/// How a database at `path` is opened or made.
fn options(path: &Path) -> SqliteConnectOptions {
    // Memory shared between hosts is what a write-ahead log cannot have: on a network a journal that rolls back serves.
    let journal = match filesystem::kind(path.parent().unwrap_or(path)) {
        filesystem::Kind::Network(_) => SqliteJournalMode::Delete,
        _ => SqliteJournalMode::Wal,
    };
    // What is slow here is slow for its size; a user can do nothing about a statement.
    SqliteConnectOptions::new().filename(path).create_if_missing(true).journal_mode(journal).disable_statement_logging()
}
