//! Reading: key records that still hold, manifests, artifacts at hand.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use llmflow_contract::{AnyArtifact, Digest, Failure, FileEntry, Manifest, Port, Report};

use super::{KeyRecord, Store, blob_path, key_path, manifest_path};
use crate::owner;

impl Store {
    /// The record of a key, if everything it names is there in full size.
    pub async fn key_record(&self, key: &Digest) -> Result<Option<KeyRecord>, Failure> {
        let Some(bytes) = self.backend.get(&key_path(key)).await? else { return Ok(None) };
        let Ok(record) = serde_json::from_slice::<KeyRecord>(&bytes) else { return Ok(None) };
        if record.key != *key {
            return Ok(None);
        }
        let mut wanted: Vec<Digest> = record.outputs.values().chain(record.side.values()).copied().collect();
        while let Some(digest) = wanted.pop() {
            let Some(manifest) = self.find_manifest(&digest).await? else { return Ok(None) };
            for file in &manifest.files {
                if self.backend.size(&blob_path(&file.digest)).await? != Some(file.size_bytes) {
                    return Ok(None);
                }
            }
            wanted.extend(manifest.references.values());
        }
        Ok(Some(record))
    }

    /// # Errors
    /// `store/no-artifact` if it is not there, or not what its digest says.
    pub async fn manifest(&self, digest: &Digest) -> Result<Manifest, Failure> {
        self.find_manifest(digest).await?.ok_or_else(|| {
            Failure::environment("store/no-artifact", format!("the store has no whole artifact {}", digest.short()))
                .help("run the pipeline again: what is missing is made anew")
        })
    }

    async fn find_manifest(&self, digest: &Digest) -> Result<Option<Manifest>, Failure> {
        let Some(bytes) = self.backend.get(&manifest_path(digest)).await? else { return Ok(None) };
        let manifest = serde_json::from_slice::<Manifest>(&bytes).ok();
        Ok(manifest.filter(|manifest| manifest.digest() == *digest))
    }

    /// An artifact whose files can be read under its root, with everything it refers to.
    ///
    /// Local: a folder of links to blobs below `work/inputs/`. Elsewhere: verified copies there.
    pub async fn artifact(&self, digest: &Digest, work: &Path) -> Result<AnyArtifact, Failure> {
        let manifest = self.manifest(digest).await?;
        let root = work.join("inputs").join(digest.hex());
        if !is_whole(&root, &manifest) {
            self.lay_out(&manifest, &root).await?;
        }
        let mut references = BTreeMap::new();
        for (name, referred) in &manifest.references {
            references.insert(name.clone(), Box::pin(self.artifact(referred, work)).await?);
        }
        Ok(AnyArtifact { digest: *digest, manifest, root, references })
    }

    /// Builds the folder aside and renames it, so that a reader never sees half of it.
    async fn lay_out(&self, manifest: &Manifest, root: &Path) -> Result<(), Failure> {
        let parent = root.parent().unwrap_or(root);
        fs::create_dir_all(parent).map_err(|error| Failure::io("making", parent, &error))?;
        owner::sweep(parent);
        let aside = tempfile::Builder::new()
            .prefix(&owner::prefix())
            .tempdir_in(parent)
            .map_err(|error| Failure::io("making", parent, &error))?;
        let built = aside.path().join("files");
        fs::create_dir(&built).map_err(|error| Failure::io("making", &built, &error))?;
        for file in &manifest.files {
            let path = inside(&built, &file.path)?;
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(|error| Failure::io("making", folder, &error))?;
            }
            self.bring(file, &path).await?;
        }
        if root.exists() {
            let _ = fs::rename(root, aside.path().join("stale"));
        }
        match fs::rename(&built, root) {
            Err(error) if !is_whole(root, manifest) => Err(Failure::io("making", root, &error)),
            _ => Ok(()), // ours, or another's who was faster
        }
    }

    async fn bring(&self, file: &FileEntry, path: &Path) -> Result<(), Failure> {
        let key = blob_path(&file.digest);
        if let Some(store) = self.local() {
            let blob = store.join(key);
            return std::os::unix::fs::symlink(&blob, path).map_err(|error| Failure::io("linking", path, &error));
        }
        let bytes = self.backend.get(&key).await?.filter(|bytes| Digest::of(bytes) == file.digest);
        let bytes = bytes.ok_or_else(|| {
            Failure::environment("store/bad-blob", format!("`{}` is missing or damaged in the store", file.path))
                .help("run the pipeline again: what is missing is made anew")
        })?;
        fs::write(path, bytes).map_err(|error| Failure::io("writing", path, &error))
    }

    /// The report of a record, if it wrote one.
    pub async fn report(&self, record: &KeyRecord) -> Result<Option<Report>, Failure> {
        let Some(digest) = record.side.get(&Port::from("report")) else { return Ok(None) };
        let manifest = self.manifest(digest).await?;
        let Some(file) = manifest.files.iter().find(|file| file.path == "report.json") else { return Ok(None) };
        let Some(bytes) = self.backend.get(&blob_path(&file.digest)).await? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Failure::environment("store/bad-blob", "a report in the store is damaged").cause(error))
    }
}

fn is_whole(root: &Path, manifest: &Manifest) -> bool {
    root.is_dir()
        && manifest.files.iter().all(|file| {
            fs::metadata(root.join(&file.path)).is_ok_and(|meta| meta.is_file() && meta.len() == file.size_bytes)
        })
}

/// A manifest's path below `root`; one that would leave it is refused.
fn inside(root: &Path, path: &str) -> Result<PathBuf, Failure> {
    let is_inside = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if is_inside {
        return Ok(root.join(path));
    }
    Err(Failure::environment("store/bad-manifest", format!("an artifact names the file `{path}`, outside itself")))
}
