//! Publishing: results where the user wants them, on every run, cached or not.

use std::{fs, path::Path};

use llmflow_contract::{AnyArtifact, Digest, Failure, FileEntry, Manifest};
use llmflow_dataset::{Dataset, RowFile};

/// Name of the small file that says which artifact a published folder holds.
const MARK: &str = ".llmflow-artifact";

/// The artifact as it is published at `path`: rows as JSONL or as one Parquet file where its ending asks for that, all else as
/// it is. What has to be written first is written into `scratch`.
pub fn shaped(artifact: AnyArtifact, path: &Path, scratch: &Path) -> Result<AnyArtifact, Failure> {
    let form = RowFile::of(artifact.kind(), path);
    let is_so_already = form == Some(RowFile::Parquet) && artifact.manifest.files.len() == 1;
    let Some(form) = form.filter(|_| !is_so_already) else { return Ok(artifact) };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file = scratch.join(&name);
    form.write(&Dataset::open(&artifact)?, &file)?;
    let (digest, size_bytes) = Digest::of_file(&file).map_err(|error| Failure::io("reading", &file, &error))?;
    let mut shaped = artifact;
    shaped.manifest.files = vec![FileEntry { path: name, digest, size_bytes }];
    shaped.root = scratch.to_owned();
    Ok(shaped)
}

/// Copies an artifact to `path`: its one file, or a folder with all of them. Whole or not at all.
///
/// A file is written beside its place and renamed; a folder is built beside its place and swapped in.
pub fn publish(artifact: &AnyArtifact, path: &Path) -> Result<(), Failure> {
    if path.is_dir() && RowFile::of(artifact.kind(), path).is_some() {
        check_is_ours(path)?; // a folder of parts, from when there was no other form
        remove(path)?;
    }
    let single = artifact.manifest.files.len() == 1 && !path.to_string_lossy().ends_with('/') && !path.is_dir();
    if !single {
        check_is_ours(path)?;
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| Failure::io("making", parent, &error))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| "published".into());
    let fresh = parent.join(format!(".{name}.new"));
    remove(&fresh)?;
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
    }
    swap_in(&fresh, path)?;
    remove(&fresh) // what was there before
}

/// Does `path` hold the bytes of this artifact: as its one file, or as a folder that has all of them?
pub fn holds(artifact: &AnyArtifact, path: &Path) -> std::io::Result<bool> {
    let is = |file: &FileEntry, path: &Path| -> std::io::Result<bool> {
        Ok(path.is_file() && Digest::of_file(path)?.0 == file.digest)
    };
    match artifact.manifest.files.as_slice() {
        [file] if !path.is_dir() => is(file, path),
        files => files.iter().try_fold(true, |all, file| Ok(all && is(file, &path.join(&file.path))?)),
    }
}

/// Puts `fresh` in the place of `path`; a folder that was there takes the place of `fresh`. There is no moment without
/// either where the file system can exchange the two.
fn swap_in(fresh: &Path, path: &Path) -> Result<(), Failure> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let failed = |error: std::io::Error| Failure::io("publishing", path, &error);
    if !path.is_dir() || !fresh.is_dir() {
        return fs::rename(fresh, path).map_err(failed);
    }
    match renameat2(AT_FDCWD, fresh, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {
            let old = fresh.with_extension("old");
            remove(&old)?; // of a run that was killed between the two
            fs::rename(path, &old).and_then(|()| fs::rename(fresh, path)).map_err(failed)?;
            fs::rename(&old, fresh).map_err(failed)
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// A folder that LLMflow did not put there is left alone.
fn check_is_ours(path: &Path) -> Result<(), Failure> {
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
    Ok(())
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

/// What tells whether `path` still is what was published there: bytes, newest time in ns, and sum of the inodes of
/// an artifact's files. None if one is missing.
pub fn stamp(manifest: &Manifest, path: &Path) -> Option<(u64, i64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = manifest.files.iter().map(|file| path.join(&file.path)).collect();
        files.push(path.join(MARK));
    }
    let (mut bytes, mut newest, mut inodes) = (0, i64::MIN, 0_u64);
    for file in files {
        let found = fs::metadata(file).ok()?;
        bytes += found.len();
        newest = newest.max(found.mtime() * 1_000_000_000 + found.mtime_nsec());
        inodes = inodes.wrapping_add(found.ino()) & (i64::MAX as u64); // SQLite's integers have a sign
    }
    Some((bytes, newest, inodes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use llmflow_contract::{Facts, Kind};

    use super::*;

    fn artifact(root: &Path, text: &str) -> AnyArtifact {
        fs::create_dir_all(root).unwrap();
        let file = |name: &str| {
            fs::write(root.join(name), text).unwrap();
            FileEntry { path: name.into(), digest: Digest::of(text.as_bytes()), size_bytes: text.len() as u64 }
        };
        let files = vec![file("a.txt"), file("b.txt")];
        let facts = Facts::default();
        let manifest = Manifest { kind: Kind::new("model"), files, facts, references: BTreeMap::new() };
        let (digest, root) = (manifest.digest(), root.to_owned());
        AnyArtifact { digest, manifest, root, references: BTreeMap::new() }
    }

    #[test]
    fn a_published_folder_is_replaced_whole_and_every_change_in_it_is_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out/model");
        let first = artifact(&scratch.path().join("first"), "one");
        publish(&first, &out).unwrap();
        let stamped = stamp(&first.manifest, &out).unwrap();
        assert_eq!(stamp(&first.manifest, &out), Some(stamped));
        fs::write(out.join("b.txt"), "edited by hand").unwrap();
        assert_ne!(stamp(&first.manifest, &out), Some(stamped));
        fs::remove_file(out.join("a.txt")).unwrap();
        assert_eq!(stamp(&first.manifest, &out), None);
        let second = artifact(&scratch.path().join("second"), "two");
        publish(&second, &out).unwrap();
        assert_eq!(fs::read_to_string(out.join("b.txt")).unwrap(), "two");
        let left: Vec<_> = fs::read_dir(scratch.path().join("out")).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing is left beside it: {left:?}");
        fs::remove_file(out.join(MARK)).unwrap();
        assert_eq!(publish(&first, &out).err().unwrap().code, "publish/occupied");
        assert_eq!(fs::read_to_string(out.join("b.txt")).unwrap(), "two");
    }
}
