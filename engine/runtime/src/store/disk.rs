//! Durable writes on a local disk: written aside, renamed into place, then one wait until all of it is on the disk.
//!
//! object_store's own local backend is not used: it syncs one object after the other and copies what is already there.
//! Every call that changes the disk goes through [`durable`], so that a test can break each of them.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use llmflow_contract::Failure;
use nix::{
    fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2},
    sys::{stat::futimens, time::TimeSpec},
};

use super::Listed;
use crate::{failpoint, owner};

/// Files and folders that are synced at once. More waits than a disk has queues gain nothing.
const MOST_SYNCS: usize = 16;

/// A file of a byte for each time that something was taken away.
const REMOVALS: &str = "removals";

/// Folders of a store.
const FOLDERS: [&str; 9] =
    ["artifacts", "blobs", "claims", "keys", "partial", "quarantine", "runs", "tags", super::TMP];

/// A failure to write: what is missing inside the store is the environment's doing, not the user's.
pub(super) fn failed(doing: &str, path: PathBuf, error: &io::Error) -> Failure {
    if error.kind() != io::ErrorKind::NotFound {
        return Failure::io(doing, path, error);
    }
    let message = format!("the store went away while {doing} `{}`", path.display());
    Failure::environment("store/gone", message).cause(error).help("bring it back, and run the same command again")
}

fn durable<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    failpoint::durable("store", call)
}

/// A store in a folder.
pub(super) struct Disk {
    pub(super) root: PathBuf,
}

impl Disk {
    /// Is a store in this folder? The folder alone may be where a disk is mounted at other times.
    pub(super) fn is_at(path: &Path) -> bool {
        FOLDERS.iter().any(|name| path.join(name).is_dir())
    }

