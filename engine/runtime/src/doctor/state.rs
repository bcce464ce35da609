//! A home: its disk and file system, locks, clock, database, store, and what was left behind.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access},
};

use super::{Finding, size};
use crate::{
    device::filesystem::{self, Kind},
    home::Home,
    lineage::Lineage,
    owner,
    store::Store,
};

/// Less free space than this fails the next model.
const LITTLE_BYTES: u64 = 1 << 30;
/// How far the clock of a file system may be from the machine's: more confuses what "changed since" means.
const SKEW: Duration = Duration::from_secs(2);

/// What to do about a place that may not be written.
const ELSEWHERE: &str = "keep state where it can be written: `--home FOLDER` or LLMFLOW_HOME";

/// Of a home that nobody has made yet: could it be?
pub(super) fn to_be(place: &Path) -> Finding {
    let around = place.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    match access(around, AccessFlags::W_OK) {
        Ok(()) => Finding::fine("folder", format!("`{}` can be made", place.display())),
        Err(error) => {
            let found = format!("`{}` cannot be made: {}", place.display(), error.desc());
            Finding::broken("folder", found, ELSEWHERE)
        }
    }
}

pub(super) async fn findings(home: &Home) -> Vec<Finding> {
    if home.aside().is_some() {
        let found = "may be read, not written: `show` and its like work, `run` does not";
        return vec![Finding::broken("folder", found, ELSEWHERE), database_of(home).await.1];
    }
    let mut findings = vec![disk(home.root())];
    let kind = filesystem::kind(home.root());
    let (mode, database) = database_of(home).await;
    findings.extend([file_system(&kind, &mode), locks(&home.work()), skew(&home.work()), database]);
    match Store::open_local(&home.store()) {
        Ok(store) => findings.push(create_only(&store).await),
        Err(failure) => findings.push(Finding::failed("store", &failure)),
    }
    findings.push(left_behind(home));
    findings
}

#[expect(clippy::unnecessary_cast, reason = "the types of these counts differ between systems")]
fn disk(root: &Path) -> Finding {
    match statvfs(root) {
        Ok(stat) => space(
            stat.blocks_available() as u64 * stat.fragment_size() as u64,
            stat.blocks() as u64 * stat.fragment_size() as u64,
            (stat.files() as u64 > 0).then_some(stat.files_available() as u64),
        ),
        Err(error) => Finding::broken("disk", format!("its free space cannot be read: {error}"), "look at the disk"),
    }
}

/// `files`: how many more there may be, where the file system counts them.
fn space(free: u64, total: u64, files: Option<u64>) -> Finding {
    let found = format!("{} of {} free", size(free), size(total));
    let fix = "free some: `llmflow gc`; or move the state with `--home FOLDER`";
    match files {
        Some(files) if files < 1000 => Finding::broken("disk", format!("{found}, but only {files} files more"), fix),
        _ if free < LITTLE_BYTES => Finding::broken("disk", found, fix),
        _ => Finding::fine("disk", found),
    }
}

fn file_system(kind: &Kind, journal_mode: &str) -> Finding {
    let name = kind.name();
    let fix = "keep the home on a local disk: `--home FOLDER` or LLMFLOW_HOME";
    match kind {
        Kind::Local(_) => Finding::fine("file system", format!("{name}, local")),
        Kind::Network(_) if journal_mode == "wal" => Finding::broken(
            "file system",
            format!("{name} is shared between machines: the history's write-ahead log is unsafe there"),
            fix,
        ),
        Kind::Network(_) => {
            Finding::note("file system", format!("{name} is shared between machines: one at a time may run here"), fix)
        }
    }
}

/// Takes a lock twice: the second must wait while the first is held, and get it once it is not.
fn locks(work: &Path) -> Finding {
    let try_out = || -> std::io::Result<(bool, bool)> {
        let file = tempfile::Builder::new().prefix(&owner::prefix()).tempfile_in(work)?;
        let take = || Ok::<_, std::io::Error>(Flock::lock(File::open(file.path())?, FlockArg::LockExclusiveNonblock));
        let first = take()?.map_err(|(_, error)| error)?;
        let is_kept = take()?.is_err();
        drop(first);
        Ok((is_kept, take()?.is_ok()))
    };
    let fix = "keep the home on a local disk: `--home FOLDER` or LLMFLOW_HOME";
    match try_out() {
        Ok((true, true)) => Finding::fine("locks", "kernel locks hold, and are given back"),
        Ok((false, _)) => Finding::broken("locks", "two could hold one lock: runs would not notice each other", fix),
        Ok((true, false)) => Finding::broken("locks", "a lock outlives who held it", fix),
        Err(error) => Finding::broken("locks", format!("no kernel locks here: {error}"), fix),
    }
}

/// Compares the clock that stamps files with the machine's.
fn skew(work: &Path) -> Finding {
    let stamped = || -> std::io::Result<SystemTime> {
        tempfile::Builder::new().prefix(&owner::prefix()).tempfile_in(work)?.as_file().metadata()?.modified()
    };
    match stamped() {
        Ok(stamp) => apart(stamp, SystemTime::now()),
        Err(error) => Finding::broken(
            "file clock",
            format!("no file can be made in `{}`: {error}", work.display()),
            "look at the folder's owner and permissions, and whether the disk is mounted read-only",
        ),
    }
}

