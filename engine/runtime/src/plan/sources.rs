//! The content of what stages read from outside.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use llmflow_contract::{Digest, Failure, Source};

use crate::store::Vouched;

/// What a stage reads from outside, as its key was made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sourced {
    /// By param, as the key has it.
    pub contents: Vec<(String, String)>,
    /// Every file, in the order of its stage's sources.
    pub files: Vec<(PathBuf, Digest)>,
}

/// Digests of source files, each looked at once a plan, and read only where it changed.
pub struct Sources<'a> {
    vouched: &'a Vouched,
    seen: Mutex<HashMap<PathBuf, Digest>>,
    /// What the last stage read: the next one of a matrix nearly always reads the same.
    last: Mutex<Option<(Vec<Source>, Arc<Sourced>)>>,
}

impl<'a> Sources<'a> {
    pub fn new(vouched: &'a Vouched) -> Self {
        Self { vouched, seen: Mutex::default(), last: Mutex::default() }
    }

    /// The content of a stage's sources; nothing for one that reads nothing from outside.
    ///
    /// # Errors
    /// A file that cannot be read, with the param that names it.
    pub fn read(&self, sources: &[Source]) -> Result<Option<Arc<Sourced>>, Failure> {
        if sources.is_empty() {
            return Ok(None);
        }
        if let Some((_, sourced)) = self.last().as_ref().filter(|(last, _)| last == sources) {
            return Ok(Some(sourced.clone()));
        }
        let (mut contents, mut files): (BTreeMap<&str, Vec<String>>, _) = (BTreeMap::new(), Vec::new());
        for source in sources {
            match source {
                Source::Pinned { param, pin } => contents.entry(param).or_default().push(pin.clone()),
                Source::File { param, path, name } => {
                    let list = contents.entry(param).or_default();
                    for (inner, file) in files_of(path)? {
                        let digest = self.digest_of(&file).map_err(|failure| failure.param(param))?;
                        let name = inner.or_else(|| name.clone());
                        list.push(name.map_or_else(|| digest.hex(), |name| format!("{name}={}", digest.hex())));
                        files.push((file, digest));
                    }
                }
            }
        }
        let contents = contents.into_iter().map(|(param, list)| (param.to_owned(), list.join(" "))).collect();
        let sourced = Arc::new(Sourced { contents, files });
        *self.last() = Some((sources.to_vec(), sourced.clone()));
        Ok(Some(sourced))
    }

    fn last(&self) -> MutexGuard<'_, Option<(Vec<Source>, Arc<Sourced>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn digest_of(&self, file: &Path) -> Result<Digest, Failure> {
        if let Some(digest) = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(file) {
            return Ok(*digest);
        }
        let (digest, _) = self.vouched.digest_of(file)?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_owned(), digest);
        Ok(digest)
    }
}

/// A file, or every file directly in a folder with its name.
pub fn files_of(path: &Path) -> Result<Vec<(Option<String>, PathBuf)>, Failure> {
    if !path.is_dir() {
        return Ok(vec![(None, path.to_owned())]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| Failure::io("listing", path, &error))? {
        let file = entry.map_err(|error| Failure::io("listing", path, &error))?.path();
        if file.is_file() {
            files.push((file.file_name().map(|name| name.to_string_lossy().into_owned()), file));
        }
    }
    files.sort();
    Ok(files)
}
