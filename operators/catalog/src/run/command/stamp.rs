//! Whether a program left its inputs as they were: their files are those that other stages read.

use std::{
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
        let message = format!("`{}` was changed while the command ran: inputs are read-only", self.name);
        Err(Failure::input("command/wrote-input", message)
            .param("command")
            .help("copy it first, with `cp -rL` to `{scratch}`, and write to the copy"))
    }
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
