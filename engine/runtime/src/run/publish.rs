//! Publishing: results where the user wants them, on every run, cached or not.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use llmflow_contract::{AnyArtifact, Digest, Failure, FileEntry, Manifest};
use llmflow_dataset::{Dataset, RowFile};
use rustix::fs::XattrFlags;
use serde::{Deserialize, Serialize};

use crate::store::is_one_file;

/// Name of the small file that says which artifact a published folder holds.
const MARK: &str = ".llmflow-artifact";
/// The same of a single file, as an attribute of it where the file system keeps any: it outlives this home and a move.
const ATTRIBUTE: &str = "user.llmflow.artifact";
/// The bits of an inode that are noted: SQLite's integers have a sign.
const INODE: u64 = i64::MAX as u64;

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
    shaped.manifest.files = vec![FileEntry::new(name, digest, size_bytes)];
    shaped.root = scratch.to_owned();
    Ok(shaped)
}

/// Copies an artifact to `path`, as one file or as a folder; see [`is_one_file`].
/// Whole or not at all. A link is followed. `is_known`: the file that lies there is one that LLMflow published, though neither
/// an attribute nor the same bytes say so; `before`: what it published, where the folder itself does not say which files that
/// were.
///
/// A file is written beside its place and renamed; a folder is built beside its place and swapped in, with what others
/// put into the one that was there.
///
/// # Errors
/// `publish/occupied` if something else lies there.
pub fn publish(artifact: &AnyArtifact, path: &Path, is_known: bool, before: Option<&Manifest>) -> Result<(), Failure> {
    let (asked, path) = (path, &followed(path));
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|| "published".into());
    let (fresh, old) = (parent.join(format!(".{name}.llmflow-new")), parent.join(format!(".{name}.llmflow-old")));
    if fs::symlink_metadata(path).is_err() && (old.join(MARK).exists() || is_marked(&old)) {
        fs::rename(&old, path).map_err(|error| Failure::io("restoring", path, &error))?; // of a run that was killed
    }
    let found = check_is_ours(artifact, path, is_known, before)?;
    fs::create_dir_all(parent).map_err(|error| Failure::io("making", parent, &error))?;
    remove(&fresh)?;
    let built = match is_one_file(&artifact.manifest, asked) {
        true => build_file(artifact, &fresh),
        false => build_folder(artifact, &fresh, path, &found),
    };
    if let Err(failure) = built.and_then(|()| swap_in(&fresh, path, &old)) {
        let _ = remove(&fresh); // the failure that counts is the one before
        return Err(failure);
    }
    let _ = sync(parent);
    // What was there before; what came to it meanwhile goes with the path.
    if fresh.is_dir() {
        for late in files_below(&fresh).map_err(|error| Failure::io("reading", &fresh, &error))?.files {
            let is_known = late == Path::new(MARK) || found.ours.contains(&late) || found.theirs.files.contains(&late);
            if !is_known && !path.join(&late).exists() {
                let to = within(path, &late)?;
                fs::rename(fresh.join(&late), &to).map_err(|error| Failure::io("keeping", to, &error))?;
            }
        }
    }
    remove(&fresh)
}

fn build_file(artifact: &AnyArtifact, fresh: &Path) -> Result<(), Failure> {
    copy(artifact, &artifact.manifest.files[0], fresh)?;
    let _ = rustix::fs::setxattr(fresh, ATTRIBUTE, artifact.digest.hex().as_bytes(), XattrFlags::empty());
    Ok(())
}

fn build_folder(artifact: &AnyArtifact, fresh: &Path, path: &Path, found: &Found) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("making", fresh, &error);
    fs::create_dir_all(fresh).map_err(failed)?;
    for file in &artifact.manifest.files {
        copy(artifact, file, &within(fresh, Path::new(&file.path))?)?;
    }
    for folder in &found.theirs.folders {
        fs::create_dir_all(fresh.join(folder)).map_err(failed)?;
    }
    for file in &found.theirs.files {
        keep(&path.join(file), &within(fresh, file)?)?;
    }
    let files = artifact.manifest.files.iter().map(|file| file.path.clone()).collect();
    let mark = serde_json::to_vec(&Mark { artifact: artifact.digest, files });
    let mark = mark.map_err(|error| Failure::bug(format!("a mark is plain data: {error}")))?;
    let place = fresh.join(MARK);
    let written = fs::File::create(&place).and_then(|mut file| file.write_all(&mark).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::io("writing", place, &error))?;
    if let Ok(meta) = fs::metadata(path)
        && meta.is_dir()
    {
        fs::set_permissions(fresh, meta.permissions()).map_err(failed)?;
    }
    sync(fresh).map_err(failed)
}

