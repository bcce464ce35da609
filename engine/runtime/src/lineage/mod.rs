//! Lineage: what ran, from what, with what result, in one SQLite file.
//!
//! Owns: the database, its migrations, and every SQL statement. One process writes for a run: the engine.
//! Must not know: how a stage runs. The store is the truth: losing this file loses history, never a result.

mod query;
mod recall;
mod recorder;
mod row;
#[cfg(test)]
mod tests;
mod write;

use std::time::Duration;

use llmflow_contract::Failure;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub use recall::Success;
pub use recorder::Recorder;
pub use row::{InputRow, OutputRow, PipelineRow, RunRow, StageRow, Whereabouts};
pub use write::{Note, PlannedRow};

use crate::{event::RunId, home::Home};

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(30);

/// The history of one home. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lineage {
    pool: SqlitePool,
}

impl Lineage {
    /// Opens, or makes, the home's `lineage.db`, and notes which runs died without saying so.
    ///
    /// # Errors
    /// `lineage/database` if it cannot be opened, or was written by a newer LLMflow.
    pub async fn open(home: &Home) -> Result<Self, Failure> {
        let options = SqliteConnectOptions::new()
            .filename(home.database())
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.map_err(failed)?;
        sqlx::migrate!("../../migrations").run(&pool).await.map_err(|error| {
            Failure::environment("lineage/database", "the history cannot be brought up to date")
                .cause(error)
                .help("use the LLMflow that wrote it, or move `lineage.db` away: results in the store stay")
        })?;
        let lineage = Self { pool };
        lineage.bury_the_dead(home).await?;
        Ok(lineage)
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

/// A failure of the database.
fn failed(error: sqlx::Error) -> Failure {
    // <https://sqlite.org/rescode.html>: 13 is SQLITE_FULL, 11 SQLITE_CORRUPT, 26 SQLITE_NOTADB.
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    let failure = match code.as_str() {
        "13" => Failure::environment("disk/full", "no space left while writing the history, `lineage.db`")
            .help("free some space, or move the state with `--home FOLDER`; then run the same command again"),
        "11" | "26" => Failure::environment("lineage/database", "the history in `lineage.db` is damaged")
            .help("move `lineage.db` away and run again: history starts anew, results in the store stay"),
        _ => Failure::environment("lineage/database", "the history in `lineage.db` does not answer"),
    };
    failure.cause(error)
}

/// A JSON column that this program wrote and can no longer read.
fn unreadable(error: serde_json::Error) -> Failure {
    Failure::environment("lineage/database", "the history in `lineage.db` holds something unreadable").cause(error)
}
