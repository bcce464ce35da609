//! Publishing: blobs, then the manifest, then (by the caller, once every output is there) the key record.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use llmflow_contract::{AnyMade, Digest, Failure, FileEntry, Manifest};

use super::{KeyRecord, Store, blob_path, disk, key_path, manifest_path};

impl Store {
    /// Takes an output's files into the store and writes its manifest. The files leave the output's folder.
    ///
    /// # Errors
    /// Of the environment if the disk is full or unwritable.
    pub async fn publish(&self, made: &AnyMade) -> Result<(Digest, Manifest), Failure> {
        let mut files = Vec::new();
        for (path, file) in disk::files_below(&made.folder)? {
            let (digest, size_bytes) = Digest::of_file(&file).map_err(|error| Failure::io("hashing", &file, &error))?;
            self.publish_blob(&file, &digest, size_bytes).await?;
            files.push(FileEntry { path, digest, size_bytes });
        }
        let manifest =
            Manifest { kind: made.kind.clone(), files, facts: made.facts.clone(), references: made.references.clone() };
        let digest = manifest.digest();
        let text = serde_json::to_vec(&manifest).map_err(|error| Failure::bug(format!("manifest: {error}")))?;
        self.backend.put(&manifest_path(&digest), text).await?;
        Ok((digest, manifest))
    }

    async fn publish_blob(&self, file: &Path, digest: &Digest, size_bytes: u64) -> Result<(), Failure> {
        let key = blob_path(digest);
        if self.backend.size(&key).await? == Some(size_bytes) {
            return Ok(());
        }
        match self.local() {
            Some(root) => move_durably(file, &root.join(key)),
            None => {
                let bytes = fs::read(file).map_err(|error| Failure::io("reading", file, &error))?;
                self.backend.put(&key, bytes).await
            }
        }
    }

    /// Commits a key. Who comes second gets the winner's record.
    pub async fn commit(&self, record: &KeyRecord) -> Result<KeyRecord, Failure> {
        let path = key_path(&record.key);
        let text = serde_json::to_vec(record).map_err(|error| Failure::bug(format!("key record: {error}")))?;
        // Twice at most: a record whose blobs are gone is no winner and makes way.
        for _ in 0..2 {
            if self.backend.create(&path, text.clone()).await? {
                return Ok(record.clone());
            }
            if let Some(winner) = self.key_record(&record.key).await? {
                return Ok(winner);
            }
            self.backend.delete(&path).await?;
        }
        self.backend.put(&path, text).await?;
        Ok(record.clone())
    }
}

/// Syncs a file, makes it read-only and renames it to where a blob belongs.
fn move_durably(file: &Path, blob: &Path) -> Result<(), Failure> {
    // A link is copied: renaming it would store the link, not the bytes.
    let is_link = fs::symlink_metadata(file).is_ok_and(|meta| meta.is_symlink());
    if is_link {
        let bytes = fs::read(file).map_err(|error| Failure::io("reading", file, &error))?;
        fs::remove_file(file)
            .and_then(|()| fs::write(file, bytes))
            .map_err(|error| Failure::io("copying", file, &error))?;
    }
    File::open(file).and_then(|open| open.sync_all()).map_err(|error| Failure::io("syncing", file, &error))?;
    fs::set_permissions(file, Permissions::from_mode(0o444))
        .map_err(|error| Failure::io("protecting", file, &error))?;
    let folder = blob.parent().unwrap_or(Path::new("/"));
    disk::make_folder(folder)?;
    fs::rename(file, blob).map_err(|error| Failure::io("storing", blob, &error))?;
    disk::sync_folder(folder)
}
