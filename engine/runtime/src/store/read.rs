//! Reading: key records that still hold, manifests, artifacts at hand. Nothing is used before its bytes are checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use futures::{StreamExt, TryStreamExt, stream};
use llmflow_contract::{AnyArtifact, Digest, Failure, FileEntry, Manifest, Port, Report};

use super::{
    KeyRecord, Store,
    backend::Backend,
    blob_path, key_path, manifest_path,
    objects::{Fetched, Objects},
    seal,
};
use crate::owner;

/// Records that are looked up at once; each is a few short requests.
const RECORDS_AT_ONCE: usize = 32;

const BAD_BLOB: &str = "store/bad-blob";
const NO_ARTIFACT: &str = "store/no-artifact";

/// Does a failure say that something in the store is missing or damaged? Then it is out of the way by now, and the stage
/// that made it makes it anew.
pub fn is_damage(failure: &Failure) -> bool {
    matches!(failure.code.as_str(), BAD_BLOB | NO_ARTIFACT)
}

/// What an object that checks itself was found to be.
pub(super) enum Looked<T> {
    Missing,
    Whole(T),
    Damaged,
}

impl Store {
    /// The record of a key, if everything it names is there in full size. Bytes are checked by whoever uses them.
    ///
    /// What is damaged is taken out of the way, so that it is made anew.
    ///
    /// # Errors
    /// Of the environment if something is there and cannot be read: that is no damage.
    pub async fn key_record(&self, key: &Digest) -> Result<Option<KeyRecord>, Failure> {
        let Some(record) = self.find_record(key).await? else { return Ok(None) };
        let mut wanted: Vec<Digest> = record.outputs.values().chain(record.side.values()).copied().collect();
        let mut seen = BTreeSet::new();
        while let Some(digest) = wanted.pop() {
            if !seen.insert(digest) {
                continue;
            }
            let Some(manifest) = self.find_manifest(&digest).await? else { return Ok(None) };
            for file in &manifest.files {
                let path = blob_path(&file.digest);
                match self.backend.size(&path).await? {
                    Some(size_bytes) if size_bytes == file.size_bytes => {}
                    Some(_) => {
                        self.backend.quarantine(&path).await?;
                        return Ok(None);
                    }
                    None => return Ok(None),
                }
            }
            wanted.extend(manifest.references.values());
        }
        Ok(Some(record))
    }

