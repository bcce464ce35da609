//! Publishing: blobs, then manifests, then (by the caller, once every output is there) the key record.
//!
//! On a local disk all outputs of a stage are renamed into place and then waited for at once; the key record is a second
//! wait. Until it is there nothing names what was published, so nothing half-written is ever used. A blob is renamed over
//! one that is there already: its bytes were just hashed, those of the old one perhaps years ago.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use futures::{StreamExt, TryStreamExt, stream};
use llmflow_contract::{AnyMade, Digest, Failure, FileEntry, Manifest, Port};
use nix::fcntl::FlockArg;

use super::{
    KeyRecord, Store,
    backend::Backend,
    blob_path,
    disk::{self, Disk, Unsynced},
    key_path, manifest_path,
    objects::Objects,
    seal,
};

/// Files that are uploaded at once.
const UPLOADS_AT_ONCE: usize = 4;

/// One artifact on its way into the store, and where its files lie now.
struct Outgoing {
    digest: Digest,
    manifest: Manifest,
    files: Vec<PathBuf>,
}

impl Store {
    /// Takes the outputs of a stage into the store, durable on return. Their files leave the outputs' folders.
    ///
    /// Gives digest and manifest of each, in order. Nothing counts before [`Store::commit`].
    ///
    /// # Errors
    /// Of the environment if the disk is full or unwritable, or a store elsewhere does not answer.
    pub async fn publish_all(&self, outputs: &[(Port, AnyMade)]) -> Result<Vec<(Digest, Manifest)>, Failure> {
        let outgoing: Vec<Outgoing> = outputs.iter().map(|(_, made)| pack(made)).collect::<Result<_, _>>()?;
        // By digest: equal files of several outputs are stored once.
        let blobs: BTreeMap<Digest, (&Path, u64)> = (outgoing.iter())
            .flat_map(|out| out.manifest.files.iter().zip(&out.files))
            .map(|(entry, file)| (entry.digest, (file.as_path(), entry.size_bytes)))
            .collect();
        match &*self.backend {
            Backend::Disk(disk) => self.store_local(disk, &blobs, &outgoing)?,
            Backend::Objects(objects) => self.upload(objects, &blobs, &outgoing).await?,
        }
        Ok(outgoing.into_iter().map(|out| (out.digest, out.manifest)).collect())
    }

    fn store_local(
        &self,
        disk: &Disk,
        blobs: &BTreeMap<Digest, (&Path, u64)>,
        outgoing: &[Outgoing],
    ) -> Result<(), Failure> {
        let mut unsynced = Unsynced::default();
        let lock = disk.lock(FlockArg::LockShared)?; // gc does not delete meanwhile
        for (digest, (file, _)) in blobs {
            disk.place(file, &blob_path(digest), &mut unsynced)?;
        }
        for out in outgoing {
            disk.put(&manifest_path(&out.digest), out.manifest.text().as_bytes(), &mut unsynced)?;
        }
        drop(lock);
        unsynced.wait()?;
        let places: Vec<PathBuf> = blobs.keys().map(|digest| disk.path(&blob_path(digest))).collect();
        self.vouched.note_all(places.iter().map(PathBuf::as_path).zip(blobs.keys()));
        Ok(())
    }

    async fn upload(
        &self,
        objects: &Objects,
        blobs: &BTreeMap<Digest, (&Path, u64)>,
        outgoing: &[Outgoing],
    ) -> Result<(), Failure> {
        stream::iter(blobs)
            .map(|(digest, (file, size_bytes))| async move {
                objects.upload(&blob_path(digest), file, *size_bytes).await
            })
            .buffer_unordered(UPLOADS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        for out in outgoing {
            objects.put(&manifest_path(&out.digest), out.manifest.text().into_bytes()).await?;
        }
        // What was made here is likely to be read here.
        if let Some(work) = &self.work {
            for (digest, (file, _)) in blobs {
                let kept = work.join(blob_path(digest));
                let folder = kept.parent().unwrap_or(work);
                if fs::create_dir_all(folder).and_then(|()| fs::rename(file, &kept)).is_ok() {
                    self.vouched.note(&kept, digest);
                }
            }
        }
        Ok(())
    }

    /// Commits a key, durable on return. Who comes second gets the winner's record; theirs counts.
    ///
    /// # Errors
    /// As [`Store::publish_all`].
    pub async fn commit(&self, record: &KeyRecord) -> Result<KeyRecord, Failure> {
        let path = key_path(&record.key);
        let text = seal::seal(record)?;
        // Twice at most: a record whose blobs are gone is no winner and makes way.
        for _ in 0..2 {
            if self.backend.create(&path, text.clone()).await? {
                return Ok(record.clone());
            }
            if let Some(winner) = self.key_record(&record.key).await? {
                self.make_durable(&path)?;
                return Ok(winner);
            }
            self.backend.delete(&path).await?;
        }
        self.backend.put(&path, text).await?;
        Ok(record.clone())
    }

    /// Commits a key in place of the record that is there: for a stage that was asked to run all the same.
    ///
    /// # Errors
    /// As [`Store::publish_all`].
    pub async fn replace(&self, record: &KeyRecord) -> Result<KeyRecord, Failure> {
        self.backend.put(&key_path(&record.key), seal::seal(record)?).await.map(|()| record.clone())
    }

    /// The winner of a race may not have synced its record yet when the loser reports it as done.
    fn make_durable(&self, key: &str) -> Result<(), Failure> {
        let Some(disk) = self.disk() else { return Ok(()) };
        let mut unsynced = Unsynced::default();
        unsynced.file(disk.path(key));
        unsynced.wait()
    }
}

/// Hashes the files of an output and writes down what it holds.
fn pack(made: &AnyMade) -> Result<Outgoing, Failure> {
    let (mut entries, mut files) = (Vec::new(), Vec::new());
    for (path, file) in disk::files_below(&made.folder)? {
        // Read before it is protected. Elsewhere the bit says nothing: a model may come from a file system that sets it on all.
        let executable = made.kind.as_str() == "files" && disk::is_executable(&file);
        disk::detach(&file).map_err(|error| Failure::io("protecting", &file, &error))?;
        let (digest, size_bytes) = Digest::of_file(&file).map_err(|error| Failure::io("hashing", &file, &error))?;
        entries.push(FileEntry { path, digest, size_bytes, executable });
        files.push(file);
    }
    let manifest = Manifest {
        kind: made.kind.clone(),
        files: entries,
        facts: made.facts.clone(),
        references: made.references.clone(),
    };
    Ok(Outgoing { digest: manifest.digest(), manifest, files })
}
