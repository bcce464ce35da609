//! Vouching: which files have not changed since they were hashed, so that nothing unchanged is read again.
//!
//! A file's stamp is (device, inode, size, modification time, change time). No program can set a change time back, so a
//! stamp that is the same means bytes that are the same - but for edits within one tick of the kernel's clock, see
//! [`Vouched::digest_of`]. What is known lies in one append-only file of a home; losing it costs reading, nothing else.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use llmflow_contract::{Digest, Failure};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::{stat::futimens, time::TimeSpec},
};
use serde::{Deserialize, Serialize};

use crate::owner;

/// Two changes of a file within this time may leave the same stamp: the longest tick of Linux's clock is 10 ms.
pub(super) const GRAIN: Duration = Duration::from_millis(20);
/// Bytes of a record: stamp, digest, check.
const RECORD: usize = 80;
/// Bytes of a record's check: a torn or overwritten one is found.
const CHECK: usize = 8;
/// A larger file is written anew when most of it is out of date.
const COMPACT_BYTES: u64 = 1 << 20;
/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;

/// How a file stands: what tells whether it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl Stamp {
    /// Of the file at `path`, or where it links to.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|meta| Self::of(&meta))
    }

    fn of(meta: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size_bytes: meta.len(),
            modified_ns: ns(meta.mtime(), meta.mtime_nsec()),
            changed_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }

    fn to_bytes(self, digest: &Digest) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        let numbers = [
            self.device.to_le_bytes(),
            self.inode.to_le_bytes(),
            self.size_bytes.to_le_bytes(),
            self.modified_ns.to_le_bytes(),
            self.changed_ns.to_le_bytes(),
        ];
        record[..40].copy_from_slice(numbers.as_flattened());
        record[40..72].copy_from_slice(digest.bytes());
        let check = Digest::of(&record[..RECORD - CHECK]);
        record[RECORD - CHECK..].copy_from_slice(&check.bytes()[..CHECK]);
        record
    }

    fn from_bytes(record: &[u8]) -> Option<(Self, Digest)> {
        let (body, check) = record.split_at_checked(RECORD - CHECK)?;
        if Digest::of(body).bytes()[..CHECK] != *check {
            return None;
        }
        let number = |at: usize| body[at * 8..at * 8 + 8].try_into().ok();
        let stamp = Self {
            device: number(0).map(u64::from_le_bytes)?,
            inode: number(1).map(u64::from_le_bytes)?,
            size_bytes: number(2).map(u64::from_le_bytes)?,
            modified_ns: number(3).map(i64::from_le_bytes)?,
            changed_ns: number(4).map(i64::from_le_bytes)?,
        };
        Some((stamp, Digest::from_bytes(body[40..].try_into().ok()?)))
    }
}

/// What a home knows of files by their stamps. Shared by threads; several processes may use the same file.
#[derive(Debug, Default)]
pub struct Vouched {
    /// None: known in this process only.
    path: Option<PathBuf>,
    known: Mutex<Known>,
    /// The file that is touched to ask the kernel for its time.
    clock: OnceLock<File>,
}

#[derive(Debug, Default)]
struct Known {
    /// By device and inode; the newest record of a file counts.
    files: HashMap<(u64, u64), (Stamp, Digest)>,
    /// What of the file was read: its inode, and up to where.
    inode: u64,
    read_bytes: u64,
}

