//! Claims: one key is worked on once at a time, as long as the store is a folder of this machine.
//!
//! A claim is a kernel lock on a file below `claims/`: it dies with its process, however that ends. The file is named by
//! what is claimed and removed while the lock is held, so none is left behind; one that is left means nothing.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use llmflow_contract::{Digest, Failure};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

use super::{Listed, Store};
use crate::event::{RunId, now_ms};

/// Claims of runs begin so; those of keys are digests.
const RUN: &str = "run-";

/// The right to work on a key, or the sign that a run is in progress. Given back when it is dropped.
#[derive(Debug)]
pub struct Claim {
    /// None: the store is elsewhere, and whoever asks is given it.
    held: Option<(File, PathBuf)>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((_, path)) = &self.held {
            let _ = fs::remove_file(path); // before the lock goes: who opens it later makes a new one
        }
    }
}

impl Claim {
    /// Of a run: says that it stands on the results of these keys, too. Say so while gc is kept out ([`Store::share`]).
    ///
    /// # Errors
    /// Of the environment if the store's folder cannot be written.
    pub fn stand_on(&self, keys: impl Iterator<Item = Digest>) -> Result<(), Failure> {
        let Some((file, path)) = &self.held else { return Ok(()) };
        let text: String = keys.map(|key| format!("{}\n", key.hex())).collect();
        (&*file).write_all(text.as_bytes()).map_err(|error| Failure::io("writing", path, &error))
    }
}

impl Store {
    /// Claims a key. None: another process, or another holder in this one, works on it.
    ///
    /// # Errors
    /// Of the environment if the store's folder cannot be written.
    pub fn claim(&self, key: &Digest) -> Result<Option<Claim>, Failure> {
        self.claim_name(&key.hex())
    }

    /// Does anybody work on this key?
    pub fn is_claimed(&self, key: &Digest) -> bool {
        self.is_name_claimed(&key.hex())
    }

    /// Says that a run is in progress, and that it stands on the results of these keys: until it is dropped, gc keeps those,
    /// and whatever came since, because the run's record may not name them yet. Held by the engine.
    ///
    /// # Errors
    /// As [`Store::claim`].
    pub fn attend(&self, run: &RunId, keys: impl Iterator<Item = Digest>) -> Result<Option<Claim>, Failure> {
        let Some(claim) = self.claim_name(&format!("{RUN}{run}"))? else { return Ok(None) };
        if let Some((file, path)) = &claim.held {
            let begun = file.set_len(0).and_then(|()| writeln!(&*file, "{}", now_ms()));
            begun.map_err(|error| Failure::io("writing", path, &error))?;
            let _shared = self.share()?;
            claim.stand_on(keys)?;
        }
        Ok(Some(claim))
    }

    /// The keys whose results the runs in progress stand on.
    pub(super) fn attended(&self) -> BTreeSet<Digest> {
        self.live_runs().iter().flat_map(|(_, text)| text.lines()).filter_map(|line| line.parse().ok()).collect()
    }

    /// When each run in progress began, in milliseconds since 1970, and its claim: that moment, then the keys that it stands
    /// on, a line each. One that has not said when it began did so when its claim was made.
    fn live_runs(&self) -> Vec<(u64, String)> {
        let listed = self.disk().and_then(|disk| disk.list("claims").ok()).unwrap_or_default();
        let read = |object: &Listed| {
            let name = object.key.rsplit('/').next().filter(|name| name.starts_with(RUN))?;
            let text = self.is_name_claimed(name).then(|| fs::read_to_string(self.claim_path(name)?).ok())??;
            let began_ms = text.lines().next().and_then(|line| line.parse().ok()).unwrap_or(object.changed_ms);
            Some((began_ms, text))
        };
        listed.iter().filter_map(read).collect()
    }

    /// When the oldest run in progress began, in milliseconds since 1970.
    pub(super) fn oldest_run_ms(&self) -> Option<u64> {
        self.live_runs().iter().map(|(began_ms, _)| *began_ms).min()
    }

