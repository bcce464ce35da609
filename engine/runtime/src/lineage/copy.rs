//! A copy of a history that may be read and not written: SQLite writes even where it only reads, and so does a migration.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use llmflow_contract::Failure;

use super::rebuild::{remove_all, with_end};

/// A process may be writing what is copied: so often it is copied again.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(20);

/// Copies the database at `path`, with what is not moved into it yet, into a folder.
///
/// # Errors
/// Of the environment if it cannot be read, or is written to all the time.
pub(super) fn make(path: &Path, folder: &Path) -> Result<PathBuf, Failure> {
    let to = folder.join(path.file_name().unwrap_or_default());
    for _ in 0..TRIES {
        remove_all(&["", "-wal", "-shm", "-journal"].map(|end| with_end(&to, end)))?; // a log goes with its own database
        let before = states(path);
        for end in ["", "-wal", "-journal"] {
            let copied = fs::copy(with_end(path, end), with_end(&to, end));
            match copied {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !end.is_empty() => {}
                copied => drop(copied.map_err(|error| Failure::io("reading", path, &error))?),
            }
        }
        if states(path) == before {
            return Ok(to);
        }
        std::thread::sleep(PAUSE);
    }
    Err(Failure::environment("lineage/locked", "the history, `lineage.db`, is written to all the time")
        .help("run the same command again once the run that writes it is done"))
}

/// Tells whether any of its files changed.
fn states(path: &Path) -> Vec<Option<(u64, SystemTime)>> {
    let state =
        |end| fs::metadata(with_end(path, end)).ok().and_then(|found| Some((found.len(), found.modified().ok()?)));
    ["", "-wal", "-journal"].into_iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_its_database_has_taken_in_is_not_copied_from_an_earlier_try() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let database = from.path().join("lineage.db");
        fs::write(&database, "old").unwrap();
        fs::write(with_end(&database, "-wal"), "more").unwrap();
        let copy = make(&database, to.path()).unwrap();
        assert_eq!(fs::read(with_end(&copy, "-wal")).unwrap(), b"more");
        fs::write(&database, "old and more").unwrap();
        fs::remove_file(with_end(&database, "-wal")).unwrap();
        assert_eq!(make(&database, to.path()).unwrap(), copy);
        assert!(!with_end(&copy, "-wal").exists() && fs::read(&copy).unwrap() == b"old and more");
    }
}
