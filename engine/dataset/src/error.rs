//! What can go wrong between rows and files.

use std::path::PathBuf;

use llmflow_contract::{Class, Failure, Place};

/// A dataset or trace that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A system call on a file failed.
    #[error("{doing} `{path}`: {source}")]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// The file is no Parquet file, is cut short, or its pages do not decode.
    #[error("`{path}` is damaged or is no Parquet file: {detail}")]
    Damaged { path: PathBuf, detail: String },
    /// A readable Parquet file whose columns are not those of its kind.
    #[error("`{path}`: {detail}")]
    Columns { path: PathBuf, detail: String },
    /// More than this reader accepts at once, refused before memory is taken.
    #[error("`{path}` declares {found} {what}, more than {limit}")]
    TooLarge { path: PathBuf, what: &'static str, found: u64, limit: u64 },
    /// The encoder refused a batch of our own.
    #[error("writing `{path}`: {detail}")]
    Encode { path: PathBuf, detail: String },
    /// Rows in are not rows kept, changed, dropped and set aside.
    #[error("{rows_in} rows in, but {accounted} accounted for ({detail})")]
    Law { rows_in: u64, accounted: u64, detail: String },
    /// A row of another kind than the dataset's.
    #[error("a {found} row was pushed into a {expected}")]
    Kind { expected: &'static str, found: &'static str },
}

impl From<DatasetError> for Failure {
    fn from(error: DatasetError) -> Self {
        let message = error.to_string();
        match error {
            DatasetError::Io { doing, path, source } => Failure::io(doing, path, &source),
            DatasetError::Damaged { path, .. } => Failure::new(Class::Input, "data/damaged", message)
                .help("if it was downloaded or copied, fetch it again")
                .at(Place { file: path, line: None, column: None }),
            DatasetError::Columns { path, .. } => {
                Failure::new(Class::Input, "data/columns", message).at(Place { file: path, line: None, column: None })
            }
            DatasetError::TooLarge { path, .. } => Failure::new(Class::Input, "data/too-large", message)
                .help("write it again with smaller row groups")
                .at(Place { file: path, line: None, column: None }),
            DatasetError::Encode { .. } | DatasetError::Law { .. } | DatasetError::Kind { .. } => Failure::bug(message),
        }
    }
}
