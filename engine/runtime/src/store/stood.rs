//! What stood when a plan last looked: the records of its stages, so that none is read again, and nothing they name is
//! looked at again, while nothing came into the store or went from it.
//!
//! A home keeps one file a pipeline: the store's epoch, then the records as they are sealed. It is read beside the parsing
//! of the pipeline. It is a short cut and nothing else: one that is torn, lost or of another epoch costs the look it saves.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use llmflow_contract::{Digest, Failure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{KeyRecord, Store, epoch, seal};
use crate::owner;

/// No file is kept for more: it would be of hundreds of megabytes.
const MOST_RECORDS: usize = 200_000;

/// The first line: of what the rest holds.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    store: PathBuf,
    epoch: Digest,
}

/// Records that still stand, by key.
pub struct Stood {
    path: PathBuf,
    reading: Option<JoinHandle<Option<Found>>>,
}

struct Found {
    header: Header,
    records: HashMap<Digest, Arc<KeyRecord>>,
}

impl Stood {
    /// Begins to read what stood for a pipeline, in a thread of its own. `work` is the home's, `pipeline` names the file.
    pub fn recall(work: &Path, pipeline: &Digest) -> Self {
        let path = work.join("stood").join(pipeline.hex());
        let reading = thread::Builder::new().name("stood".into()).spawn({
            let path = path.clone();
            move || read(&path)
        });
        Self { path, reading: reading.ok() }
    }

    /// For who has no home: nothing stood, and nothing is kept.
    pub fn nothing() -> Self {
        Self { path: PathBuf::new(), reading: None }
    }

    /// The records that stand in this store, once they are read.
    pub fn wait(&mut self, store: &Store) -> HashMap<Digest, Arc<KeyRecord>> {
        let found = self.reading.take().and_then(|reading| reading.join().ok()).flatten();
        let found = found.filter(|found| epoch::of(&found.header.store) == Some(found.header.epoch));
        found
            .filter(|found| store.local() == Some(&*found.header.store))
            .map_or_else(HashMap::new, |found| found.records)
    }

    /// Keeps what stands in a local store now.
    pub fn keep<'a>(&self, store: &Store, records: impl IntoIterator<Item = &'a KeyRecord>) {
        let Some((epoch, root)) = store.epoch().zip(store.local()) else { return };
        if self.path.as_os_str().is_empty() {
            return;
        }
        let records: Vec<&KeyRecord> = records.into_iter().take(MOST_RECORDS + 1).collect();
        if records.len() <= MOST_RECORDS {
            let _ = write(&self.path, &Header { store: root.to_owned(), epoch }, records);
        }
    }
}

fn read(path: &Path) -> Option<Found> {
    let bytes = fs::read(path).ok()?;
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let header: Header = serde_json::from_slice(&bytes[..end]).ok()?;
    if epoch::of(&header.store)? != header.epoch {
        return None;
    }
    let mut records = HashMap::new();
    let mut rest = &bytes[end + 1..];
    while let Some((sealed, after)) = seal::split(rest) {
        if let Some(record) = seal::unseal::<KeyRecord>(sealed) {
            records.insert(record.key, Arc::new(record));
        }
        rest = after;
    }
    Some(Found { header, records })
}

fn write(path: &Path, header: &Header, records: Vec<&KeyRecord>) -> Result<(), Failure> {
    let sealed: Result<Vec<Vec<u8>>, Failure> = records.into_par_iter().map(seal::seal).collect();
    let mut text = serde_json::to_vec(header).map_err(|error| Failure::bug(error.to_string()))?;
    text.push(b'\n');
    text.extend(sealed?.concat());
    owner::write_whole(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{key_path, tests::record};

    /// A store with two records, and what a home knows of it.
    fn kept(folder: &Path) -> (Store, Stood, [Digest; 2]) {
        let store = Store::open_local(&folder.join("store")).unwrap();
        let keys = [Digest::of(b"one"), Digest::of(b"two")];
        let records = keys.map(|key| record(&key, Digest::of(b"output"), "here"));
        for key in &keys {
            fs::write(store.local().unwrap().join(key_path(key)), "of which only the name matters").unwrap();
        }
        let stood = Stood::recall(folder, &Digest::of(b"pipeline.yaml"));
        stood.keep(&store, &records);
        (store, stood, keys)
    }

    fn recalled(folder: &Path, store: &Store) -> HashMap<Digest, Arc<KeyRecord>> {
        Stood::recall(folder, &Digest::of(b"pipeline.yaml")).wait(store)
    }

    #[test]
    fn records_stand_until_anything_comes_or_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (store, stood, keys) = kept(folder.path());
        let found = recalled(folder.path(), &store);
        assert!(found.len() == 2 && keys.iter().all(|key| found[key].key == *key));
        let other = Store::open_local(&folder.path().join("other")).unwrap();
        assert!(recalled(folder.path(), &other).is_empty(), "of another store");
        fs::remove_file(store.local().unwrap().join(key_path(&keys[0]))).unwrap();
        assert!(recalled(folder.path(), &store).is_empty(), "one was taken away");
        stood.keep(&store, []);
        assert!(recalled(folder.path(), &store).is_empty());
    }

    #[test]
    fn a_damaged_record_is_looked_up_again() {
        let folder = tempfile::tempdir().unwrap();
        let (store, stood, keys) = kept(folder.path());
        let whole = fs::read(&stood.path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut damaged = whole.clone();
        damaged[first + 20] ^= 1;
        fs::write(&stood.path, damaged).unwrap();
        assert_eq!(recalled(folder.path(), &store).into_keys().collect::<Vec<_>>(), [keys[1]]);
        for end in 0..whole.len() {
            fs::write(&stood.path, &whole[..end]).unwrap();
            assert!(recalled(folder.path(), &store).len() < 2, "torn after {end} bytes");
        }
    }
}