fn apart(stamp: SystemTime, now: SystemTime) -> Finding {
    let apart = now.duration_since(stamp).unwrap_or_else(|error| error.duration());
    if apart > SKEW {
        let found = format!("files are stamped {} s off this machine's clock", apart.as_secs());
        return Finding::note("file clock", found, "synchronise the clocks of the file server and this machine");
    }
    Finding::fine("file clock", "agrees with the machine's")
}

/// The history's journal mode, and how it is.
async fn database_of(home: &Home) -> (String, Finding) {
    let lineage = match Lineage::open(home).await {
        Ok(lineage) => lineage,
        Err(failure) => return (String::new(), Finding::failed("database", &failure)),
    };
    let (sqlite, mode) = lineage.sqlite().await.unwrap_or_default();
    let found = match lineage.damage().await {
        Ok(damage) => database(&damage, &sqlite, &mode),
        Err(failure) => Finding::failed("database", &failure),
    };
    lineage.close().await;
    (mode, found)
}

fn database(damage: &[String], sqlite: &str, journal_mode: &str) -> Finding {
    match damage.first() {
        None => Finding::fine("database", format!("whole (SQLite {sqlite}, journal: {journal_mode})")),
        Some(first) => Finding::broken(
            "database",
            format!("`lineage.db` is damaged: {first}"),
            "move `lineage.db` away and run again: history starts anew, results in the store stay",
        ),
    }
}

async fn create_only(store: &Store) -> Finding {
    match store.is_create_only().await {
        Ok(true) => Finding::fine("store", format!("{} answers; of two creations one wins", store.url())),
        Ok(false) => Finding::broken(
            "store",
            format!("{} lets a second creation overwrite the first: two runs could both win", store.url()),
            "use a store that honours create-only writes (`If-None-Match: *`), or a local folder",
        ),
        Err(failure) => Finding::failed("store", &failure),
    }
}

/// What unfinished and damaged work takes up.
fn left_behind(home: &Home) -> Finding {
    let store = home.store();
    let parts = [
        ("unfinished", store.join("partial")),
        ("half-written", store.join("tmp")),
        ("scratch", home.work().join("scratch")),
        ("quarantined", store.join("quarantine")),
    ];
    let sizes = parts.map(|(name, folder)| (name, bytes_below(&folder)));
    remains(&sizes)
}

fn remains(sizes: &[(&str, u64)]) -> Finding {
    let some: Vec<String> =
        sizes.iter().filter(|(_, bytes)| *bytes > 0).map(|(name, bytes)| format!("{name} {}", size(*bytes))).collect();
    if some.is_empty() {
        return Finding::fine("left behind", "nothing");
    }
    Finding::note("left behind", some.join(", "), "the next run goes on from it, or sweeps it; `llmflow gc` removes it")
}

/// Bytes of the files below a folder; what vanishes meanwhile counts nothing.
fn bytes_below(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn a_full_disk_is_broken_and_so_is_one_that_takes_no_more_files() {
        assert_eq!(space(59 << 30, 100 << 30, Some(1 << 20)).found, "59.0 GiB of 100 GiB free");
        assert_eq!(space(1 << 20, 100 << 30, None).verdict, Verdict::Broken);
        assert_eq!(space(59 << 30, 100 << 30, Some(3)).verdict, Verdict::Broken);
    }

    #[test]
    fn a_write_ahead_log_on_a_shared_file_system_is_broken() {
        let nfs = Kind::Network("nfs".into());
        assert_eq!(file_system(&nfs, "wal").verdict, Verdict::Broken);
        assert_eq!(file_system(&nfs, "delete").verdict, Verdict::Note);
        assert_eq!(file_system(&Kind::Local("ext4".into()), "wal").verdict, Verdict::Fine);
    }

    #[test]
    fn clocks_may_be_a_little_apart() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(apart(now - Duration::from_secs(1), now).verdict, Verdict::Fine);
        assert_eq!(apart(now + Duration::from_secs(60), now).verdict, Verdict::Note);
    }

    #[test]
    fn what_is_left_behind_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b"), [0; 2048]).unwrap();
        assert_eq!((bytes_below(folder.path()), bytes_below(Path::new("/nowhere/at/all"))), (2048, 0));
        assert_eq!(remains(&[("unfinished", 2048), ("quarantined", 0)]).found, "unfinished 2.0 KiB");
        assert_eq!(remains(&[("scratch", 0)]).verdict, Verdict::Fine);
    }

    #[tokio::test]
    async fn a_new_home_is_well_and_a_damaged_history_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(&folder.path().join("home")), folder.path()).unwrap();
        let verdict = |findings: &[Finding], subject: &str| {
            findings.iter().find(|finding| finding.subject == subject).map(|finding| finding.verdict)
        };
        let well = findings(&home).await;
        for subject in ["locks", "file clock", "database", "store", "left behind"] {
            assert_eq!(verdict(&well, subject), Some(Verdict::Fine), "{subject}: {well:?}");
        }
        fs::write(home.database(), [7; 4096]).unwrap();
        let _ = fs::remove_file(folder.path().join("home/lineage.db-wal"));
        assert_eq!(verdict(&findings(&home).await, "database"), Some(Verdict::Broken));
    }
}
