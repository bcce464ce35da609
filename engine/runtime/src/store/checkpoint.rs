//! Checkpoints: numbered folders of unfinished work, each with the digests of its files.
//!
//! `partial/<key>/<number>`, or `partial/<kin>/<key>/<number>` where states of other keys serve too: five epochs go on from
//! three. Each key writes into a folder of its own, under its own claim, and takes over what it goes on with from another's.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use llmflow_contract::{Checkpoint, Digest, Failure, Reach};

use super::{
    disk::{self, Unsynced},
    seal,
};
use crate::owner;

const SUMS: &str = "SUMS.json";
/// The newest may be torn by a dying disk; the one before it then serves.
const KEPT: usize = 2;

/// The checkpoints of one work, newest last.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    /// Holds the folders of all keys whose states serve one another, this one's too.
    kin: Option<PathBuf>,
}

impl Checkpoints {
    pub(super) fn new(parent: &Path, key: &Digest, kin: Option<&Digest>) -> Self {
        let kin = kin.map(|kin| parent.join(kin.hex()));
        Self { folder: kin.as_deref().unwrap_or(parent).join(key.hex()), kin }
    }

    /// Saves what `write` puts into the folder it is given; durable on return.
    pub fn save(&self, write: &mut dyn FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut unsynced = Unsynced::default();
        disk::make_folder(&self.folder, &mut unsynced)?;
        let aside = self.aside()?;
        write(aside.path())?;
        let mut sums = BTreeMap::new();
        for (name, file) in disk::files_below(aside.path())? {
            let (digest, _) = Digest::of_file(&file).map_err(|error| Failure::io("hashing", &file, &error))?;
            unsynced.file(file);
            sums.insert(name, digest);
        }
        let path = aside.path().join(SUMS);
        fs::write(&path, seal::seal(&sums)?).map_err(|error| Failure::io("writing", &path, &error))?;
        unsynced.file(path);
        unsynced.wait()?;
        self.name(aside.path())?;
        let mut unsynced = Unsynced::default();
        unsynced.folder(&self.folder);
        unsynced.wait()?;
        self.keep(KEPT);
        Ok(())
    }

    /// The state that came furthest, the newest of equals, that verifies. One of kin is taken over first: its owner may be
    /// at work, and forget it.
    pub fn furthest(&self, reach: &Reach) -> Result<Option<Checkpoint>, Failure> {
        let own = numbers(&self.folder)?.into_iter().map(|number| (true, number, self.folder.join(number.to_string())));
        let mut found: Vec<(bool, u64, PathBuf)> = own.collect();
        for kin in self.kin_folders() {
            found.extend(numbers(&kin)?.into_iter().map(|number| (false, number, kin.join(number.to_string()))));
        }
        let mut ranked: Vec<(u64, bool, u64, PathBuf)> = found
            .into_iter()
            .filter_map(|(is_own, number, folder)| Some((reach(&folder)?, is_own, number, folder)))
            .collect();
        ranked.sort_unstable_by(|one, other| other.cmp(one));
        Ok(ranked.into_iter().find_map(|(_, is_own, _, folder)| match is_own {
            true => verifies(&folder).then_some(Checkpoint { folder }),
            false => self.take_over(&folder).ok().flatten().map(|folder| Checkpoint { folder }),
        }))
    }

    /// The work is committed: only what those may go on from who go further is left.
    pub fn committed(&self) {
        match self.kin {
            Some(_) => self.keep(1),
            None => _ = fs::remove_dir_all(&self.folder),
        }
    }

    fn kin_folders(&self) -> Vec<PathBuf> {
        let entries = self.kin.iter().filter_map(|kin| fs::read_dir(kin).ok()).flatten();
        let folders = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            entry.file_name().to_str()?.parse::<Digest>().ok()?;
            Some(entry.path())
        });
        folders.filter(|folder| *folder != self.folder).collect()
    }

    /// The same state among our own, if it verifies; its files are shared where the disk can do that.
    fn take_over(&self, from: &Path) -> Result<Option<PathBuf>, Failure> {
        let mut unsynced = Unsynced::default();
        disk::make_folder(&self.folder, &mut unsynced)?;
        unsynced.wait()?;
        let aside = self.aside()?;
        for (name, file) in disk::files_below(from)? {
            let place = aside.path().join(name);
            let copied = place.parent().map_or(Ok(()), fs::create_dir_all);
            let copied =
                copied.and_then(|()| fs::hard_link(&file, &place).or_else(|_| fs::copy(&file, &place).map(drop)));
            copied.map_err(|error| Failure::io("taking over", &file, &error))?;
        }
        verifies(aside.path()).then(|| self.name(aside.path())).transpose()
    }

    fn aside(&self) -> Result<tempfile::TempDir, Failure> {
        owner::sweep(&self.folder);
        let aside = tempfile::Builder::new().prefix(&owner::prefix()).tempdir_in(&self.folder);
        aside.map_err(|error| Failure::io("making", &self.folder, &error))
    }

    /// Gives a whole checkpoint the next number.
    fn name(&self, aside: &Path) -> Result<PathBuf, Failure> {
        let number = numbers(&self.folder)?.last().map_or(1, |last| last + 1);
        let place = self.folder.join(number.to_string());
        disk::rename(aside, &place).map_err(|error| Failure::io("saving", &place, &error))?;
        Ok(place)
    }

    /// Forgets all but the newest.
    fn keep(&self, newest: usize) {
        let numbers = numbers(&self.folder).unwrap_or_default();
        for number in &numbers[..numbers.len().saturating_sub(newest)] {
            let _ = fs::remove_dir_all(self.folder.join(number.to_string()));
        }
    }
}

fn numbers(folder: &Path) -> Result<Vec<u64>, Failure> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::io("listing", folder, &error)),
    };
    let mut numbers: Vec<u64> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn verifies(folder: &Path) -> bool {
    let Ok(text) = fs::read(folder.join(SUMS)) else { return false };
    let Some(sums) = seal::unseal::<BTreeMap<String, Digest>>(&text) else { return false };
    sums.iter().all(|(name, digest)| Digest::of_file(&folder.join(name)).is_ok_and(|(found, _)| found == *digest))
}