fn sync(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// What a published folder holds.
#[derive(Serialize, Deserialize)]
struct Mark {
    artifact: Digest,
    /// What LLMflow put there.
    files: Vec<String>,
}

/// What lies at a path that is published anew.
#[derive(Default)]
struct Found {
    ours: BTreeSet<PathBuf>,
    theirs: Below,
}

/// The artifact that a published folder says it holds.
pub fn marked(path: &Path) -> Option<Digest> {
    let text = fs::read_to_string(followed(path).join(MARK)).ok()?;
    match serde_json::from_str(&text) {
        Ok(Mark { artifact, .. }) => Some(artifact),
        Err(_) => text.trim().parse().ok(), // all that an older one says
    }
}

/// Where a path leads that may be a link.
pub fn followed(path: &Path) -> PathBuf {
    let path: PathBuf = path.components().collect(); // without a `/` at its end
    match fs::read_link(&path) {
        Ok(to) => path.canonicalize().unwrap_or_else(|_| path.parent().unwrap_or(Path::new("")).join(to)),
        Err(_) => path,
    }
}

/// A place in a folder, with the folders on the way to it.
fn within(folder: &Path, path: &Path) -> Result<PathBuf, Failure> {
    let place = folder.join(path);
    let parent = place.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(|error| Failure::io("making", parent, &error))?;
    Ok(place)
}

/// Does `path` hold the bytes of this artifact: as its one file, or as a folder that has all of them?
pub fn holds(artifact: &AnyArtifact, path: &Path) -> std::io::Result<bool> {
    let is = |file: &FileEntry, path: &Path| -> std::io::Result<bool> {
        Ok(path.is_file() && Digest::of_file(path)?.0 == file.digest)
    };
    let mut files = artifact.manifest.files.iter();
    match is_one_file(&artifact.manifest, path) {
        true => files.try_fold(true, |all, file| Ok(all && is(file, path)?)),
        false => files.try_fold(true, |all, file| Ok(all && is(file, &path.join(&file.path))?)),
    }
}

/// Puts `fresh` in the place of `path`; where either is a folder, what was there takes the place of `fresh`. There is no
/// moment without either where the file system can exchange the two; else `old` holds what was there for one.
fn swap_in(fresh: &Path, path: &Path, old: &Path) -> Result<(), Failure> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let failed = |error: std::io::Error| Failure::io("publishing", path, &error);
    if !path.exists() || !path.is_dir() && !fresh.is_dir() {
        return fs::rename(fresh, path).map_err(failed);
    }
    match renameat2(AT_FDCWD, fresh, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {
            remove(old)?; // `path` is there, so nothing waits to be put back
            fs::rename(path, old).and_then(|()| fs::rename(fresh, path)).map_err(failed)?;
            fs::rename(old, fresh).map_err(failed)
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// What LLMflow and others put at a path. What LLMflow did not publish at all is left alone.
fn check_is_ours(
    artifact: &AnyArtifact,
    path: &Path,
    is_known: bool,
    before: Option<&Manifest>,
) -> Result<Found, Failure> {
    let failed = |error: std::io::Error| Failure::io("reading", path, &error);
    if !path.is_dir() {
        let is_ours = is_known || !path.exists() || is_marked(path) || holds(artifact, path).map_err(failed)?;
        return if is_ours { Ok(Found::default()) } else { Err(occupied(path)) };
    }
    let mut below = files_below(path).map_err(failed)?;
    let ours: Vec<String> = match fs::read(path.join(MARK)) {
        Ok(bytes) => match (serde_json::from_slice::<Mark>(&bytes), before) {
            (Ok(mark), _) => mark.files,
            (Err(_), Some(before)) => before.files.iter().map(|file| file.path.clone()).collect(),
            (Err(_), None) => return Err(occupied(path)),
        },
        Err(_) if below.files.is_empty() => Vec::new(),
        Err(_) => return Err(occupied(path)),
    };
    let ours: BTreeSet<PathBuf> = ours.into_iter().map(PathBuf::from).collect();
    below.files.retain(|file| file != Path::new(MARK) && !ours.contains(file));
    below.folders.retain(|folder| !ours.iter().any(|file| file.starts_with(folder)));
    match artifact.manifest.files.iter().find(|new| below.files.contains(Path::new(&new.path))) {
        Some(new) => Err(occupied(&path.join(&new.path))),
        None => Ok(Found { ours, theirs: below }),
    }
}

/// Does a file say itself that LLMflow published it?
pub fn is_marked(path: &Path) -> bool {
    rustix::fs::getxattr(path, ATTRIBUTE, &mut [0_u8; 128]).is_ok()
}

/// Is this the very file that had this inode when its time was `mtime_ns`, edited or not? One that came to the inode of a file
/// that was removed was born later; where nothing tells when, it is none.
pub fn is_same_file(path: &Path, mtime_ns: i64, inode: u64) -> bool {
    let Ok(found) = fs::metadata(path) else { return false };
    let born = found.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    found.ino() & INODE == inode && born.is_some_and(|born| born.as_nanos() as i128 <= i128::from(mtime_ns))
}

/// What is said where something of somebody else lies.
pub fn occupied(path: &Path) -> Failure {
    let message = format!("`{}` holds something that LLMflow did not put there", path.display());
    Failure::input("publish/occupied", message)
        .help("move it away, or publish to another path; then run the same again")
}

/// What lies below a folder, as paths from it: files with links, and folders.
#[derive(Default)]
struct Below {
    files: BTreeSet<PathBuf>,
    folders: Vec<PathBuf>,
}

fn files_below(folder: &Path) -> std::io::Result<Below> {
    let (mut found, mut open) = (Below::default(), vec![PathBuf::new()]);
    while let Some(below) = open.pop() {
        for entry in fs::read_dir(folder.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                found.folders.push(path.clone());
                open.push(path);
            } else {
                found.files.insert(path);
            }
        }
    }
    Ok(found)
}

/// Puts the same file, or a link that leads to the same place, elsewhere on this file system.
fn keep(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("keeping", from, &error);
    match fs::read_link(from) {
        Ok(target) => std::os::unix::fs::symlink(target, to).map_err(failed),
        Err(_) => {
            let copied = |_| fs::copy(from, to).and_then(|_| fs::File::open(to)?.sync_all());
            fs::hard_link(from, to).or_else(copied).map_err(failed)
        }
    }
}

fn remove(path: &Path) -> Result<(), Failure> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::io("removing", path, &error)),
        _ => Ok(()),
    }
}

