//! What went wrong, in the one form that crosses processes.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// What kind of trouble it is: decides retry and exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The user's data or params. Never retried.
    Input,
    /// The machine: no disk, no network, no GPU, no pip.
    Environment,
    /// Likely to pass by itself; `after` when the other side said when.
    Transient { after: Option<Duration> },
    /// Out of memory, of the machine or of a device.
    Memory,
    /// The attempt ran longer than `timeout`.
    Timeout,
    /// The worker died by a signal.
    Lost,
    /// Asked to stop.
    Cancelled,
    /// Ours: a panic or a broken promise.
    Bug,
}

impl Class {
    /// The word used in `retry.on`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Environment => "environment",
            Self::Transient { .. } => "transient",
            Self::Memory => "memory",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
            Self::Bug => "bug",
        }
    }
}

/// A place in a user's file: `line` and `column` count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub file: PathBuf,
    pub line: Option<usize>,
    pub column: Option<usize>,
}

/// Why a stage failed: what, where, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub class: Class,
    /// Stable and greppable: `data/bad-row`.
    pub code: String,
    /// One line, lower case, no full stop, backticks round what the user typed.
    pub message: String,
    /// What to type next.
    pub help: Option<String>,
    pub at: Option<Place>,
    /// The param at fault, if one is: the planner points at it in the user's file.
    pub param: Option<String>,
    pub causes: Vec<String>,
}

impl Failure {
    pub fn new(class: Class, code: &str, message: impl Into<String>) -> Self {
        Self {
            class,
            code: code.to_owned(),
            message: message.into(),
            help: None,
            at: None,
            param: None,
            causes: Vec::new(),
        }
    }
    pub fn input(code: &str, message: impl Into<String>) -> Self {
        Self::new(Class::Input, code, message)
    }
    pub fn environment(code: &str, message: impl Into<String>) -> Self {
        Self::new(Class::Environment, code, message)
    }
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Class::Bug, "bug", message)
    }
    pub fn cancelled() -> Self {
        Self::new(Class::Cancelled, "run/cancelled", "stopped as asked")
    }

    /// An I/O error on a path; a full disk, a quota or a missing permission is the environment's.
    pub fn io(doing: &str, path: impl Into<PathBuf>, source: &std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        let path = path.into();
        let shown = path.display().to_string();
        let failure = match source.kind() {
            E::StorageFull | E::QuotaExceeded => {
                Self::environment("disk/full", format!("no space left while {doing} `{shown}`"))
                    .help("free some space, or move the state with `--home FOLDER`; then run the same command again")
            }
            E::NotFound => Self::input("file/missing", format!("`{shown}` does not exist ({doing})")),
            E::IsADirectory => Self::input("file/folder", format!("`{shown}` is a folder, not a file ({doing})")),
            E::PermissionDenied => Self::environment("file/permission", format!("no permission for {doing} `{shown}`"))
                .help(format!("`ls -ld {shown}` shows whose it is and who may")),
            E::ReadOnlyFilesystem => {
                Self::environment("file/permission", format!("a read-only file system forbids {doing} `{shown}`"))
                    .help("keep state where it can be written: `--home FOLDER`")
            }
            _ => Self::environment("file/io", format!("{doing} `{shown}` failed")),
        };
        failure.cause(source).at(Place { file: path, line: None, column: None })
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
    pub fn at(mut self, place: Place) -> Self {
        self.at = Some(place);
        self
    }
    /// Names the param at fault: `keep.min_overlap` for one inside another.
    pub fn param(mut self, name: &str) -> Self {
        self.param = Some(name.to_owned());
        self
    }
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_environments_and_a_missing_file_the_users() {
        let full = Failure::io("writing", "x", &std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!((full.class, full.code.as_str()), (Class::Environment, "disk/full"));
        let missing = Failure::io("reading", "x", &std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(missing.class, Class::Input);
    }

    #[test]
    fn a_failure_survives_the_way_to_another_process() {
        let failure = Failure::new(Class::Transient { after: Some(Duration::from_secs(3)) }, "net", "m").help("h");
        let text = serde_json::to_string(&failure).unwrap();
        assert_eq!(serde_json::from_str::<Failure>(&text).unwrap(), failure);
    }
}
