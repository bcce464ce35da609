//! A copy of a history that may be read and not written: SQLite writes even where it only reads, and so does a migration.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use llmflow_contract::Failure;

use super::rebuild::with_end;

/// A process may be writing what is copied: so often it is copied again.
const TRIES: usize = 20;

/// Copies the database at `path`, with what is not moved into it yet, into a folder.
///
/// # Errors
/// Of the environment if it cannot be read, or is written to all the time.
pub(super) fn make(path: &Path, folder: &Path) -> Result<PathBuf, Failure> {
    let to = folder.join(path.file_name().unwrap_or_default());
    for _ in 0..TRIES {
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
    }
    Err(Failure::environment("lineage/locked", "the history, `lineage.db`, is written to all the time")
        .help("run the same command again once the run that writes it is done"))
}

/// Tells whether any of its files changed.
fn states(path: &Path) -> Vec<Option<(u64, std::time::SystemTime)>> {
    let state =
        |end| fs::metadata(with_end(path, end)).ok().and_then(|found| Some((found.len(), found.modified().ok()?)));
    ["", "-wal", "-journal"].into_iter().map(state).collect()
}