    /// [`Store::key_record`] of the first of these keys that has one.
    pub async fn first_record(&self, keys: &[Digest]) -> Result<Option<KeyRecord>, Failure> {
        for key in keys {
            if let Some(record) = self.key_record(key).await? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// [`Store::key_record`] of many keys, in their order: of a store elsewhere several at once.
    pub async fn key_records(&self, keys: &[Digest]) -> Result<Vec<Option<KeyRecord>>, Failure> {
        stream::iter(keys).map(|key| self.key_record(key)).buffered(RECORDS_AT_ONCE).try_collect().await
    }

    /// The record of a key, without a look at what it names: for history, and for who knows that nothing was taken away.
    pub async fn find_record(&self, key: &Digest) -> Result<Option<KeyRecord>, Failure> {
        let whole = |bytes: &[u8]| seal::unseal::<KeyRecord>(bytes).filter(|record| record.key == *key);
        self.whole(&key_path(key), whole).await
    }

    /// An object that its own check finds whole. One that is damaged is taken out of the way.
    pub(super) async fn whole<T>(&self, path: &str, check: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, Failure> {
        match self.look_at(path, check).await? {
            Looked::Whole(found) => Ok(Some(found)),
            Looked::Missing => Ok(None),
            Looked::Damaged => self.backend.quarantine(path).await.map(|()| None),
        }
    }

    /// An object as its own check finds it; damaged only if it is when it is read a second time: the first time it may have
    /// been the network's fault.
    pub(super) async fn look_at<T>(
        &self,
        path: &str,
        check: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Looked<T>, Failure> {
        for _ in 0..2 {
            let Some(bytes) = self.backend.get(path).await? else { return Ok(Looked::Missing) };
            if let Some(found) = check(&bytes) {
                return Ok(Looked::Whole(found));
            }
        }
        Ok(Looked::Damaged)
    }

    /// # Errors
    /// `store/no-artifact` if it is not there, or was not what its digest says: see [`is_damage`].
    pub async fn manifest(&self, digest: &Digest) -> Result<Manifest, Failure> {
        self.find_manifest(digest).await?.ok_or_else(|| {
            Failure::environment(NO_ARTIFACT, format!("the store has no whole artifact {}", digest.short()))
                .help("run the pipeline again: what is missing is made anew")
        })
    }

    async fn find_manifest(&self, digest: &Digest) -> Result<Option<Manifest>, Failure> {
        self.whole(&manifest_path(digest), |bytes| manifest_of(bytes, digest)).await
    }

    /// An artifact whose files can be read under its root, with everything it refers to: links below `work/inputs/`, and
    /// copies of what may be executed. What a program added there is removed first.
    ///
    /// Every file's bytes are checked, unless the home vouches for them.
    ///
    /// # Errors
    /// [`is_damage`] if something is missing or damaged; it is out of the way then.
    pub async fn artifact(&self, digest: &Digest, work: &Path) -> Result<AnyArtifact, Failure> {
        let manifest = self.manifest(digest).await?;
        let root = work.join("inputs").join(digest.hex());
        let is_vouched =
            |file: &FileEntry| inside(&root, &file.path).is_ok_and(|path| self.vouched.vouches(&path, &file.digest));
        let is_laid_out = remove_added(&manifest, &root).is_ok() && manifest.files.iter().all(is_vouched);
        if !is_laid_out {
            let mut blobs = Vec::new();
            for file in &manifest.files {
                blobs.push(self.at_hand(file, work).await?);
            }
            lay_out(&manifest, &blobs, &root)?;
            for file in manifest.files.iter().filter(|file| file.executable) {
                self.vouched.note(&inside(&root, &file.path)?, &file.digest); // a copy, made of bytes just checked
            }
        }
        let mut references = BTreeMap::new();
        for (name, referred) in &manifest.references {
            references.insert(name.clone(), Box::pin(self.artifact(referred, work)).await?);
        }
        Ok(AnyArtifact { digest: *digest, manifest, root, references, label: None })
    }

    /// A file of this machine with the bytes of a blob.
    async fn at_hand(&self, file: &FileEntry, work: &Path) -> Result<PathBuf, Failure> {
        let key = blob_path(&file.digest);
        let (path, objects) = match &*self.backend {
            Backend::Disk(disk) => (disk.path(&key), None),
            Backend::Objects(objects) => (work.join(&key), Some(objects)),
        };
        match self.holds(&path, file) {
            Ok(true) => return Ok(path),
            Ok(false) => {}
            Err(error) => return Err(Failure::io("reading", path, &error)),
        }
        match objects {
            Some(objects) => self.fetch(objects, file, &path).await?,
            None => {
                self.backend.quarantine(&key).await?;
                return Err(bad_blob(file));
            }
        }
        Ok(path)
    }

    /// Does the file at `path` have the bytes of `file`? A missing one does not.
    fn holds(&self, path: &Path, file: &FileEntry) -> io::Result<bool> {
        if self.vouched.vouches(path, &file.digest) {
            return Ok(true);
        }
        match Digest::of_file(path) {
            Ok((digest, _)) if digest == file.digest => {
                self.vouched.note(path, &digest);
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn fetch(&self, objects: &Objects, file: &FileEntry, path: &Path) -> Result<(), Failure> {
        let folder = path.parent().unwrap_or(path);
        fs::create_dir_all(folder).map_err(|error| Failure::io("making", folder, &error))?;
        let aside = tempfile::Builder::new()
            .prefix(&owner::prefix())
            .tempfile_in(folder)
            .map_err(|error| Failure::io("writing", folder, &error))?
            .into_temp_path();
        let key = blob_path(&file.digest);
        match objects.fetch(&key, &file.digest, &aside).await? {
            Fetched::Whole => {
                aside.persist(path).map_err(|error| Failure::io("writing", path, &error.error))?;
                self.vouched.note(path, &file.digest);
                Ok(())
            }
            Fetched::Missing => Err(bad_blob(file)),
            Fetched::Damaged => {
                self.backend.quarantine(&key).await?;
                Err(bad_blob(file))
            }
        }
    }

    /// The report of a record, if it wrote one.
    ///
    /// # Errors
    /// As [`Store::artifact`].
    pub async fn report(&self, record: &KeyRecord) -> Result<Option<Report>, Failure> {
        let Some(digest) = record.side.get(&Port::from("report")) else { return Ok(None) };
        let manifest = self.manifest(digest).await?;
        let Some(file) = manifest.files.iter().find(|file| file.path == "report.json") else { return Ok(None) };
        let check = |bytes: &[u8]| (Digest::of(bytes) == file.digest).then(|| bytes.to_vec());
        let bytes = self.whole(&blob_path(&file.digest), check).await?.ok_or_else(|| bad_blob(file))?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Failure::environment("store/report", "a report of another LLMflow cannot be read").cause(error)
        })
    }
}

/// A manifest, if these bytes are what its digest says.
pub(super) fn manifest_of(bytes: &[u8], digest: &Digest) -> Option<Manifest> {
    (Digest::of(bytes) == *digest).then(|| serde_json::from_slice(bytes).ok()).flatten()
}

fn bad_blob(file: &FileEntry) -> Failure {
    Failure::environment(BAD_BLOB, format!("`{}` is missing or damaged in the store", file.path))
        .help("run the pipeline again: what is missing is made anew")
}

/// Removes what lies below `root` and the manifest does not name, each by itself: somebody may be reading the rest.
///
/// # Errors
/// Of a root that is no folder, and of what cannot be removed: the folder is to be laid out anew.
fn remove_added(manifest: &Manifest, root: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(root)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into()); // where a link leads, nothing is ours
    }
    let files: BTreeSet<&Path> = manifest.files.iter().map(|file| Path::new(&file.path)).collect();
    let folders: BTreeSet<&Path> = files.iter().flat_map(|file| file.ancestors().skip(1)).collect();
    let (mut added, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let (path, is_folder) = (folder.join(entry.file_name()), entry.file_type()?.is_dir());
            let named = if is_folder { &folders } else { &files };
            if !named.contains(path.as_path()) {
                added.push((root.join(&path), is_folder));
            }
            if is_folder {
                open.push(path);
            }
        }
    }
    // A folder was found before what is in it.
    added.iter().rev().try_for_each(|(path, is_folder)| {
        let removed = if *is_folder { fs::remove_dir(path) } else { fs::remove_file(path) };
        removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
    })
}

/// Builds the folder of links aside and renames it, so that a reader never sees half of it.
fn lay_out(manifest: &Manifest, blobs: &[PathBuf], root: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::io("making", root, &error);
    let parent = root.parent().unwrap_or(root);
    fs::create_dir_all(parent).map_err(failed)?;
    let aside = tempfile::Builder::new().prefix(&owner::prefix()).tempdir_in(parent).map_err(failed)?;
    let built = aside.path().join("files");
    fs::create_dir(&built).map_err(failed)?;
    for (file, blob) in manifest.files.iter().zip(blobs) {
        let path = inside(&built, &file.path)?;
        if file.path.contains('/')
            && let Some(folder) = path.parent()
        {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let laid = match file.executable {
            true => copy_executable(blob, &path),
            false => std::os::unix::fs::symlink(blob, &path),
        };
        laid.map_err(failed)?;
    }
    swap_in(&built, root).map_err(failed)
}

/// A blob has one mode, whoever names it; a copy has its own. It is on the disk before anybody vouches for it.
fn copy_executable(blob: &Path, path: &Path) -> io::Result<()> {
    fs::copy(blob, path)?;
    fs::set_permissions(path, Permissions::from_mode(0o555))?;
    fs::File::open(path)?.sync_all()
}

/// Puts a folder into its place; what is there, ours or another's, is exchanged without a moment of none.
fn swap_in(built: &Path, root: &Path) -> io::Result<()> {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    use nix::{
        errno::Errno,
        fcntl::{AT_FDCWD, RenameFlags, renameat2},
    };
    match fs::rename(built, root) {
        Err(error) if matches!(error.kind(), DirectoryNotEmpty | AlreadyExists | NotADirectory) => {}
        done => return done,
    }
    match renameat2(AT_FDCWD, built, AT_FDCWD, root, RenameFlags::RENAME_EXCHANGE) {
        Err(Errno::ENOSYS | Errno::EINVAL) => {
            fs::rename(root, built.with_extension("stale")).and_then(|()| fs::rename(built, root))
        }
        done => done.map_err(io::Error::from),
    }
}

/// A manifest's path below `root`; one that would leave it is refused.
fn inside(root: &Path, path: &str) -> Result<PathBuf, Failure> {
    let is_inside = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if is_inside {
        return Ok(root.join(path));
    }
    Err(Failure::environment("store/bad-manifest", format!("an artifact names the file `{path}`, outside itself")))
}
