//! What can go wrong in the model core: one error type, data rather than prose.

use std::path::{Path, PathBuf};

/// A failure of the model core.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file operation failed.
    #[error("{doing} `{}` failed", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A file is shorter than its own header says.
    #[error("`{}` is cut off: it needs {needed_bytes} bytes and has {found_bytes}", path.display())]
    Truncated { path: PathBuf, needed_bytes: u64, found_bytes: u64 },
    /// A file says something that cannot be.
    #[error("`{}` is malformed: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    /// A file is well formed, but of a sort that this build cannot compute with.
    #[error("`{}`: {what} `{found}` is not supported; known: {known}", path.display())]
    Unsupported { path: PathBuf, what: &'static str, found: String, known: String },
    /// A tensor that the architecture needs is absent.
    #[error("the weights have no tensor `{name}`")]
    MissingTensor { name: String },
    /// A tensor has another shape than its place in the model asks for.
    #[error("tensor `{name}` has shape {found:?}, the configuration asks for {expected:?}")]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize> },
    /// `heads` is no multiple of `kv_heads`.
    #[error("{heads} heads cannot share {kv_heads} key/value heads")]
    Heads { heads: usize, kv_heads: usize },
    /// A caller's setting is out of range, or two settings contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// The tokenizer library refused.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template cannot be parsed or refused the messages.
    #[error("chat template: {0}")]
    Template(String),
    /// Asked to stop.
    #[error("stopped as asked")]
    Cancelled,
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Result of the model core.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

impl ModelError {
    /// An I/O error with what was being done to which path.
    pub fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { doing, path, source }
    }
    /// A file that says something that cannot be.
    pub fn malformed(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.as_ref().to_owned(), reason: reason.into() }
    }
}
