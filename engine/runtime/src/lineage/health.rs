//! What is wrong with a database that does not do its work, and what to type next.
//!
//! The store is the truth: whatever is wrong here, history can be made of it again, and no result is lost.

use std::fmt::Display;

use llmflow_contract::Failure;
use sqlx::migrate::MigrateError;

/// What makes the history anew.
const REBUILD: &str = "llmflow doctor --rebuild makes it anew from the store and keeps the old file; no result is lost";

/// A failure of the database. The codes are those of <https://sqlite.org/rescode.html>, without their extension but one.
pub(super) fn failed(error: sqlx::Error) -> Failure {
    const BUSY: i32 = 5;
    const READ_ONLY: i32 = 8;
    const IO: i32 = 10;
    const CORRUPT: i32 = 11;
    const FULL: i32 = 13;
    const CANNOT_OPEN: i32 = 14;
    const NOT_A_DATABASE: i32 = 26;
    /// What readers and writers share cannot grow: unlike a file that cannot, this has no code of its own for a full disk.
    const NO_ROOM_TO_SHARE: i32 = 10 | 19 << 8;
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    let code = code.map(|code| if code == NO_ROOM_TO_SHARE { FULL } else { code & 0xff });
    let failure = match code {
        Some(BUSY) => Failure::environment("lineage/locked", "the history, `lineage.db`, is locked by another process")
            .help("wait until that process is done, then run the same command again; `fuser lineage.db` names it"),
        Some(FULL) => Failure::environment("disk/full", "no space left while writing the history, `lineage.db`")
            .help("free some space, or move the state with `--home FOLDER`; then run the same command again"),
        Some(CORRUPT | NOT_A_DATABASE) => return unreadable(error),
        Some(READ_ONLY | CANNOT_OPEN) => {
            Failure::environment("lineage/database", "the history, `lineage.db`, cannot be opened for writing")
                .help("check who may write in `.llmflow`, or name another place for the state: `--home FOLDER`")
        }
        Some(IO) => Failure::environment("lineage/database", "the disk failed under the history, `lineage.db`")
            .help("check the disk that holds `.llmflow`; a network file system may not lock files as SQLite needs it"),
        // A table or a column that is not there, a value of another type: not what was written.
        _ if matches!(
            error,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_)
        ) =>
        {
            return unreadable(error);
        }
        Some(1) => return unreadable(error),
        _ => Failure::environment("lineage/database", "the history, `lineage.db`, does not answer").help(REBUILD),
    };
    failure.cause(error)
}

/// Something that this program wrote and can no longer read.
pub(super) fn unreadable(error: impl Display) -> Failure {
    Failure::environment("lineage/damaged", "the history, `lineage.db`, is damaged").cause(error).help(REBUILD)
}

/// The database cannot be brought to the form this program knows.
pub(super) fn unmigrated(error: MigrateError) -> Failure {
    match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => Failure::environment(
            "lineage/newer",
            "the history, `lineage.db`, was written by a newer LLMflow",
        )
        .cause(error)
        .help(
            "use that LLMflow; or llmflow doctor --rebuild makes a history that this one reads, and keeps the old file",
        ),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failed(error),
        error => unreadable(error),
    }
}
