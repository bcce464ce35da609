//! What a stage reads from a remote place, and what that place was found to hold.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A part of a remote source, as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its name in `llmflow.lock`: `hf:owner/name@main`.
    pub source: String,
    /// The part that is read: `train/*.parquet`.
    pub select: String,
}

/// Sources by name, each as it was found: the content of `llmflow.lock`.
pub type Locks = BTreeMap<String, Locked>;

/// What a remote source was found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// What names this state of it for ever, such as a commit.
    pub revision: String,
    /// The parts whose files are all listed.
    pub selected: BTreeSet<String>,
    /// By path in the source.
    pub files: BTreeMap<String, LockedFile>,
}

/// One remote file, fixed by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedFile {
    pub size_bytes: u64,
    #[serde(flatten)]
    pub digest: FileDigest,
}

/// A digest that the source itself states, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileDigest {
    Sha256(String),
    /// Of a git blob: the SHA-1 of `blob SIZE\0` and the content.
    GitSha1(String),
}

impl FileDigest {
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitSha1(hex) => hex,
        }
    }
    /// Its name in a message: `SHA-256`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::GitSha1(_) => "git SHA-1",
        }
    }
}

impl Locked {
    /// Adds what was found of another part. Files of another revision are of no use beside it.
    pub fn merge(&mut self, found: Self) {
        if self.revision != found.revision {
            *self = found;
            return;
        }
        self.selected.extend(found.selected);
        self.files.extend(found.files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(revision: &str, part: &str) -> Locked {
        let file = LockedFile { size_bytes: 3, digest: FileDigest::Sha256("ab".into()) };
        Locked { revision: revision.into(), selected: [part.into()].into(), files: [(part.into(), file)].into() }
    }

    #[test]
    fn parts_of_one_revision_stand_together_and_another_revision_replaces_them() {
        let mut found = locked("1", "a");
        found.merge(locked("1", "b"));
        assert_eq!(found.files.len(), 2);
        found.merge(locked("2", "c"));
        assert_eq!(found, locked("2", "c"));
    }

    #[test]
    fn a_file_reads_as_its_size_and_the_digest_by_name() {
        let file = locked("1", "a").files["a"].clone();
        let text = serde_json::to_string(&file).unwrap();
        assert_eq!(text, r#"{"size_bytes":3,"sha256":"ab"}"#);
        assert_eq!(serde_json::from_str::<LockedFile>(&text).unwrap(), file);
    }
}
