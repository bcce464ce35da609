//! The backend: durable files of a local folder, or objects elsewhere, behind the same few calls.

use llmflow_contract::Failure;

use super::{
    Listed,
    disk::{Disk, Unsynced},
    objects::Objects,
};

pub(super) enum Backend {
    Disk(Disk),
    Objects(Objects),
}

impl Backend {
    pub(super) fn url(&self) -> String {
        match self {
            Self::Disk(disk) => format!("file://{}", disk.root.display()),
            Self::Objects(objects) => objects.url.clone(),
        }
    }

    /// `None` if there is none such.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Self::Disk(disk) => disk.get(key),
            Self::Objects(objects) => objects.get(key).await,
        }
    }

    /// Size in bytes, if it is there.
    pub(super) async fn size(&self, key: &str) -> Result<Option<u64>, Failure> {
        match self {
            Self::Disk(disk) => disk.size(key),
            Self::Objects(objects) => objects.size(key).await,
        }
    }

    /// Writes durably, over what is there.
    pub(super) async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        match self {
            Self::Disk(disk) => {
                let mut unsynced = Unsynced::default();
                disk.put(key, &bytes, &mut unsynced)?;
                unsynced.wait()
            }
            Self::Objects(objects) => objects.put(key, bytes).await,
        }
    }

    /// The same of what nothing could make anew: whole or not at all, whatever happens in between.
    pub(super) async fn put_whole(&self, key: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        match self {
            Self::Disk(disk) => disk.put_whole(key, &bytes),
            Self::Objects(objects) => objects.put(key, bytes).await,
        }
    }

    /// Writes durably where nothing is; says whether what is there now is ours.
    pub(super) async fn create(&self, key: &str, bytes: Vec<u8>) -> Result<bool, Failure> {
        match self {
            Self::Disk(disk) => disk.create(key, &bytes),
            Self::Objects(objects) => objects.create(key, bytes).await,
        }
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Failure> {
        match self {
            Self::Disk(disk) => disk.delete(key),
            Self::Objects(objects) => objects.delete(key).await,
        }
    }

    /// Takes a damaged object away, so that whoever made it makes it anew: into `quarantine/`, or for good elsewhere.
    pub(super) async fn quarantine(&self, key: &str) -> Result<(), Failure> {
        tracing::warn!(object = key, "damaged in the store, and set aside");
        match self {
            Self::Disk(disk) => disk.quarantine(key),
            Self::Objects(objects) => objects.delete(key).await,
        }
    }

    /// Every object below `prefix`, by key.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Failure> {
        match self {
            Self::Disk(disk) => disk.list(prefix),
            Self::Objects(objects) => objects.list(prefix).await,
        }
    }
}
