//! Publishing: results where the user wants them, on every run, cached or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use llmflow_contract::{AnyArtifact, Digest, Failure, FileEntry, Manifest};
use llmflow_dataset::{Dataset, RowFile};
use rustix::fs::XattrFlags;
use serde::{Deserialize, Serialize};

use crate::store::{Stamp, is_one_file};

/// Name of the small file that says which artifact a published folder holds.
const MARK: &str = ".llmflow-artifact";
/// The same of a single file, as an attribute of it where the file system keeps any: it outlives this home and a move. The
/// digest of the artifact, then that of the file's bytes, which an older one does not have.
const ATTRIBUTE: &str = "user.llmflow.artifact";
/// How the files of a published folder stood when they were put there, as an attribute of its mark: the mark itself is the
/// same wherever the same is published.
const STANDING: &str = "user.llmflow.standing";
/// Length of a digest in hexadecimal digits.
const HEX: usize = 64;
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
/// Whole or not at all. A link is followed. What LLMflow published is replaced while it has the bytes that it was published
/// with. `is_known`: the file that lies there is known to be such, whatever it says itself; `before`: what was published
/// there, where the folder itself does not say which files that were, or with which bytes.
///
/// A file is written beside its place and renamed; a folder is built beside its place and swapped in, with what others
/// put into the one that was there.
///
/// # Errors
/// `publish/occupied` if something else lies there, or the same with other bytes.
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
    // What was there before; what came to it meanwhile, in the place of what others put there too, goes with the path.
    if fresh.is_dir() {
        for late in files_below(&fresh).map_err(|error| Failure::io("reading", &fresh, &error))?.files {
            let is_known = late == Path::new(MARK) || found.ours.contains(&late);
            if !is_known && (found.theirs.files.contains(&late) || !path.join(&late).exists()) {
                let to = within(path, &late)?;
                fs::rename(fresh.join(&late), &to).map_err(|error| Failure::io("keeping", to, &error))?;
            }
        }
    }
    remove(&fresh)
}

