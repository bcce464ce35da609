//! A history where there was none: made aside without a wait for the disk, then moved whole into its place.
//!
//! Each migration of a database in use is durable before the next begins, which of one that nobody has yet is a dozen
//! waits for nothing.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use llmflow_contract::Failure;
use sqlx::sqlite::SqliteSynchronous;

use super::{
    MIGRATIONS, connections,
    health::{failed, unmigrated},
    options,
    rebuild::{remove_all, with_end},
};
use crate::store::rename_where_nothing_is;

/// Is there surely no database at `path`? What cannot be looked at, or is a link to what is away, is one.
pub(super) fn is_wanted(path: &Path) -> Result<bool, Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Failure::io("opening", path, &error)),
    }
}

/// Makes the database at `path`. The caller sees to it that one process at a time does.
pub(super) async fn make(path: &Path) -> Result<(), Failure> {
    let aside = &path.with_extension("making");
    let made = aside.join("history.db");
    clear(path, aside)?;
    let unsynced = options(&made).synchronous(SqliteSynchronous::Off);
    let empty = connections(1).connect_with(unsynced).await.map_err(failed)?;
    MIGRATIONS.run(&empty).await.map_err(unmigrated)?;
    // Closing would do it too, without a word if it fails.
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&empty).await.map_err(failed)?;
    empty.close().await;
    place(&made, path, aside).map_err(|error| Failure::io("making", path, &error))
}

/// Takes away what a killed process left, and the logs of a database that is gone: they would be replayed into this one.
fn clear(path: &Path, aside: &Path) -> Result<(), Failure> {
    let cleared = match fs::remove_dir_all(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(aside),
    };
    cleared.map_err(|error| Failure::io("making", path, &error))?;
    remove_all(&["-wal", "-shm", "-journal"].map(|end| with_end(path, end)))
}

fn place(made: &Path, path: &Path, aside: &Path) -> io::Result<()> {
    File::open(made)?.sync_all()?;
    rename_where_nothing_is(made, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()?;
    fs::remove_dir_all(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{home::Home, lineage::Lineage};

    #[tokio::test]
    async fn logs_of_a_database_that_is_gone_are_not_replayed_into_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path()), folder.path()).unwrap();
        let old = Lineage::open(&home).await.unwrap();
        sqlx::query("CREATE TABLE old (x)").execute(&old.pool).await.unwrap();
        let log = fs::read(folder.path().join("lineage.db-wal")).unwrap();
        assert!(!log.is_empty());
        old.close().await;
        fs::remove_file(home.database()).unwrap();
        fs::write(folder.path().join("lineage.db-wal"), log).unwrap();
        fs::create_dir_all(folder.path().join("lineage.making/left by a killed one")).unwrap();
        let new = Lineage::open(&home).await.unwrap();
        let tables: Vec<(String,)> =
            sqlx::query_as("SELECT name FROM sqlite_master").fetch_all(&new.pool).await.unwrap();
        let has = |name: &str| tables.iter().any(|(table,)| table == name);
        assert!(has("runs") && !has("old"));
        assert!(!folder.path().join("lineage.making").exists());
    }

    #[tokio::test]
    async fn a_history_that_is_away_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path()), folder.path()).unwrap();
        std::os::unix::fs::symlink(folder.path().join("unmounted/lineage.db"), home.database()).unwrap();
        assert!(Lineage::open(&home).await.is_err());
        assert!(fs::symlink_metadata(home.database()).unwrap().is_symlink());
        assert!(is_wanted(&folder.path().join("none")).unwrap());
    }
}
