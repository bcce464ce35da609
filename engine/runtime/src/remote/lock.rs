//! `llmflow.lock`: what remote sources were found to be, beside the pipelines that name them.
//!
//! JSON below a comment, so also YAML; sorted, a file a line, so that a change reads as one in a review.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use llmflow_contract::{Failure, Locked, Locks, Place};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// Its name, in the pipeline file's folder.
pub const FILE: &str = "llmflow.lock";
/// Largest that is read, in bytes.
const MAX_BYTES: u64 = 256 << 20;
const FORMAT: u32 = 1;
const HEADER: &str = "\
# What the remote sources of the pipelines in this folder were found to hold. Written by llmflow; keep it with them.
# `llmflow run --refresh` asks anew; `llmflow run --locked` refuses to change it.
";

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    sources: Locks,
}

/// A lock file as far as it is known, and what a command has added to it.
pub struct Lock {
    path: PathBuf,
    pub sources: Locks,
    /// Names of sources that the file has otherwise or not at all.
    changed: BTreeSet<String>,
}

impl Lock {
    /// # Errors
    /// `lock/malformed`, with the line; no permission to read.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(FILE);
        Ok(Self { sources: read(&path)?, path, changed: BTreeSet::new() })
    }

    /// Learns what a part of a source was found to be.
    pub fn learn(&mut self, source: &str, found: Locked) {
        let known = self.sources.entry(source.to_owned()).or_default();
        let before = known.clone();
        known.merge(found);
        if *known != before {
            self.changed.insert(source.to_owned());
        }
    }

    /// Forgets a source, so that it is asked anew.
    pub fn forget(&mut self, source: &str) {
        self.sources.remove(source);
    }

    /// Writes what was learned. What another process wrote meanwhile about other sources stays.
    pub fn save(&mut self) -> Result<(), Failure> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let _alone = alone(&self.path).map_err(|error| Failure::io("locking", &self.path, &error))?;
        let mut sources = read(&self.path)?;
        for name in std::mem::take(&mut self.changed) {
            if let Some(locked) = self.sources.get(&name) {
                sources.insert(name, locked.clone());
            }
        }
        let content = Content { format: FORMAT, sources };
        let body = serde_json::to_string_pretty(&content).map_err(|error| Failure::bug(format!("lock: {error}")))?;
        write(&self.path, &format!("{HEADER}{body}\n")).map_err(|error| Failure::io("writing", &self.path, &error))
    }
}

fn read(path: &Path) -> Result<Locks, Failure> {
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Locks::new()),
        Err(error) => return Err(Failure::io("reading", path, &error)),
    };
    let malformed = |line: Option<usize>, why: String| {
        Failure::input("lock/malformed", format!("`{}` cannot be read: {why}", path.display()))
            .at(Place { file: path.to_owned(), line, column: None })
            .help("restore it from version control, or remove it to have every source resolved anew")
    };
    if size > MAX_BYTES {
        return Err(malformed(None, format!("it has {size} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| Failure::io("reading", path, &error))?;
    let above = text.lines().take_while(|line| line.starts_with('#')).count();
    let body: String = text.lines().skip(above).flat_map(|line| [line, "\n"]).collect();
    let content: Content =
        serde_json::from_str(&body).map_err(|error| malformed(Some(above + error.line()), error.to_string()))?;
    match content.format {
        FORMAT => Ok(content.sources),
        other => Err(malformed(None, format!("it has the format {other}, and this program knows {FORMAT}"))),
    }
}

/// One writer at a time: the folder is what stays while the file in it is replaced.
fn alone(path: &Path) -> io::Result<Flock<fs::File>> {
    let folder =
        fs::File::open(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Whole or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".llmflow.lock.").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    #[cfg(unix)]
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use llmflow_contract::{FileDigest, LockedFile};

    use super::*;

    fn locked(revision: &str, part: &str) -> Locked {
        let file = LockedFile { size_bytes: 3, digest: FileDigest::Sha256("ab".into()) };
        Locked { revision: revision.into(), selected: [part.into()].into(), files: [(part.into(), file)].into() }
    }

    #[test]
    fn what_is_written_reads_back_and_looks_as_it_always_did() {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = Lock::read(folder.path()).unwrap();
        lock.save().unwrap();
        assert!(!folder.path().join(FILE).exists(), "nothing learned, nothing written");
        lock.learn("hf:b/b@main", locked("2", "y"));
        lock.learn("hf:a/a@main", locked("1", "x"));
        lock.save().unwrap();
        insta::assert_snapshot!(fs::read_to_string(folder.path().join(FILE)).unwrap(), @r#"
        # What the remote sources of the pipelines in this folder were found to hold. Written by llmflow; keep it with them.
        # `llmflow run --refresh` asks anew; `llmflow run --locked` refuses to change it.
        {
          "format": 1,
          "sources": {
            "hf:a/a@main": {
              "revision": "1",
              "selected": [
                "x"
              ],
              "files": {
                "x": {
                  "size_bytes": 3,
                  "sha256": "ab"
                }
              }
            },
            "hf:b/b@main": {
              "revision": "2",
              "selected": [
                "y"
              ],
              "files": {
                "y": {
                  "size_bytes": 3,
                  "sha256": "ab"
                }
              }
            }
          }
        }
        "#);
        assert_eq!(Lock::read(folder.path()).unwrap().sources, lock.sources);
    }

    #[test]
    fn two_that_write_at_once_keep_each_others_sources() {
        let folder = tempfile::tempdir().unwrap();
        let (mut one, mut two) = (Lock::read(folder.path()).unwrap(), Lock::read(folder.path()).unwrap());
        one.learn("a", locked("1", "x"));
        two.learn("b", locked("1", "x"));
        one.save().unwrap();
        two.save().unwrap();
        assert_eq!(Lock::read(folder.path()).unwrap().sources.len(), 2);
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        for (text, line) in [("", 1), ("# a\n{\n  oops\n}", 3), ("<<<<<<< mine\n{}", 1), ("{\"format\": 1}", 1)] {
            fs::write(folder.path().join(FILE), text).unwrap();
            let failure = Lock::read(folder.path()).err().unwrap();
            assert_eq!((failure.code.as_str(), failure.at.unwrap().line), ("lock/malformed", Some(line)), "{text}");
        }
        fs::write(folder.path().join(FILE), "{\"format\": 2, \"sources\": {}}").unwrap();
        assert!(Lock::read(folder.path()).err().unwrap().message.contains("format 2"));
    }
}