fn build_file(artifact: &AnyArtifact, fresh: &Path) -> Result<(), Failure> {
    let file = &artifact.manifest.files[0];
    copy(artifact, file, fresh)?;
    let said = artifact.digest.hex() + &file.digest.hex();
    let _ = rustix::fs::setxattr(fresh, ATTRIBUTE, said.as_bytes(), XattrFlags::empty());
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
    let written = artifact.manifest.files.clone();
    let files: Vec<String> = written.iter().map(|file| file.path.clone()).collect();
    let standing = standing(fresh, files.iter().map(Path::new).collect());
    let mark = serde_json::to_vec(&Mark { artifact: artifact.digest, files, written });
    let mark = mark.map_err(|error| Failure::bug(format!("a mark is plain data: {error}")))?;
    let place = fresh.join(MARK);
    let written = fs::File::create(&place).and_then(|mut file| file.write_all(&mark).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::io("writing", &place, &error))?;
    if let Some(standing) = standing {
        let _ = rustix::fs::setxattr(&place, STANDING, standing.hex().as_bytes(), XattrFlags::empty());
    }
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
    /// The same with their bytes, which an older mark does not say.
    #[serde(default)]
    written: Vec<FileEntry>,
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

/// What LLMflow and others put at a path. What LLMflow did not publish, or not with these bytes, is left alone.
fn check_is_ours(
    artifact: &AnyArtifact,
    path: &Path,
    is_known: bool,
    before: Option<&Manifest>,
) -> Result<Found, Failure> {
    if !path.is_dir() {
        return check_file_is_ours(artifact, path, is_known).map(|()| Found::default());
    }
    let failed = |error: std::io::Error| Failure::io("reading", path, &error);
    let mut theirs = files_below(path).map_err(failed)?;
    let written = match written_in(path, before) {
        Some(written) => written,
        None if theirs.files.is_empty() => BTreeMap::new(),
        None => return Err(occupied(path)),
    };
    let new: BTreeMap<&Path, &FileEntry> =
        artifact.manifest.files.iter().map(|file| (Path::new(&file.path), file)).collect();
    let stood = attribute(&path.join(MARK), STANDING).and_then(|digest| digest.parse::<Digest>().ok());
    let is_untouched = stood.is_some() && stood == standing(path, written.keys().map(PathBuf::as_path).collect());
    let mut ours = BTreeSet::new();
    for (name, written) in written.iter().filter(|(name, _)| theirs.files.contains(*name)) {
        let new = new.get(name.as_path()).copied();
        if is_untouched || is_as_written(&path.join(name), written.as_ref(), new).map_err(failed)? {
            ours.insert(name.clone());
        }
    }
    theirs.files.retain(|file| file != Path::new(MARK) && !ours.contains(file));
    theirs.folders.retain(|folder| !written.keys().any(|file| file != folder && file.starts_with(folder)));
    match find_taken(new.keys(), &theirs) {
        Some(name) if written.contains_key(name) => Err(changed(&path.join(name))),
        Some(name) => Err(occupied(&path.join(name))),
        None => Ok(Found { ours, theirs }),
    }
}

fn check_file_is_ours(artifact: &AnyArtifact, path: &Path, is_known: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("reading", path, &error);
    if is_known || !path.exists() {
        return Ok(());
    }
    let said = attribute(path, ATTRIBUTE);
    let is_ours = match said.as_ref().map(|said| said.get(HEX..).and_then(|digest| digest.parse::<Digest>().ok())) {
        Some(Some(digest)) => path.is_file() && Digest::of_file(path).map_err(failed)?.0 == digest,
        Some(None) => true, // all that an older one says
        None => false,
    };
    match is_ours || holds(artifact, path).map_err(failed)? {
        true => Ok(()),
        false => Err(if said.is_some() { changed(path) } else { occupied(path) }),
    }
}

/// The files that LLMflow published in a folder, with their bytes where the mark or `before` tells them. None if nothing
/// tells which files those are.
fn written_in(folder: &Path, before: Option<&Manifest>) -> Option<BTreeMap<PathBuf, Option<FileEntry>>> {
    let text = fs::read(folder.join(MARK)).ok()?;
    let of_before = before.map(|before| before.files.clone()).unwrap_or_default();
    let (names, written) = match serde_json::from_slice::<Mark>(&text) {
        Ok(mark) => (mark.files, if mark.written.is_empty() { of_before } else { mark.written }),
        Err(_) => (before?.files.iter().map(|file| file.path.clone()).collect(), of_before),
    };
    let mut found: BTreeMap<PathBuf, _> = names.into_iter().map(|name| (PathBuf::from(name), None)).collect();
    for file in written {
        if let Some(bytes) = found.get_mut(Path::new(&file.path)) {
            *bytes = Some(file);
        }
    }
    Some(found)
}

/// Stands for how these files of a folder stand; None if one is missing.
fn standing(folder: &Path, files: BTreeSet<&Path>) -> Option<Digest> {
    let stamps = files.into_iter().map(|file| Some((file, Stamp::of_file(&folder.join(file)).ok()?)));
    let text = serde_json::to_vec(&stamps.collect::<Option<Vec<_>>>()?).ok()?;
    Some(Digest::of(&text))
}

/// Does a published file have the bytes that LLMflow put into it, or those of `new`? Where nothing tells the former it
/// counts as if.
fn is_as_written(path: &Path, written: Option<&FileEntry>, new: Option<&FileEntry>) -> std::io::Result<bool> {
    let Some(written) = written else { return Ok(true) };
    let Ok(meta) = fs::metadata(path) else { return Ok(false) }; // a link to nowhere
    let mut alike = [Some(written), new].into_iter().flatten().filter(|file| file.size_bytes == meta.len()).peekable();
    if !meta.is_file() || alike.peek().is_none() {
        return Ok(false);
    }
    let digest = Digest::of_file(path)?.0;
    Ok(alike.any(|file| file.digest == digest))
}

/// The first of these files that has no place beside what others put there: a file of its name or above it, or a folder.
fn find_taken<'a>(files: impl Iterator<Item = &'a &'a Path>, theirs: &Below) -> Option<&'a Path> {
    let below = theirs.files.iter().chain(&theirs.folders);
    let taken: BTreeSet<&Path> = below.flat_map(|path| path.ancestors()).collect();
    let above = |file: &'a Path| file.ancestors().find(|above| theirs.files.contains(*above));
    files.copied().find_map(|file| if taken.contains(file) { Some(file) } else { above(file) })
}

/// What a file that LLMflow wrote says of itself.
fn attribute(path: &Path, name: &str) -> Option<String> {
    let mut text = [0_u8; 2 * HEX];
    let length = rustix::fs::getxattr(path, name, &mut text).ok()?;
    Some(String::from_utf8_lossy(&text[..length]).into_owned())
}

/// Does a file say itself that LLMflow published it?
pub fn is_marked(path: &Path) -> bool {
    attribute(path, ATTRIBUTE).is_some()
}

/// What is said where something of somebody else lies.
pub fn occupied(path: &Path) -> Failure {
    let message = format!("`{}` holds something that LLMflow did not put there", path.display());
    Failure::input("publish/occupied", message)
        .help("move it away, or publish to another path; then run the same again")
}

/// The same where the bytes of what LLMflow put there are others now.
fn changed(path: &Path) -> Failure {
    let message = format!("`{}` was changed since LLMflow put it there", path.display());
    Failure::input("publish/occupied", message).help("move it away or delete it; then run the same again")
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
    stamp_of(files)
}

/// The same of these files.
pub fn stamp_of(files: Vec<PathBuf>) -> Option<(u64, i64, u64)> {
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

    /// Each change leaves the size as it was, and the time where that is noted.
    #[test]
    fn a_published_name_with_other_bytes_is_somebody_elses() {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let first = artifact(&scratch.path().join("first"), "one");
        let second = artifact(&scratch.path().join("second"), "two");
        let lesser = artifact_of("files", &["b.txt"], &scratch.path().join("lesser"), "six");
        publish(&first, &out, false, None).unwrap();
        let elsewhere = scratch.path().join("elsewhere");
        publish(&first, &elsewhere, false, None).unwrap();
        assert_eq!(fs::read(out.join(MARK)).unwrap(), fs::read(elsewhere.join(MARK)).unwrap());
        let modified = fs::metadata(out.join("a.txt")).unwrap().modified().unwrap();
        let clock_goes_on = || std::thread::sleep(std::time::Duration::from_millis(20)); // that of the file system
        clock_goes_on();
        fs::write(out.join("a.txt"), "own").unwrap();
        fs::File::options().append(true).open(out.join("a.txt")).unwrap().set_modified(modified).unwrap();
        let refused = publish(&second, &out, false, None).err().unwrap();
        assert_eq!(refused.code, "publish/occupied");
        assert!(refused.message.contains("a.txt` was changed since"), "{}", refused.message);
        publish(&lesser, &out, false, None).unwrap();
        assert_eq!(fs::read_to_string(out.join("a.txt")).unwrap(), "own", "it is no name of the new artifact");
        assert_eq!(publish(&first, &out, false, None).err().unwrap().code, "publish/occupied");
        // A folder or a link in the place of a file; what has the bytes that it is to have is in nobody's way.
        fs::remove_file(out.join("b.txt")).unwrap();
        fs::create_dir(out.join("b.txt")).unwrap();
        assert_eq!(publish(&lesser, &out, false, None).err().unwrap().code, "publish/occupied");
        fs::remove_dir(out.join("b.txt")).unwrap();
        std::os::unix::fs::symlink("nowhere", out.join("b.txt")).unwrap();
        assert_eq!(publish(&lesser, &out, false, None).err().unwrap().code, "publish/occupied");
        fs::remove_file(out.join("b.txt")).unwrap();
        clock_goes_on();
        fs::write(out.join("b.txt"), "one").unwrap();
        assert_eq!(publish(&lesser, &out, false, None).err().unwrap().code, "publish/occupied");
        fs::remove_file(out.join("a.txt")).unwrap();
        publish(&first, &out, false, None).unwrap();
    }

    /// A copy has other stamps, an older mark no bytes.
    #[test]
    fn what_was_published_is_replaced_wherever_it_was_copied_to() {
        let scratch = tempfile::tempdir().unwrap();
        let (out, copied) = (scratch.path().join("out"), scratch.path().join("copied"));
        let first = artifact(&scratch.path().join("first"), "one");
        let second = artifact(&scratch.path().join("second"), "two");
        publish(&first, &out, false, None).unwrap();
        fs::create_dir(&copied).unwrap();
        for name in ["a.txt", "b.txt", MARK] {
            fs::copy(out.join(name), copied.join(name)).unwrap();
        }
        publish(&second, &copied, false, None).unwrap();
        assert_eq!(fs::read_to_string(copied.join("a.txt")).unwrap(), "two");
        let older = serde_json::json!({"artifact": second.digest, "files": ["a.txt", "b.txt"]});
        fs::write(copied.join(MARK), older.to_string()).unwrap();
        fs::write(copied.join("a.txt"), "my own").unwrap();
        assert!(publish(&first, &copied, false, Some(&second.manifest)).is_err(), "its artifact tells its bytes");
        publish(&first, &copied, false, None).unwrap();
    }

    #[test]
    fn a_published_file_with_other_bytes_is_somebody_elses() {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("a.txt");
        let first = artifact_of("report", &["a.txt"], &scratch.path().join("first"), "one");
        let second = artifact_of("report", &["a.txt"], &scratch.path().join("second"), "two");
        publish(&first, &out, false, None).unwrap();
        if !is_marked(&out) {
            return; // no attributes here: who publishes tells what is known
        }
        publish(&second, &out, false, None).unwrap();
        fs::write(&out, "own").unwrap();
        let refused = publish(&first, &out, false, None).err().unwrap();
        assert!(refused.code == "publish/occupied" && refused.message.contains("changed since"), "{refused}");
        assert_eq!(fs::read_to_string(&out).unwrap(), "own");
        let older = first.digest.hex();
        rustix::fs::setxattr(&out, ATTRIBUTE, older.as_bytes(), XattrFlags::empty()).unwrap();
        publish(&first, &out, false, None).unwrap();
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
        assert_eq!(publish(&second, &out, true, Some(&first.manifest)).err().unwrap().code, "publish/occupied");
        assert_eq!(fs::read_to_string(out.join("b.txt")).unwrap(), "edited by hand");
        fs::remove_file(out.join("b.txt")).unwrap();
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