    /// Removes the files of claims whose holders were killed: they mean nothing any more.
    pub(super) fn sweep_claims(&self) -> Result<(), Failure> {
        let Some(disk) = self.disk() else { return Ok(()) };
        for object in disk.list("claims")? {
            if let Some(name) = object.key.rsplit('/').next() {
                drop(self.claim_name(name)?);
            }
        }
        Ok(())
    }

    fn claim_name(&self, name: &str) -> Result<Option<Claim>, Failure> {
        let Some(path) = self.claim_path(name) else { return Ok(Some(Claim { held: None })) };
        let failed = |error: io::Error| Failure::io("claiming", &path, &error);
        loop {
            let file = match open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match fs::create_dir(path.parent().unwrap_or(&path)) {
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                        made => made.map_err(|error| super::disk::failed("claiming", path.clone(), &error))?,
                    }
                    continue;
                }
                file => file.map_err(failed)?,
            };
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => return Ok(None),
                Err(errno) => return Err(failed(errno.into())),
            }
            // Its last holder may have removed it between our opening and our locking it.
            let is_ours = fs::metadata(&path).is_ok_and(|there| {
                file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
            });
            if is_ours {
                return Ok(Some(Claim { held: Some((file, path)) }));
            }
        }
    }

    /// Asks the kernel who would be in the way; takes nothing, so that it is in nobody's way itself.
    fn is_name_claimed(&self, name: &str) -> bool {
        let Some(file) = self.claim_path(name).and_then(|path| File::open(path).ok()) else { return false };
        let mut lock = whole_file();
        let asked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock));
        asked.is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
    }

    fn claim_path(&self, name: &str) -> Option<PathBuf> {
        Some(self.local()?.join("claims").join(name))
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// A lock of the open file, not of the process: threads exclude each other too.
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0, // to the end
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn one_holder_at_a_time_and_none_when_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = (Store::open_local(folder.path()).unwrap(), Store::open_local(folder.path()).unwrap());
        let key = Digest::of(b"key");
        assert!(!store.is_claimed(&key));
        let claim = store.claim(&key).unwrap().unwrap();
        assert!(other.claim(&key).unwrap().is_none());
        assert!(other.is_claimed(&key) && store.is_claimed(&key));
        assert!(other.claim(&Digest::of(b"another")).unwrap().is_some());
        drop(claim);
        assert!(!other.is_claimed(&key));
        assert_eq!(fs::read_dir(folder.path().join("claims")).unwrap().count(), 0);
        fs::write(folder.path().join("claims").join(key.hex()), "left by a dead process").unwrap();
        assert!(!other.is_claimed(&key));
        assert!(other.claim(&key).unwrap().is_some());
    }

    /// Whoever finds the file of a holder that is just leaving must not hold a lock that nobody else sees.
    #[test]
    fn threads_that_race_for_a_claim_never_hold_it_together() {
        let folder = tempfile::tempdir().unwrap();
        let (holders, granted) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let barrier = Barrier::new(16);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let store = Store::open_local(folder.path()).unwrap();
                    barrier.wait();
                    for _ in 0..200 {
                        let Some(claim) = store.claim(&Digest::of(b"key")).unwrap() else { continue };
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        granted.fetch_add(1, Ordering::SeqCst);
                        holders.fetch_sub(1, Ordering::SeqCst);
                        drop(claim);
                    }
                });
            }
        });
        assert!(granted.load(Ordering::SeqCst) > 0);
    }

    #[test]
    fn a_store_elsewhere_grants_every_claim() {
        let store = Store::open("memory://claims").unwrap();
        let key = Digest::of(b"key");
        let first = store.claim(&key).unwrap();
        assert!(first.is_some() && store.claim(&key).unwrap().is_some() && !store.is_claimed(&key));
    }
}
