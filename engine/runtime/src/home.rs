//! The home folder `.llmflow/`: where a project's state lies.
//!
//! Owns: finding or making it, its layout, the lock that says whether a run's process lives.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use llmflow_contract::Failure;
use nix::{
    fcntl::{Flock, FlockArg},
    unistd::{AccessFlags, access},
};
use tempfile::TempDir;

use crate::{event::RunId, owner};

/// Name of the home where nothing else is asked for.
pub const FOLDER: &str = ".llmflow";
/// The list of other stores, a URL a line: what finds them where the history is lost.
const STORES: &str = "stores";
/// What every home holds: backups may leave it out.
const TAG: &str = "CACHEDIR.TAG";
const IGNORE: &str = ".gitignore";
/// Name of the list of places where this home lay: records of its runs in other stores name it by these.
const PLACES: &str = "places";
const DATABASE: &str = "lineage.db";
/// What lies in a home beside its database, the journals of that, and what that is made from.
const OWN: [&str; 6] = [TAG, IGNORE, PLACES, STORES, "store", "work"];

/// `.llmflow/`: `lineage.db`, `store/`, `stores`, `places`, `work/`.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
    /// Of one that may be read and not written: where what it takes to look at it lies meanwhile.
    aside: Option<Arc<TempDir>>,
}

/// Held while a run's process lives; the kernel lets go of it when that process dies.
#[derive(Debug)]
pub struct RunLock {
    #[allow(dead_code, reason = "held for its drop")]
    lock: Flock<File>,
    /// Of a run, whose name is its own: nothing is left of it.
    path: Option<PathBuf>,
}

impl Drop for RunLock {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path); // while it is held: who waits for it sees that it is gone
        }
    }
}

impl Home {
    /// `explicit`, else the nearest `.llmflow/` above `start`, else a new one at the git checkout around `start`, else in `start`.
    pub fn open(explicit: Option<&Path>, start: &Path) -> Result<Self, Failure> {
        Self::make(Self::find(explicit, start)?)
    }

    /// The same for who only looks: one that may not be written, on a medium or of somebody else, is left as it is.
    pub fn look(explicit: Option<&Path>, start: &Path) -> Result<Self, Failure> {
        let root = Self::find(explicit, start)?;
        let is_writable = |path: &PathBuf| !path.exists() || access(path, AccessFlags::W_OK).is_ok();
        let (database, work) = (root.join(DATABASE), root.join("work"));
        if !database.exists() || [&root, &work, &database].into_iter().all(is_writable) {
            return Self::make(root);
        }
        let root = root.canonicalize().map_err(|error| Failure::io("opening", &root, &error))?;
        Self { root, aside: None }.left_alone()
    }

    /// The same home, of which nothing is written: it is looked at elsewhere.
    ///
    /// # Errors
    /// Of the environment if there is no room for that.
    pub fn left_alone(&self) -> Result<Self, Failure> {
        // A history may be read by those who may read the home, and by nobody else.
        let own = Permissions::from_mode(0o700);
        let aside = tempfile::Builder::new().prefix("llmflow-").permissions(own).tempdir();
        let aside = aside.map_err(|error| Failure::io("making", std::env::temp_dir(), &error))?;
        Ok(Self { root: self.root.clone(), aside: Some(Arc::new(aside)) })
    }

    /// Where the home is, or would be made.
    ///
    /// # Errors
    /// `home/occupied`
    pub fn find(explicit: Option<&Path>, start: &Path) -> Result<PathBuf, Failure> {
        let start = if start.as_os_str().is_empty() { Path::new(".") } else { start };
        let start = start.canonicalize().map_err(|error| Failure::io("opening", start, &error))?;
        let above = |name: &str| start.ancestors().find(|folder| folder.join(name).exists()).map(Path::to_owned);
        Ok(match explicit {
            Some(path) => Self::named(path)?,
            None => above(FOLDER).or_else(|| above(".git")).unwrap_or(start).join(FOLDER),
        })
    }

    fn make(root: PathBuf) -> Result<Self, Failure> {
        fs::create_dir_all(root.join("work")).map_err(|error| Failure::io("making", &root, &error))?;
        let root = root.canonicalize().map_err(|error| Failure::io("opening", &root, &error))?;
        for (name, text) in [
            (IGNORE, "*\n"),
            (TAG, "Signature: 8a477f597d28d172789f06886806bc55\n# LLMflow's state: may be left out of backups.\n"),
        ] {
            let path = root.join(name);
            if !path.exists() {
                fs::write(&path, text).map_err(|error| Failure::io("writing", &path, &error))?;
            }
        }
        let home = Self { root, aside: None };
        home.remember(PLACES, &home.root.to_string_lossy())?; // lost in a power cut, it is noted the next time
        Ok(home)
    }

