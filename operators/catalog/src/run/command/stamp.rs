//! Whether a program left its inputs as they were: their files are those that other stages read.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use llmflow_contract::{AnyArtifact, Digest, Failure, FileEntry, Port};

/// One file of an input.
pub(super) struct Stamped {
    /// As the command names it.
    name: String,
    path: PathBuf,
    digest: Digest,
    before: Stamp,
}

impl Stamped {
    /// The files that a program finds at `given`: a folder's, or the one that it is.
    ///
    /// # Errors
    /// A file that is not there.
    pub fn all(port: &Port, artifact: &AnyArtifact, given: &Path) -> Result<Vec<Self>, Failure> {
        let is_folder = given.is_dir();
        let files = artifact.manifest.files.iter();
        let files = files.filter(|file| is_folder || artifact.folder().join(&file.path) == *given);
        files
            .map(|FileEntry { path: inside, digest, .. }| {
                let (name, path) = match is_folder {
                    true => (format!("{{in.{port}}}/{inside}"), given.join(inside)),
                    false => (format!("{{in.{port}}}"), given.to_owned()),
                };
                let before = Stamp::of(&path).map_err(|error| Failure::io("reading", &path, &error))?;
                Ok(Self { name, path, digest: *digest, before })
            })
            .collect()
    }

    /// # Errors
    /// `command/wrote-input` if the file is another than it was.
    pub fn check(&self) -> Result<(), Failure> {
        // A link beside it, made by the engine, changes its stamp too: what it holds decides.
        let is_same = || Digest::of_file(&self.path).is_ok_and(|(digest, _)| digest == self.digest);
        if Stamp::of(&self.path).is_ok_and(|now| now == self.before) || is_same() {
            return Ok(());
        }
        Err(wrote(&self.name, "changed"))
    }
}

/// # Errors
/// `command/wrote-input` if a folder at `given` holds what the artifact does not.
pub(super) fn check_added(port: &Port, artifact: &AnyArtifact, given: &Path) -> Result<(), Failure> {
    if !given.is_dir() {
        return Ok(());
    }
    match added(artifact, given)?.first() {
        Some(path) => Err(wrote(&format!("{{in.{port}}}/{}", path.display()), "added")),
        None => Ok(()),
    }
}

/// What a folder holds beside the artifact's files; of a folder that is not the artifact's, itself alone.
fn added(artifact: &AnyArtifact, given: &Path) -> Result<BTreeSet<PathBuf>, Failure> {
    let files: BTreeSet<&Path> = artifact.manifest.files.iter().map(|file| Path::new(&file.path)).collect();
    let folders: BTreeSet<&Path> = files.iter().flat_map(|file| file.ancestors().skip(1)).collect();
    let (mut added, mut open) = (BTreeSet::new(), vec![PathBuf::new()]);
    while let Some(folder) = open.pop() {
        let at = given.join(&folder);
        let failed = |error: io::Error| Failure::io("listing", &at, &error);
        for entry in fs::read_dir(&at).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = folder.join(entry.file_name());
            match entry.file_type().map_err(failed)?.is_dir() {
                true if folders.contains(path.as_path()) => open.push(path),
                false if files.contains(path.as_path()) => {}
                // Python's, made anew from the files beside it: it says nothing that these do not.
                _ if path.iter().any(|part| part == "__pycache__") => {}
                _ => {
                    added.insert(path);
                }
            }
        }
    }
    Ok(added)
}

fn wrote(name: &str, how: &str) -> Failure {
    let message = format!("`{name}` was {how} while the command ran: inputs are read-only");
    Failure::input("command/wrote-input", message)
        .param("command")
        .help("copy the input first, with `cp -rL` to `{scratch}`, and write to the copy")
}

/// What changes when a file is written to.
#[derive(PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of a file, or of where a link leads.
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|meta| Self {
            device: meta.dev(),
            inode: meta.ino(),
            size_bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}