/// A copy that the user may change: writable, and a reflink where the file system can. Whoever may read what may be executed
/// may execute it.
fn copy(artifact: &AnyArtifact, file: &FileEntry, to: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("publishing", to, &error);
    let mut source = fs::File::open(artifact.root.join(&file.path)).map_err(failed)?;
    let mut target = fs::File::create(to).map_err(failed)?;
    std::io::copy(&mut source, &mut target).map_err(failed)?;
    if file.executable {
        let mode = target.metadata().map_err(failed)?.permissions().mode();
        target.set_permissions(fs::Permissions::from_mode(mode | (mode & 0o444) >> 2)).map_err(failed)?;
    }
    target.sync_all().map_err(failed)
}

/// What tells whether `path` still is what was published there: bytes, newest time in ns, and sum of the inodes of
/// an artifact's files. None if one is missing.
pub fn stamp(manifest: &Manifest, path: &Path) -> Option<(u64, i64, u64)> {
    let files = match is_one_file(manifest, path) {
        true => vec![path.to_owned()],
        false => manifest.files.iter().map(|file| path.join(&file.path)).chain([path.join(MARK)]).collect(),
    };
    let (mut bytes, mut newest, mut inodes) = (0, i64::MIN, 0_u64);
    for file in files {
        let found = fs::metadata(file).ok()?;
        bytes += found.len();
        newest = newest.max(found.mtime() * 1_000_000_000 + found.mtime_nsec());
        inodes = inodes.wrapping_add(found.ino()) & INODE;
    }
    Some((bytes, newest, inodes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use llmflow_contract::{Facts, Kind};

    use super::*;

    fn artifact(root: &Path, text: &str) -> AnyArtifact {
        artifact_of("model", &["a.txt", "b.txt"], root, text)
    }

    fn artifact_of(kind: &'static str, names: &[&str], root: &Path, text: &str) -> AnyArtifact {
        fs::create_dir_all(root).unwrap();
        let file = |name: &str| {
            fs::write(root.join(name), text).unwrap();
            FileEntry::new(name, Digest::of(text.as_bytes()), text.len() as u64)
        };
        let files = names.iter().map(|name| file(name)).collect();
        let facts = Facts::default();
        let manifest = Manifest { kind: Kind::new(kind), files, facts, references: BTreeMap::new() };
        let (digest, root) = (manifest.digest(), root.to_owned());
        AnyArtifact { digest, manifest, root, references: BTreeMap::new(), label: None }
    }

    #[test]
    fn what_is_a_folder_by_its_kind_is_one_whatever_it_holds_and_what_lay_there() {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let one = artifact_of("files", &["a.txt"], &scratch.path().join("one"), "one");
        let two = artifact_of("files", &["a.txt", "b.txt"], &scratch.path().join("two"), "two");
        // As an older LLMflow published its one file.
        build_file(&one, &out).unwrap();
        assert_eq!(stamp(&one.manifest, &out), None, "it is published anew");
        for (artifact, expected) in [(&one, 1), (&two, 2), (&one, 1)] {
            publish(artifact, &out, true, None).unwrap();
            assert!(stamp(&artifact.manifest, &out).is_some() && holds(artifact, &out).unwrap());
            let files = fs::read_dir(&out).unwrap().count() - 1; // less the mark
            assert_eq!((files, out.join("a.txt").is_file()), (expected, true));
        }
    }

    #[test]
    fn a_file_is_the_same_while_its_inode_is_and_none_that_came_to_it_later() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a.txt");
        fs::write(&path, "one").unwrap();
        let found = fs::metadata(&path).unwrap();
        let mtime_ns = found.mtime() * 1_000_000_000 + found.mtime_nsec();
        fs::write(&path, "edited in place").unwrap();
        assert_eq!(is_same_file(&path, mtime_ns, found.ino()), found.created().is_ok());
        assert!(!is_same_file(&path, mtime_ns, found.ino() + 1), "another inode");
        assert!(!is_same_file(&path, mtime_ns - 60_000_000_000, found.ino()), "born after what was noted");
    }

    #[test]
    fn what_may_be_executed_may_be_where_it_is_published() {
        let scratch = tempfile::tempdir().unwrap();
        let mut tool = artifact_of("files", &["run.sh", "data.txt"], &scratch.path().join("tool"), "true");
        tool.manifest.files[0].executable = true;
        let out = scratch.path().join("out");
        publish(&tool, &out, false, None).unwrap();
        let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("run.sh"), mode("data.txt") | (mode("data.txt") & 0o444) >> 2);
        assert!(mode("run.sh") & 0o200 != 0, "and its owner may change it");
    }

    #[test]
    fn a_published_folder_is_replaced_whole_and_every_change_in_it_is_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out/model");
        let first = artifact(&scratch.path().join("first"), "one");
        publish(&first, &out, false, None).unwrap();
        let stamped = stamp(&first.manifest, &out).unwrap();
        assert_eq!(stamp(&first.manifest, &out), Some(stamped));
        fs::write(out.join("b.txt"), "edited by hand").unwrap();
        assert_ne!(stamp(&first.manifest, &out), Some(stamped));
        fs::remove_file(out.join("a.txt")).unwrap();
        assert_eq!(stamp(&first.manifest, &out), None);
        let second = artifact(&scratch.path().join("second"), "two");
        fs::write(out.join("NOTES.md"), "mine").unwrap();
        fs::create_dir(out.join("empty")).unwrap();
        // As an older LLMflow marked it: only its artifact tells which files were whose.
        fs::write(out.join(MARK), first.digest.hex()).unwrap();
        assert_eq!(marked(&out), Some(first.digest));
        assert_eq!(publish(&second, &out, true, None).err().unwrap().code, "publish/occupied");
        publish(&first, &out, true, Some(&first.manifest)).unwrap();
        publish(&second, &out, true, None).unwrap();
        assert_eq!(fs::read_to_string(out.join("NOTES.md")).unwrap(), "mine", "what others put there stays");
        assert!(out.join("empty").is_dir());
        // A run that was killed where two folders cannot be exchanged.
        let old = scratch.path().join("out/.model.llmflow-old");
        fs::rename(&out, &old).unwrap();
        publish(&second, &out, true, None).unwrap();
        assert!(out.join("NOTES.md").exists() && !old.exists());
        assert_eq!(fs::read_to_string(out.join("b.txt")).unwrap(), "two");
        let left: Vec<_> = fs::read_dir(scratch.path().join("out")).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing is left beside it: {left:?}");
        fs::remove_file(out.join(MARK)).unwrap();
        assert_eq!(publish(&first, &out, true, None).err().unwrap().code, "publish/occupied");
        assert_eq!(fs::read_to_string(out.join("b.txt")).unwrap(), "two");
    }
}