    /// A folder that is to be a home: one already, or empty, or not there. One whose making was cut short, or whose tag a power
    /// cut took, holds nothing but what homes hold.
    fn named(path: &Path) -> Result<PathBuf, Failure> {
        let is_own = |name: &str| OWN.contains(&name) || name.starts_with("lineage.");
        let is_a_homes = |entry: std::io::Result<fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_own))
        };
        if path.join(TAG).exists() || path.read_dir().map_or(true, |mut entries| entries.all(is_a_homes)) {
            return Ok(path.to_owned());
        }
        let message = format!("`{}` holds other things, and is no home of LLMflow", path.display());
        let below = path.join(FOLDER);
        Err(Failure::input("home/occupied", message).help(match below.is_dir() {
            true => format!("--home {}", below.display()),
            false => "name a folder that is empty, or not there yet".to_owned(),
        }))
    }

    /// Where this home lies, and lay before it was moved.
    ///
    /// # Errors
    /// Of the environment if the list is there and cannot be read.
    pub fn places(&self) -> Result<Vec<PathBuf>, Failure> {
        Ok(self.listed(PLACES)?.into_iter().map(PathBuf::from).collect())
    }

    /// Where something lies now that was noted with this path: what lay below the folder of this home before that was copied or
    /// moved lies below it still, if it is there.
    ///
    /// # Errors
    /// Those of [`Home::places`].
    pub fn here(&self, noted: &Path) -> Result<PathBuf, Failure> {
        let Some(project) = self.root.parent() else { return Ok(noted.to_owned()) };
        let former = self.places()?.into_iter().filter(|place| *place != self.root);
        let below = former.filter_map(|place| Some(project.join(noted.strip_prefix(place.parent()?).ok()?)));
        let found = if noted.starts_with(project) { None } else { below.into_iter().find(|path| path.exists()) };
        Ok(found.unwrap_or_else(|| noted.to_owned()))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    pub fn database(&self) -> PathBuf {
        self.root.join(DATABASE)
    }
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }
    /// The stores, by URL, that runs of this home used in place of its own: their records are its history, too.
    ///
    /// # Errors
    /// Of the environment if the list is there and cannot be read.
    pub fn other_stores(&self) -> Result<Vec<String>, Failure> {
        self.listed(STORES)
    }
    /// Remembers a store that is not this home's own; durable on return.
    ///
    /// # Errors
    /// Of the environment if the home cannot be written.
    pub fn remember_store(&self, url: &str) -> Result<(), Failure> {
        let Some(list) = self.remember(STORES, url)? else { return Ok(()) };
        let synced = list.sync_all().and_then(|()| File::open(&self.root)?.sync_all());
        synced.map_err(|error| Failure::io("writing", self.root.join(STORES), &error))
    }

    /// The lines of a small file of the home.
    fn listed(&self, name: &str) -> Result<Vec<String>, Failure> {
        let path = self.root.join(name);
        let listed = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(|error| Failure::io("reading", &path, &error))?,
        };
        Ok(listed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }
    /// Adds a line to one, unless it has it; gives the file it was added to.
    fn remember(&self, name: &str, line: &str) -> Result<Option<File>, Failure> {
        if self.listed(name)?.iter().any(|known| known == line) {
            return Ok(None);
        }
        let path = self.root.join(name);
        let added = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut list| {
            list.write_all(format!("{line}\n").as_bytes())?;
            Ok(list)
        });
        added.map(Some).map_err(|error| Failure::io("writing", &path, &error))
    }

    /// Where a home that may not be written is copied to as far as it takes to look at it; gone with the last of these.
    pub fn aside(&self) -> Option<&Arc<TempDir>> {
        self.aside.as_ref()
    }
    /// What may be lost: half-written things, files fetched from a store elsewhere, locks.
    pub fn work(&self) -> PathBuf {
        match &self.aside {
            Some(aside) => aside.path().to_owned(),
            None => self.own_work(),
        }
    }
    fn own_work(&self) -> PathBuf {
        self.root.join("work")
    }
    /// A folder of its own for something half-written; gone when it is dropped, swept where its process died.
    ///
    /// # Errors
    /// Of the environment if the home cannot be written.
    pub fn scratch(&self, name: &str) -> Result<tempfile::TempDir, Failure> {
        let parent = self.work().join("scratch");
        let failed = |error: std::io::Error| Failure::io("making", &parent, &error);
        fs::create_dir_all(&parent).map_err(failed)?;
        tempfile::Builder::new().prefix(&format!("{}{name}-", owner::prefix())).tempdir_in(&parent).map_err(failed)
    }
    /// Where what a worker prints is kept.
    pub fn log(&self, run: &RunId, stage: &str, attempt: u32) -> PathBuf {
        self.own_work().join("logs").join(&run.0).join(format!("{stage}.{attempt}.log"))
    }

    fn lock_path(&self, run: &RunId) -> PathBuf {
        self.own_work().join(format!("{run}.lock"))
    }

    /// Says that this process owns the run.
    pub fn lock(&self, run: &RunId) -> Result<RunLock, Failure> {
        let path = self.lock_path(run);
        let failed = |error: std::io::Error| Failure::io("locking", &path, &error);
        loop {
            let file = File::create(&path).map_err(failed)?;
            let made = file.metadata().map_err(failed)?.ino();
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
                Failure::environment("run/busy", format!("run `{run}` is in progress in another process"))
                    .help("wait for it, or stop that process; then run the same command again")
            })?;
            // Who held it until now took the file away with it.
            if fs::metadata(&path).is_ok_and(|found| found.ino() == made) {
                return Ok(RunLock { lock, path: Some(path) });
            }
        }
    }

    /// Waits until no other process of this home is at what `name` stands for.
    ///
    /// # Errors
    /// Of the environment if the home cannot be written.
    pub fn alone(&self, name: &str) -> Result<RunLock, Failure> {
        let path = self.work().join(format!("{name}.alone")); // no lock of a run is called so
        let file = File::create(&path).map_err(|error| Failure::io("locking", &path, &error))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map(|lock| RunLock { lock, path: None })
            .map_err(|(_, error)| Failure::io("locking", &path, &error.into()))
    }

    /// Does a process hold this run?
    pub fn is_alive(&self, run: &RunId) -> bool {
        let Ok(file) = File::open(self.lock_path(run)) else { return false };
        Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
    }

    /// A run that a process holds, if there is one.
    pub fn live_run(&self) -> Option<RunId> {
        let entries = fs::read_dir(self.own_work()).ok()?;
        let runs = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Some(RunId(name.strip_suffix(".lock")?.to_owned()))
        });
        runs.into_iter().find(|run| self.is_alive(run))
    }

    /// Says beside a failure for want of space how much there is.
    pub fn with_free_space(&self, failure: Failure) -> Failure {
        match self.free_bytes().filter(|_| failure.code == "disk/full") {
            Some(free) => failure.cause(format!("{free} bytes are free where `{}` lies", self.root.display())),
            None => failure,
        }
    }

    /// Free bytes on the disk that holds the store.
    pub fn free_bytes(&self) -> Option<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.root).ok()?;
        Some(stat.blocks_available() as u64 * stat.fragment_size() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_becomes_a_home_unless_it_holds_other_things() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("home");
        let open = || Home::open(Some(&named), folder.path()).map(|_| ());
        open().unwrap();
        fs::remove_file(named.join(TAG)).unwrap(); // of a run that was killed at its first step, or a power cut
        fs::write(named.join("lineage.db-wal"), "").unwrap();
        open().unwrap();
        fs::remove_file(named.join(TAG)).unwrap();
        fs::write(named.join("notes.md"), "mine").unwrap();
        assert_eq!(open().err().unwrap().code, "home/occupied");
        assert!(!named.join(TAG).exists());
    }

    #[test]
    fn what_lay_beside_a_home_that_was_moved_lies_beside_it_still() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.join(name));
        for place in [&old, &new] {
            fs::create_dir_all(place.join("data")).unwrap();
        }
        Home::open(None, &old).unwrap();
        fs::rename(old.join(FOLDER), new.join(FOLDER)).unwrap();
        let home = Home::open(None, &new).unwrap();
        assert_eq!(home.here(&old.join("data")).unwrap(), new.join("data"));
        assert_eq!(home.here(&new.join("data")).unwrap(), new.join("data"));
        assert_eq!(home.here(&old.join("gone")).unwrap(), old.join("gone"));
        assert_eq!(home.here(&folder.join("data")).unwrap(), folder.join("data"));
    }

    #[test]
    fn what_is_copied_to_be_looked_at_is_for_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path()), folder.path()).unwrap().left_alone().unwrap();
        assert_eq!(fs::metadata(home.work()).unwrap().mode() & 0o777, 0o700);
        assert!(home.work() != folder.path().join("work"));
    }

    #[test]
    fn the_nearest_home_above_is_found_and_a_dead_owner_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::create_dir(folder.path().join(".git")).unwrap();
        let home = Home::open(None, &inner).unwrap();
        assert_eq!(home.root(), folder.path().canonicalize().unwrap().join(".llmflow"));
        let run = RunId("quiet-otter".into());
        assert!(!home.is_alive(&run));
        let lock = home.lock(&run).unwrap();
        assert!(home.is_alive(&run));
        assert!(home.lock(&run).is_err());
        drop(lock);
        assert!(!home.is_alive(&run) && !home.lock_path(&run).exists(), "nothing is left of it");
    }
}