    /// Opens a store's folder, or makes it.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let mut unsynced = Unsynced::default();
        for name in FOLDERS {
            make_folder(&path.join(name), &mut unsynced)?; // one that somebody took away, too
        }
        unsynced.wait()?;
        let root = path.canonicalize().map_err(|error| Failure::io("opening", path, &error))?;
        Ok(Self { root })
    }

    pub(super) fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path(key);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::io("reading", path, &error)),
        }
    }

    pub(super) fn size(&self, key: &str) -> Result<Option<u64>, Failure> {
        let path = self.path(key);
        match fs::symlink_metadata(&path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::io("reading", path, &error)),
        }
    }

    /// Writes over what is there; durable once `unsynced` was waited for.
    pub(super) fn put(&self, key: &str, bytes: &[u8], unsynced: &mut Unsynced) -> Result<(), Failure> {
        let aside = self.write_aside(key, bytes)?;
        self.place(&aside, key, unsynced)
    }

    /// Writes where nothing is; says whether it did. What it wrote is durable on return.
    pub(super) fn create(&self, key: &str, bytes: &[u8]) -> Result<bool, Failure> {
        let (path, aside) = (self.path(key), self.write_aside(key, bytes)?);
        let mut unsynced = Unsynced::default();
        match durable(|| rename_where_nothing_is(&aside, &path)) {
            Ok(()) => {
                unsynced.file(path);
                unsynced.wait().map(|()| true)
            }
            Err(error) => {
                let _ = fs::remove_file(&aside);
                match error.kind() {
                    io::ErrorKind::AlreadyExists => Ok(false),
                    _ => Err(failed("writing", path, &error)),
                }
            }
        }
    }

    fn write_aside(&self, key: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let aside = self.root.join(super::TMP).join(format!("{}put-{number}", owner::prefix()));
        let written = durable(|| {
            let mut file = File::create(&aside)?;
            file.write_all(bytes)
        });
        written.map(|()| aside.clone()).map_err(|error| {
            let _ = fs::remove_file(&aside);
            failed("writing", self.path(key), &error)
        })
    }

    /// Writes over what is there, durable on return. Whole or not at all, where the power fails in between too: for what
    /// nothing could make anew.
    pub(super) fn put_whole(&self, key: &str, bytes: &[u8]) -> Result<(), Failure> {
        let (aside, mut unsynced) = (self.write_aside(key, bytes)?, Unsynced::default());
        self.move_to(&aside, key, true, &mut unsynced)?;
        unsynced.wait()
    }

    /// Moves a file of this disk to where `key` belongs, over what is there. Durable once `unsynced` was waited for.
    pub(super) fn place(&self, file: &Path, key: &str, unsynced: &mut Unsynced) -> Result<(), Failure> {
        // What stands there is lost with a new one that never comes to the disk: that one comes first.
        let stands = fs::symlink_metadata(self.path(key)).is_ok();
        self.move_to(file, key, stands, unsynced)
    }

    fn move_to(&self, file: &Path, key: &str, comes_first: bool, unsynced: &mut Unsynced) -> Result<(), Failure> {
        let path = self.path(key);
        let failed = |doing: &str, error: &io::Error| {
            let _ = fs::remove_file(file);
            failed(doing, path.clone(), error)
        };
        if comes_first {
            let synced = File::open(file).and_then(|file| durable(|| file.sync_all()));
            synced.map_err(|error| failed("storing", &error))?;
        }
        let mut renamed = rename(file, &path);
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        if let (Err(error), Some(folder)) = (&renamed, path.parent())
            && is_gone(error)
        {
            make_folder(folder, unsynced)?; // the first blob with these two digits
            renamed = rename(file, &path);
        }
        renamed.map_err(|error| failed("storing", &error))?;
        match path.parent() {
            Some(folder) if comes_first => unsynced.folder(folder),
            _ => unsynced.file(path),
        }
        Ok(())
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), Failure> {
        let path = self.path(key);
        match durable(|| fs::remove_file(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io("removing", path, &error)),
            _ => Ok(()),
        }
    }

    /// How often anything was taken away; it only grows. What stood at one count stands at the next look, if that finds
    /// the same.
    pub(super) fn removals(&self) -> Option<u64> {
        match fs::metadata(self.path(REMOVALS)) {
            Ok(meta) => Some(meta.len()),
            Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(0),
        }
    }

    /// Says that something is about to be taken away.
    pub(super) fn note_removal(&self) -> Result<(), Failure> {
        let path = self.path(REMOVALS);
        let noted = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut file| {
            match file.write_all(b".") {
                // Who frees a full disk begins here: a file grows without a block, though two at once would count as one.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => file.set_len(file.metadata()?.len() + 1),
                noted => noted,
            }
        });
        noted.map_err(|error| Failure::io("writing", path, &error))
    }

    /// Moves a damaged object out of the way; one that is gone already is no fault.
    pub(super) fn quarantine(&self, key: &str) -> Result<(), Failure> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = self.root.join("quarantine");
        let aside = folder.join(format!("{}{}-{number}", owner::prefix(), key.replace('/', "-")));
        let mut unsynced = Unsynced::default();
        make_folder(&folder, &mut unsynced)?;
        self.note_removal()?;
        match rename(&self.path(key), &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::io("setting aside", self.path(key), &error))
            }
            _ => Ok(()),
        }
    }

    /// Every file below `prefix`.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Listed>, Failure> {
        let mut found = Vec::new();
        let mut folders = vec![self.path(prefix)];
        while let Some(folder) = folders.pop() {
            let failed = |error: io::Error| Failure::io("listing", &folder, &error);
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(failed)?,
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let meta = match entry.metadata() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // just removed
                    meta => meta.map_err(failed)?,
                };
                if meta.is_dir() {
                    folders.push(entry.path());
                } else if let Some(key) = entry.path().strip_prefix(&self.root).ok().and_then(Path::to_str) {
                    // The change time: it tells when a file came to its place, however long ago it was written.
                    let changed_ms = u64::try_from(meta.ctime() * 1000 + meta.ctime_nsec() / 1_000_000).unwrap_or(0);
                    found.push(Listed { key: key.to_owned(), size_bytes: meta.len(), changed_ms });
                }
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// Says that a file is in use; one that cannot be told so is only older than it could be.
    pub(super) fn touch(&self, key: &str) {
        let _ = File::open(self.path(key)).map(|file| futimens(file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW));
    }

    /// Keeps gc from deleting while something is put in place (`shared`), or everybody from that while gc deletes.
    pub(super) fn lock(&self, arg: FlockArg) -> Result<Flock<File>, Failure> {
        self.flock(arg).map_err(|error| failed("locking", self.root.join("lock"), &error))
    }

    /// The same without a wait; `arg` says so, too.
    pub(super) fn try_lock(&self, arg: FlockArg) -> Result<Option<Flock<File>>, Failure> {
        match self.flock(arg) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            lock => lock.map(Some).map_err(|error| failed("locking", self.root.join("lock"), &error)),
        }
    }

    fn flock(&self, arg: FlockArg) -> io::Result<Flock<File>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.root.join("lock"))?;
        Flock::lock(file, arg).map_err(|(_, errno)| errno.into())
    }
}

