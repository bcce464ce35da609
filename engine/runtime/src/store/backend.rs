//! The backend: object_store for every read and for writes elsewhere, durable std files for local writes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use bytes::Bytes;
use llmflow_contract::Failure;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, local::LocalFileSystem, memory::InMemory,
    path::Path as Key,
};

use super::disk;

pub(super) struct Backend {
    pub(super) url: String,
    pub(super) root: Option<PathBuf>,
    objects: Arc<dyn ObjectStore>,
}

static MEMORY: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

impl Backend {
    pub(super) fn memory(name: &str) -> Self {
        let mut stores = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = stores.entry(name.to_owned()).or_default().clone();
        Self { url: format!("memory://{name}"), root: None, objects }
    }

    pub(super) fn local(path: &Path) -> Result<Self, Failure> {
        disk::make_folder(&path.join("tmp"))?;
        let root = path.canonicalize().map_err(|error| Failure::io("opening", path, &error))?;
        let objects = LocalFileSystem::new_with_prefix(&root).map_err(|error| failure("opening", "store", error))?;
        Ok(Self { url: format!("file://{}", root.display()), root: Some(root), objects: Arc::new(objects) })
    }

    /// `None` if there is none such.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Bytes>, Failure> {
        let found = match self.objects.get(&Key::from(key)).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match found {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failure("reading", key, error)),
        }
    }

    /// Size in bytes, if it is there.
    pub(super) async fn size(&self, key: &str) -> Result<Option<u64>, Failure> {
        match self.objects.head(&Key::from(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failure("reading", key, error)),
        }
    }

    /// Writes durably, over what is there.
    pub(super) async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        match &self.root {
            Some(root) => disk::write(&root.join("tmp"), &root.join(key), &bytes, false).map(drop),
            None => self
                .objects
                .put(&Key::from(key), bytes.into())
                .await
                .map(drop)
                .map_err(|error| failure("writing", key, error)),
        }
    }

    /// Writes durably where nothing is; says whether it did.
    pub(super) async fn create(&self, key: &str, bytes: Vec<u8>) -> Result<bool, Failure> {
        if let Some(root) = &self.root {
            return disk::write(&root.join("tmp"), &root.join(key), &bytes, true);
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&Key::from(key), bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(failure("writing", key, error)),
        }
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Failure> {
        match self.objects.delete(&Key::from(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failure("removing", key, error)),
        }
    }
}

/// An error of the backend; one that hides an I/O error says what that was.
fn failure(doing: &str, key: &str, error: Error) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Failure::io(doing, key, io);
        }
        source = inner.source();
    }
    Failure::environment("store/backend", format!("{doing} `{key}` in the store failed")).cause(error)
}