impl Vouched {
    /// What is known in `path`, read when first asked. A file that is not there is made when something is noted.
    pub fn open(path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..Self::default() }
    }

    /// Is the file at `path`, or where it links to, known to hold the bytes of `digest`? Costs one look at the file.
    pub fn vouches(&self, path: &Path, digest: &Digest) -> bool {
        let Ok(meta) = fs::metadata(path) else { return false };
        self.find(&Stamp::of(&meta)).is_some_and(|known| known == *digest)
    }

    /// Remembers that the file at `path` holds the bytes of `digest`: of files that nobody writes to any more.
    pub fn note(&self, path: &Path, digest: &Digest) {
        self.note_all([(path, digest)]);
    }

    /// The same for many files, in one write. What cannot be remembered is hashed again some day.
    pub fn note_all<'a>(&self, files: impl IntoIterator<Item = (&'a Path, &'a Digest)>) {
        let stamps: Vec<(Stamp, Digest)> = (files.into_iter())
            .filter_map(|(path, digest)| Some((Stamp::of(&fs::metadata(path).ok()?), *digest)))
            .collect();
        self.remember(&stamps);
    }

    /// Digest and size in bytes of a file that its owner may edit; read only if it may have changed.
    ///
    /// What was changed less than 20 ms before it was read is not remembered: the next change could leave the same stamp.
    ///
    /// # Errors
    /// `file/missing` and the like; `file/changing` if it changes as often as it is read.
    pub fn digest_of(&self, path: &Path) -> Result<(Digest, u64), Failure> {
        let failed = |error: io::Error| Failure::io("reading", path, &error);
        let look = |file: &File| file.metadata().map(|meta| Stamp::of(&meta)).map_err(failed);
        let meta = fs::metadata(path).map_err(failed)?;
        if meta.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        if let Some(digest) = self.find(&Stamp::of(&meta)) {
            return Ok((digest, meta.len()));
        }
        for _ in 0..TRIES {
            let now = self.kernel_now();
            let file = File::open(path).map_err(failed)?;
            let before = look(&file)?;
            let (digest, size_bytes) = Digest::of_open(&file).map_err(failed)?;
            if look(&file)? != before || size_bytes != before.size_bytes {
                continue;
            }
            let newest = before.modified_ns.max(before.changed_ns);
            if now.is_some_and(|now| newest < now.saturating_sub(GRAIN.as_nanos() as i64)) {
                self.remember(&[(before, digest)]);
            }
            return Ok((digest, size_bytes));
        }
        Err(Failure::environment("file/changing", format!("`{}` is being written to", path.display()))
            .help("wait until it is whole, then run the same command again"))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a stamp; on a miss, what other processes have noted meanwhile is read.
    fn find(&self, stamp: &Stamp) -> Option<Digest> {
        let mut known = self.known();
        let of = |known: &Known| {
            let (own, digest) = known.files.get(&(stamp.device, stamp.inode))?;
            (own == stamp).then_some(*digest)
        };
        if let Some(digest) = of(&known) {
            return Some(digest);
        }
        let has_more = self.path.as_ref().is_some_and(|path| known.read_more(path).unwrap_or(false));
        if has_more { of(&known) } else { None }
    }

    fn remember(&self, stamps: &[(Stamp, Digest)]) {
        if stamps.is_empty() {
            return;
        }
        let mut known = self.known();
        for (stamp, digest) in stamps {
            known.files.insert((stamp.device, stamp.inode), (*stamp, *digest));
        }
        if let Some(path) = &self.path {
            let records: Vec<u8> = stamps.iter().flat_map(|(stamp, digest)| stamp.to_bytes(digest)).collect();
            let _ = known.append(path, &records).and_then(|()| known.compact(path));
        }
    }

    /// The kernel's clock as it stamps files: what a file gets that is touched now.
    fn kernel_now(&self) -> Option<i64> {
        let open = || match &self.path {
            Some(path) => OpenOptions::new().create(true).append(true).open(path).ok(),
            None => tempfile::tempfile().ok(),
        };
        let file = match self.clock.get() {
            Some(file) => file, // one that was written anew since keeps the same time
            None => {
                let file = open()?;
                self.clock.get_or_init(|| file)
            }
        };
        futimens(file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW).ok()?;
        Some(Stamp::of(&file.metadata().ok()?).changed_ns)
    }
}

impl Known {
    /// One write of whole records: another process's do not come in between.
    fn append(&mut self, path: &Path, records: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(records)?;
        let meta = file.metadata()?;
        if meta.ino() == self.inode && meta.len() == self.read_bytes + records.len() as u64 {
            self.read_bytes = meta.len(); // nothing but what was known is new
        }
        Ok(())
    }

