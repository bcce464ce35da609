//! The store: content-addressed artifacts and the key records that commit them.
//!
//! Owns: the layout, durable publishing, create-only commits, damage, claims, checkpoints of unfinished work, gc, verify.
//! Must not know: pipelines, runs' meaning, lineage rows.
//!
//! A stage's outputs go in by [`Store::publish_all`] and count from [`Store::commit`] on; [`Store::key_record`] and
//! [`Store::artifact`] give them back. The truth lies in whole objects under names that say what they hold: a blob and a
//! manifest are named by their digest, records are sealed (`seal.rs`). Whatever is found missing or damaged is a miss, and
//! made anew; what cannot be read is an error, and left alone.

mod backend;
mod checkpoint;
mod claim;
mod disk;
mod epoch;
mod frozen;
mod gc;
mod history;
mod layout;
mod location;
mod memo;
mod objects;
mod probe;
mod publish;
mod read;
mod record;
mod seal;
mod send;
mod stood;
#[cfg(test)]
pub(crate) mod tests;
mod verify;
mod vouch;

use std::{
    fs,
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use backend::Backend;
use disk::Disk;
use llmflow_contract::{Digest, Failure};
use nix::fcntl::{Flock, FlockArg};

pub use checkpoint::Checkpoints;
pub use claim::Claim;
pub(crate) use disk::rename_where_nothing_is;
pub use frozen::Frozen;
pub use gc::{Collected, Keep};
pub use history::{Names, Tag};
pub use layout::is_one_file;
#[cfg(test)]
pub(crate) use location::put_memory;
pub use read::is_damage;
pub use record::KeyRecord;
pub use send::{is_sent, send};
pub use stood::Stood;
pub use verify::{Damage, Object, Verified, Wrong};
pub use vouch::{Stamp, Vouched};

use crate::{home::Home, owner};

/// Where things are written before they have a name.
const TMP: &str = "tmp";

/// One store, wherever it lies. Cheap to clone; worth keeping, because it remembers what it has checked.
#[derive(Clone)]
pub struct Store {
    backend: Arc<Backend>,
    vouched: Arc<Vouched>,
    /// The `work/` of the home it is used from.
    work: Option<Arc<Path>>,
}

/// An object that a backend lists.
#[derive(Clone, Debug)]
struct Listed {
    key: String,
    size_bytes: u64,
    /// When it came to its place, in milliseconds since 1970 (UTC).
    changed_ms: u64,
}

/// What keeps gc from deleting, if it is not at it.
#[derive(Debug)]
pub enum Shared {
    /// A store elsewhere has none.
    Yes(Option<Flock<File>>),
    GcIsAtWork,
}

impl Store {
    /// Opens `file:///abs/path`, `s3://bucket/prefix`, `gs://…`, `az://…` or `memory://NAME` (one store a name, in this
    /// process). A store elsewhere is not asked anything yet.
    ///
    /// # Errors
    /// Class `input` for another URL; of the environment if the folder cannot be made or credentials are missing.
    pub fn open(url: &str) -> Result<Self, Failure> {
        location::open(url).map(Self::new)
    }

    /// Opens, or makes, a store in a local folder.
    pub fn open_local(path: &Path) -> Result<Self, Failure> {
        Disk::open(path).map(Backend::Disk).map(Self::new)
    }

    /// Opens the store in a local folder, if one is there: who only looks makes none.
    pub fn find_local(path: &Path) -> Result<Option<Self>, Failure> {
        if Disk::is_at(path) { Self::open_local(path).map(Some) } else { Ok(None) }
    }

    /// Every store that a home knows and that is there: its own first.
    ///
    /// # Errors
    /// Of the environment if the home's own cannot be opened, or its list of the others read.
    pub fn all_of(home: &Home) -> Result<Vec<Self>, Failure> {
        let mut stores = vec![Self::open_local(&home.store())?];
        for url in home.other_stores()? {
            let opened = match url.strip_prefix("file://") {
                Some(folder) => Self::find_local(&home.here(Path::new(folder))?),
                None => Self::open(&url).map(Some),
            };
            stores.extend(opened.ok().flatten());
        }
        Ok(stores)
    }

    fn new(backend: Backend) -> Self {
        Self { backend: Arc::new(backend), vouched: Arc::default(), work: None }
    }

    /// Keeps below a home's `work/` what is known of files (`vouched`), and blobs fetched from a store elsewhere.
    pub fn in_home(mut self, work: &Path) -> Self {
        self.vouched = Arc::new(Vouched::open(&work.join("vouched")));
        self.work = Some(work.into());
        self
    }

    /// Keeps gc from deleting until it is dropped, as far as the store is a folder.
    ///
    /// # Errors
    /// Of the environment if the store's folder cannot be written.
    pub fn share(&self) -> Result<Option<Flock<File>>, Failure> {
        self.disk().map(|disk| disk.lock(FlockArg::LockShared)).transpose()
    }

    /// The same without a wait.
    ///
    /// # Errors
    /// As [`Store::share`].
    pub fn try_share(&self) -> Result<Shared, Failure> {
        let Some(disk) = self.disk() else { return Ok(Shared::Yes(None)) };
        Ok(disk.try_lock(FlockArg::LockSharedNonblock)?.map_or(Shared::GcIsAtWork, |lock| Shared::Yes(Some(lock))))
    }

    /// What is known of files in this home. The planner asks it for sources.
    pub fn vouched(&self) -> &Vouched {
        &self.vouched
    }

    /// As it was opened: a worker opens the same store with it.
    pub fn url(&self) -> String {
        self.backend.url()
    }

    /// The folder of a local store.
    pub fn local(&self) -> Option<&Path> {
        self.disk().map(|disk| disk.root.as_path())
    }

    fn disk(&self) -> Option<&Disk> {
        match &*self.backend {
            Backend::Disk(disk) => Some(disk),
            Backend::Objects(_) => None,
        }
    }

    /// Where half-written things lie: on the disk they will stay on.
    fn tmp(&self) -> PathBuf {
        let folder = self.local().or(self.work.as_deref());
        folder.map_or_else(|| std::env::temp_dir().join("llmflow"), |folder| folder.join(TMP))
    }

    /// A new empty folder on the store's own disk, where an output is written once.
    pub fn temporary(&self, name: &str) -> Result<PathBuf, Failure> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let unique = format!("{}{name}-{}", owner::prefix(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let folder = self.tmp().join(unique);
        let made = fs::create_dir(&folder).or_else(|error| match error.kind() {
            ErrorKind::NotFound => fs::create_dir_all(&folder),
            // Left by a dead process whose id we now have.
            ErrorKind::AlreadyExists => fs::remove_dir_all(&folder).and_then(|()| fs::create_dir(&folder)),
            _ => Err(error),
        });
        made.map(|()| folder.clone()).map_err(|error| Failure::io("making", &folder, &error))
    }

    /// Removes half-written files of processes that died.
    pub fn sweep(&self) {
        owner::sweep(&self.tmp());
        if let Some(work) = &self.work {
            owner::sweep(&work.join("inputs"));
        }
    }

    /// The checkpoints of the work on one key; `kin`: beside those of keys whose states serve it too. `fallback` serves
    /// stores that are no folder.
    pub fn checkpoints(&self, key: &Digest, kin: Option<&Digest>, fallback: &Path) -> Checkpoints {
        let parent = self.local().map_or_else(|| fallback.to_owned(), |root| root.join("partial"));
        Checkpoints::new(&parent, key, kin)
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

fn run_path(run: &str) -> String {
    format!("runs/{run}.json")
}
