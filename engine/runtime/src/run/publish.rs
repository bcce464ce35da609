//! Publishing: results where the user wants them, on every run, cached or not.

use std::{
    fs,
    path::{Path, PathBuf},
};

use llmflow_contract::{AnyArtifact, Failure};

/// What publishing one path did.
pub struct Publication {
    pub path: PathBuf,
    pub bytes: u64,
    /// It was there already, byte for byte.
    pub unchanged: bool,
}

/// Name of the small file that says which artifact a published folder holds.
const MARK: &str = ".llmflow-artifact";

/// Copies an artifact to `path`: its one file, or a folder with all of them. Whole or not at all.
///
/// A file is written beside its place and renamed; a folder is built beside its place and swapped in.
pub fn publish(artifact: &AnyArtifact, path: &Path, vouched: bool) -> Result<Publication, Failure> {
    let bytes = artifact.manifest.size_bytes();
    if vouched {
        return Ok(Publication { path: path.to_owned(), bytes, unchanged: true });
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| Failure::io("making", parent, &error))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| "published".into());
    let fresh = parent.join(format!(".{name}.new"));
    remove(&fresh)?;
    let single = artifact.manifest.files.len() == 1 && !path.to_string_lossy().ends_with('/') && !path.is_dir();
    if single {
        copy(&artifact.root.join(&artifact.manifest.files[0].path), &fresh)?;
    } else {
        fs::create_dir_all(&fresh).map_err(|error| Failure::io("making", &fresh, &error))?;
        for file in &artifact.manifest.files {
            let to = fresh.join(&file.path);
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(|error| Failure::io("making", folder, &error))?;
            }
            copy(&artifact.root.join(&file.path), &to)?;
        }
        let mark = fresh.join(MARK);
        fs::write(&mark, artifact.digest.hex()).map_err(|error| Failure::io("writing", &mark, &error))?;
        replace_folder(path, parent, &name)?;
    }
    fs::rename(&fresh, path).map_err(|error| Failure::io("publishing", path, &error))?;
    Ok(Publication { path: path.to_owned(), bytes, unchanged: false })
}

/// Moves an older published folder out of the way; a folder that is not ours is left alone.
fn replace_folder(path: &Path, parent: &Path, name: &str) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    let is_empty = path.read_dir().is_ok_and(|mut entries| entries.next().is_none());
    if !path.join(MARK).exists() && !is_empty {
        return Err(Failure::input(
            "publish/occupied",
            format!("`{}` holds something that LLMflow did not put there", path.display()),
        )
        .help("move it away, or publish to another path"));
    }
    let old = parent.join(format!(".{name}.old"));
    remove(&old)?;
    fs::rename(path, &old).map_err(|error| Failure::io("replacing", path, &error))?;
    remove(&old)
}

fn remove(path: &Path) -> Result<(), Failure> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::io("removing", path, &error)),
        _ => Ok(()),
    }
}

/// A copy that the user may change: writable, and a reflink where the file system can.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("publishing", to, &error);
    let mut source = fs::File::open(from).map_err(failed)?;
    let mut target = fs::File::create(to).map_err(failed)?;
    std::io::copy(&mut source, &mut target).map_err(failed)?;
    target.sync_all().map_err(failed)
}

/// Is this path what was published there last? By digest, size, time and inode.
pub fn stamp(path: &Path) -> Option<(u64, i64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let file = if path.is_dir() { path.join(MARK) } else { path.to_owned() };
    let found = fs::metadata(file).ok()?;
    Some((found.len(), found.mtime() * 1_000_000_000 + found.mtime_nsec(), found.ino()))
}