    /// Reads what the file has that was not read yet; whether there was any.
    fn read_more(&mut self, path: &Path) -> io::Result<bool> {
        let meta = fs::metadata(path)?;
        if meta.ino() == self.inode && meta.len() == self.read_bytes {
            return Ok(false);
        }
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.ino() != self.inode || meta.len() < self.read_bytes {
            self.read_bytes = 0; // written anew
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.read_bytes))?;
        file.read_to_end(&mut bytes)?;
        self.inode = meta.ino();
        self.read_bytes += self.learn(&bytes) as u64;
        Ok(true)
    }

    /// Takes in records; gives the bytes that are done with. Between torn ones it looks for the next whole one.
    fn learn(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at + RECORD <= bytes.len() {
            match Stamp::from_bytes(&bytes[at..at + RECORD]) {
                Some((stamp, digest)) => {
                    self.files.insert((stamp.device, stamp.inode), (stamp, digest));
                    at += RECORD;
                }
                None => at += 1,
            }
        }
        at
    }

    /// Writes the file anew once most of it is out of date.
    fn compact(&mut self, path: &Path) -> io::Result<()> {
        let size_bytes = fs::metadata(path)?.len();
        let is_lean = |known: &Self| size_bytes < COMPACT_BYTES.max(2 * (known.files.len() * RECORD) as u64);
        if is_lean(self) {
            return Ok(());
        }
        let Ok(_lock) = Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock) else { return Ok(()) };
        self.read_more(path)?;
        if is_lean(self) {
            return Ok(()); // not everything had been read
        }
        let records: Vec<u8> = self.files.values().flat_map(|(stamp, digest)| stamp.to_bytes(digest)).collect();
        let aside = path.with_file_name(format!("{}vouched", owner::prefix()));
        fs::write(&aside, records)?;
        fs::rename(&aside, path) // what another process appended meanwhile is hashed again some day
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    /// Long enough ago that a stamp can be trusted.
    fn age(path: &Path) {
        let past = SystemTime::now() - Duration::from_secs(60);
        File::options().write(true).open(path).unwrap().set_modified(past).unwrap();
    }

    fn stamp(number: u64) -> Stamp {
        Stamp { device: 1, inode: number, size_bytes: 3, modified_ns: 4, changed_ns: 5 }
    }

    #[test]
    fn a_file_is_vouched_for_until_it_changes_in_any_way() {
        let folder = tempfile::tempdir().unwrap();
        let (path, known) = (folder.path().join("blob"), folder.path().join("vouched"));
        fs::write(&path, "one").unwrap();
        let digest = Digest::of(b"one");
        let vouched = Vouched::open(&known);
        assert!(!vouched.vouches(&path, &digest));
        vouched.note(&path, &digest);
        assert!(vouched.vouches(&path, &digest));
        assert!(!vouched.vouches(&path, &Digest::of(b"two")));
        assert!(Vouched::open(&known).vouches(&path, &digest), "another process knows it too");
        age(&path);
        assert!(!vouched.vouches(&path, &digest), "touched");
        vouched.note(&path, &digest);
        fs::write(folder.path().join("other"), "one").unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        assert!(!vouched.vouches(&path, &digest), "replaced");
    }

    #[test]
    fn an_edit_within_the_clocks_grain_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let vouched = Vouched::open(&folder.path().join("vouched"));
        for number in 0..200 {
            let text = format!("{number:03}"); // of the same size each time
            fs::write(&path, &text).unwrap();
            assert_eq!(vouched.digest_of(&path).unwrap(), (Digest::of(text.as_bytes()), 3));
        }
    }

    #[test]
    fn what_other_processes_noted_is_read_when_it_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vouched");
        let (first, second) = (Vouched::open(&path), Vouched::open(&path));
        first.remember(&[(stamp(1), Digest::of(b"1"))]);
        assert_eq!(second.find(&stamp(1)), Some(Digest::of(b"1")));
        first.remember(&[(stamp(2), Digest::of(b"2"))]);
        assert_eq!(second.find(&stamp(2)), Some(Digest::of(b"2")));
        assert_eq!(second.find(&stamp(3)), None);
    }

    #[test]
    fn torn_and_damaged_records_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vouched");
        let mut bytes = Vec::new();
        for number in 1..=3 {
            bytes.extend(stamp(number).to_bytes(&Digest::of(b"x")));
        }
        bytes[RECORD + 50] ^= 1; // one bit of the second
        bytes.extend(&bytes.clone()[..33]); // torn by a power cut
        bytes.extend(stamp(4).to_bytes(&Digest::of(b"y")));
        bytes.extend([0; 200]); // pages that never reached the disk
        fs::write(&path, bytes).unwrap();
        let vouched = Vouched::open(&path);
        let found: Vec<u64> = (1..=4).filter(|number| vouched.find(&stamp(*number)).is_some()).collect();
        assert_eq!(found, [1, 3, 4]);
    }

    #[test]
    fn the_file_does_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vouched");
        let vouched = Vouched::open(&path);
        let many: Vec<_> = (0..1000).map(|number| (stamp(number % 10), Digest::of(&number.to_le_bytes()))).collect();
        for _ in 0..20 {
            vouched.remember(&many);
        }
        assert!(fs::metadata(&path).unwrap().len() < 2 * COMPACT_BYTES);
        assert_eq!(Vouched::open(&path).find(&stamp(9)), Some(Digest::of(&999_u64.to_le_bytes())));
    }
}
