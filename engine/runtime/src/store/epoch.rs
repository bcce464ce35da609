//! The epoch: one digest that changes whenever something is put into a local store or taken out.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

use llmflow_contract::{Digest, Hasher};

use super::{Store, vouch::GRAIN};

impl Store {
    /// What tells whether records, manifests or blobs came or went since: folders' inodes and times. Bytes that change in
    /// place are found when they are used.
    ///
    /// A store that changed just now is waited for, 20 ms at most, because the next change could leave the same times.
    /// None for a store that is no folder, or that goes on changing.
    pub fn epoch(&self) -> Option<Digest> {
        of(self.local()?)
    }

    /// How often anything was taken away from a local store. While it stays the same, what stood still stands; whoever
    /// deletes files by hand is seen by the epoch, unless something was put in after that.
    pub fn removals(&self) -> Option<u64> {
        self.disk()?.removals()
    }
}

/// [`Store::epoch`] of the store in a folder.
pub(super) fn of(root: &Path) -> Option<Digest> {
    let (digest, newest) = stamp(root).ok()?;
    let age = SystemTime::now().duration_since(newest).unwrap_or_default();
    if age >= GRAIN {
        return Some(digest);
    }
    std::thread::sleep(GRAIN - age);
    let (again, _) = stamp(root).ok()?;
    (again == digest).then_some(digest)
}

/// Inode and time of every folder that holds what a key record needs, and the newest of the times.
fn stamp(root: &Path) -> io::Result<(Digest, SystemTime)> {
    let mut hasher = Hasher::new();
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut add = |folder: &Path| {
        match fs::metadata(folder) {
            Ok(meta) => {
                for number in [meta.dev(), meta.ino(), meta.mtime().cast_unsigned(), meta.mtime_nsec().cast_unsigned()]
                {
                    hasher.part(&number.to_le_bytes());
                }
                newest = newest.max(meta.modified()?);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                hasher.part(b"none");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    };
    for name in ["keys", "artifacts", "blobs"] {
        add(&root.join(name))?;
    }
    let mut folder = root.join("blobs/00");
    for number in 0..=u8::MAX {
        folder.set_file_name(format!("{number:02x}"));
        add(&folder)?;
    }
    Ok((hasher.finish(), newest))
}