/// What was put in place and is not known to be on the disk yet.
#[derive(Default)]
pub(super) struct Unsynced {
    files: Vec<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Unsynced {
    /// A file and its entry in its folder.
    pub(super) fn file(&mut self, path: PathBuf) {
        if let Some(folder) = path.parent() {
            self.folder(folder);
        }
        self.files.push(path);
    }

    /// What a folder lists.
    pub(super) fn folder(&mut self, path: &Path) {
        if !self.folders.contains(path) {
            self.folders.insert(path.to_owned());
        }
    }

    /// Waits until all of it is on the disk: all at once, so that the file system can commit it at once.
    ///
    /// # Errors
    /// The first sync that failed. A file whose sync failed is removed: the kernel may have dropped its pages and would
    /// report a second sync as done.
    pub(super) fn wait(self) -> Result<(), Failure> {
        let mut paths: Vec<(PathBuf, bool)> = (self.files.into_iter().map(|path| (path, true)))
            .chain(self.folders.into_iter().map(|path| (path, false)))
            .collect();
        let Some((last, is_file)) = paths.pop() else { return Ok(()) };
        let (answers, results) = mpsc::channel();
        let others = paths.len();
        for (path, is_file) in paths {
            let answers = answers.clone();
            let job: Job = Box::new(move || {
                let _ = answers.send(sync(&path, is_file)); // heard unless the caller died
            });
            if let Err(mpsc::SendError(job)) = SYNCERS.send(job) {
                job(); // no thread could be started
            }
        }
        let mut first = sync(&last, is_file);
        drop(answers);
        let mut heard = 0;
        for result in results {
            heard += 1;
            first = first.and(result);
        }
        if heard < others { first.and(Err(Failure::bug("a sync panicked"))) } else { first }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that wait for the disk. They stay: a stage has a dozen syncs, and starting a thread costs as much as some disks
/// take for one.
static SYNCERS: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
    let (jobs, inbox) = mpsc::channel::<Job>();
    let inbox = Arc::new(Mutex::new(inbox));
    for _ in 1..MOST_SYNCS {
        let inbox = inbox.clone();
        // Where none can be started, whoever waits syncs one after the other.
        let _ = thread::Builder::new().name("sync".into()).spawn(move || {
            loop {
                let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
                match job {
                    Ok(job) => job(),
                    Err(_) => break,
                }
            }
        });
    }
    jobs
});

/// Syncs a file or a folder; a file whose sync failed is removed.
fn sync(path: &Path, is_file: bool) -> Result<(), Failure> {
    File::open(path).and_then(|file| durable(|| file.sync_all())).map_err(|error| {
        if is_file {
            let _ = fs::remove_file(path);
        }
        Failure::io("syncing", path, &error)
    })
}

/// Makes a folder and those above it.
pub(super) fn make_folder(folder: &Path, unsynced: &mut Unsynced) -> Result<(), Failure> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent();
    if let Some(parent) = parent {
        make_folder(parent, unsynced)?;
    }
    match durable(|| fs::create_dir(folder)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Failure::io("making", folder, &error)),
        _ => {
            unsynced.folder(parent.unwrap_or(folder));
            Ok(())
        }
    }
}

/// Renames; durable once both folders are.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    durable(|| fs::rename(from, to))
}

/// `ENOSYS`, `EINVAL`: a file system that cannot; there a hard link is as atomic.
pub(crate) fn rename_where_nothing_is(from: &Path, to: &Path) -> io::Result<()> {
    use nix::errno::Errno;
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::ENOSYS | Errno::EINVAL) => fs::hard_link(from, to).and_then(|()| fs::remove_file(from)),
        done => done.map_err(io::Error::from),
    }
}

/// Makes an output's file fit to be a blob: one that nobody else can write to, under a name of its own.
///
/// A link is replaced by a copy: storing it would store the link, or a file that its owner goes on changing.
pub(super) fn detach(file: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(file)?;
    if meta.is_symlink() || meta.nlink() > 1 {
        let copy = file.with_file_name(format!("{}copy", owner::prefix()));
        fs::copy(file, &copy)?;
        fs::rename(&copy, file)?;
    }
    fs::set_permissions(file, Permissions::from_mode(0o444))
}

/// May its owner execute it?
pub(super) fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o100 != 0)
}

/// Every file below a folder, by its `/`-separated path, sorted. Symbolic links are followed, other things refused.
pub(super) fn files_below(root: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| Failure::io("listing", &folder, &error))? {
            let path = entry.map_err(|error| Failure::io("listing", &folder, &error))?.path();
            let meta = fs::metadata(&path).map_err(|error| Failure::io("reading", &path, &error))?;
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            let inner = path.strip_prefix(root).ok().and_then(Path::to_str);
            match inner {
                Some(inner) if meta.is_file() => files.push((inner.to_owned(), path.clone())),
                _ => {
                    return Err(Failure::bug(format!(
                        "an output holds `{}`, no file with a UTF-8 name",
                        path.display()
                    )));
                }
            }
        }
    }
    files.sort();
    Ok(files)
}
