//! Whether the database file itself is whole.

use super::*;

impl Lineage {
    /// What SQLite's own check finds wrong with the file: nothing, or some of it in its words. Reads the whole file.
    ///
    /// # Errors
    /// `lineage/database` if it is too damaged to be checked.
    pub async fn damage(&self) -> Result<Vec<String>, Failure> {
        let lines: Vec<(String,)> =
            sqlx::query_as("PRAGMA integrity_check(10)").fetch_all(&self.pool).await.map_err(failed)?;
        Ok(lines.into_iter().map(|(line,)| line).filter(|line| line != "ok").collect())
    }

    /// SQLite's version, and how it keeps transactions: `wal`, or `delete` for a rollback journal.
    pub async fn sqlite(&self) -> Result<(String, String), Failure> {
        let (version,): (String,) =
            sqlx::query_as("SELECT sqlite_version()").fetch_one(&self.pool).await.map_err(failed)?;
        let (mode,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(&self.pool).await.map_err(failed)?;
        Ok((version, mode))
    }
}
