//! Checkpoints: numbered folders of unfinished work, each with the digests of its files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use llmflow_contract::{Checkpoint, Digest, Failure};

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
}

impl Checkpoints {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Saves what `write` puts into the folder it is given; durable on return.
    pub fn save(&self, write: &mut dyn FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut unsynced = Unsynced::default();
        disk::make_folder(&self.folder, &mut unsynced)?;
        owner::sweep(&self.folder);
        let aside = tempfile::Builder::new()
            .prefix(&owner::prefix())
            .tempdir_in(&self.folder)
            .map_err(|error| Failure::io("making", &self.folder, &error))?;
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
        let numbers = self.numbers()?;
        let number = numbers.last().map_or(1, |last| last + 1);
        let place = self.folder.join(number.to_string());
        disk::rename(aside.path(), &place).map_err(|error| Failure::io("saving", &place, &error))?;
        let mut unsynced = Unsynced::default();
        unsynced.folder(&self.folder);
        unsynced.wait()?;
        let old = (numbers.len() + 1).saturating_sub(KEPT);
        for number in &numbers[..old] {
            let _ = fs::remove_dir_all(self.folder.join(number.to_string()));
        }
        Ok(())
    }

    /// The newest that verifies.
    pub fn newest(&self) -> Result<Option<Checkpoint>, Failure> {
        let found = self.numbers()?.into_iter().rev().map(|number| self.folder.join(number.to_string()));
        Ok(found.into_iter().find(|folder| verifies(folder)).map(|folder| Checkpoint { folder }))
    }

    /// Forgets them all: the work is committed.
    pub fn clear(&self) {
        let _ = fs::remove_dir_all(&self.folder);
    }

    fn numbers(&self) -> Result<Vec<u64>, Failure> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::io("listing", &self.folder, &error)),
        };
        let mut numbers: Vec<u64> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

fn verifies(folder: &Path) -> bool {
    let Ok(text) = fs::read(folder.join(SUMS)) else { return false };
    let Some(sums) = seal::unseal::<BTreeMap<String, Digest>>(&text) else { return false };
    sums.iter().all(|(name, digest)| Digest::of_file(&folder.join(name)).is_ok_and(|(found, _)| found == *digest))
}
