//! The store: content-addressed artifacts and the key records that commit them.
//!
//! Owns: the layout, durable publishing, create-only commits, checkpoints of unfinished work.
//! Must not know: pipelines, runs' meaning, lineage rows. Start at [`Store::publish`] and [`Store::commit`].

mod backend;
mod checkpoint;
mod disk;
mod publish;
mod read;
mod record;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use backend::Backend;
use llmflow_contract::{Digest, Failure};
use serde_json::Value;

pub use checkpoint::Checkpoints;
pub use record::KeyRecord;

use crate::{event::RunId, owner};

/// One store, wherever it lies. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    backend: Arc<Backend>,
}

impl Store {
    /// Opens `file:///abs/path` or `memory://NAME` (one store a name, in this process).
    ///
    /// # Errors
    /// Class `input` for another scheme; of the environment if the folder cannot be made.
    pub fn open(url: &str) -> Result<Self, Failure> {
        if let Some(path) = url.strip_prefix("file://") {
            return Self::open_local(Path::new(path));
        }
        match url.strip_prefix("memory://") {
            Some(name) => Ok(Self { backend: Arc::new(Backend::memory(name)) }),
            None => Err(Failure::input("store/url", format!("`{url}` is no store of this build"))
                .help("write `file:///FOLDER` or `memory://NAME`")),
        }
    }

    /// Opens, or makes, a store in a local folder.
    pub fn open_local(path: &Path) -> Result<Self, Failure> {
        Ok(Self { backend: Arc::new(Backend::local(path)?) })
    }

    pub fn url(&self) -> &str {
        &self.backend.url
    }

    /// The folder of a local store.
    pub fn local(&self) -> Option<&Path> {
        self.backend.root.as_deref()
    }

    /// A new empty folder on the store's own disk, where an output is written once.
    pub fn temporary(&self, name: &str) -> Result<PathBuf, Failure> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let parent = self.local().map_or_else(|| std::env::temp_dir().join("llmflow"), |root| root.join("tmp"));
        let unique = format!("{}{name}-{}", owner::prefix(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let folder = parent.join(unique);
        if folder.exists() {
            // Left by a dead process whose id we now have.
            std::fs::remove_dir_all(&folder).map_err(|error| Failure::io("clearing", &folder, &error))?;
        }
        std::fs::create_dir_all(&folder).map_err(|error| Failure::io("making", &folder, &error))?;
        Ok(folder)
    }

    /// Removes half-written files of processes that died.
    pub fn sweep(&self) {
        if let Some(root) = self.local() {
            owner::sweep(&root.join("tmp"));
        }
    }

    /// Writes `runs/<run>.json`: a root of gc, and history for every home.
    pub async fn put_run(&self, run: &RunId, json: &Value) -> Result<(), Failure> {
        self.backend.put(&format!("runs/{run}.json"), json.to_string().into_bytes()).await
    }

    /// The checkpoints of one unfinished work; `fallback` serves stores that are no folder.
    pub fn checkpoints(&self, address: &Digest, fallback: &Path) -> Checkpoints {
        let parent = self.local().map_or_else(|| fallback.to_owned(), |root| root.join("partial"));
        Checkpoints::new(parent.join(address.hex()))
    }
}

fn blob_path(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("blobs/{}/{hex}", &hex[..2])
}

fn manifest_path(digest: &Digest) -> String {
    format!("artifacts/{digest}")
}

fn key_path(key: &Digest) -> String {
    format!("keys/{key}")
}
