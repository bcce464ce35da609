//! The two digests a hub states: SHA-256 of large files, the git blob's SHA-1 of small ones.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use llmflow_contract::{Context, Failure, FileDigest, LockedFile};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Read at once, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// A digest in the making.
#[derive(Clone)]
pub(super) enum Hashing {
    Sha256(Sha256),
    GitSha1(Sha1),
}

impl Hashing {
    pub fn start(file: &LockedFile) -> Self {
        match file.digest {
            FileDigest::Sha256(_) => Self::Sha256(Sha256::new()),
            FileDigest::GitSha1(_) => {
                Self::GitSha1(Sha1::new_with_prefix(format!("blob {}\0", file.size_bytes).as_bytes()))
            }
        }
    }
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitSha1(hasher) => hasher.update(bytes),
        }
    }
    /// In lower-case hexadecimal digits.
    pub fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::GitSha1(hasher) => hex(&hasher.finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a digest is written as the hub writes it; one from a hub becomes the name of a file.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether a file is there and has the size and the digest it must have. One that cannot be read is not.
///
/// # Errors
/// Class `cancelled` alone.
pub fn is_intact(path: &Path, file: &LockedFile, ctx: &Context) -> Result<bool, Failure> {
    let Ok(mut found) = File::open(path) else { return Ok(false) };
    if !found.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == file.size_bytes) {
        return Ok(false);
    }
    let mut hashing = Hashing::start(file);
    let read = read_into(&mut found, &mut hashing, file.size_bytes, ctx)?;
    Ok(read.is_ok_and(|size| size == file.size_bytes) && hashing.finish() == file.digest.hex())
}

/// Marks a file as used: gc lets go of downloads that nobody has used for long. One that cannot be marked goes the sooner.
pub fn touch(path: &Path) {
    let _ = File::open(path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
}

/// Feeds what is left of a file, at most `most` bytes of it; gives how much that was.
///
/// # Errors
/// The outer one is class `cancelled`, the inner one the file's.
pub(super) fn read_into(
    file: &mut File,
    hashing: &mut Hashing,
    most: u64,
    ctx: &Context,
) -> Result<io::Result<u64>, Failure> {
    let (mut buffer, mut done, mut rest) = (vec![0; CHUNK_BYTES], 0, file.take(most));
    loop {
        ctx.check()?;
        match rest.read(&mut buffer) {
            Ok(0) => return Ok(Ok(done)),
            Ok(size) => {
                hashing.update(&buffer[..size]);
                done += size as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_sha256sum_and_git() {
        let of = |digest: FileDigest, bytes: &[u8]| {
            let mut hashing = Hashing::start(&LockedFile { size_bytes: bytes.len() as u64, digest });
            hashing.update(bytes);
            hashing.finish()
        };
        // SHA-256 of `abc` from FIPS 180; the blob from `printf 'hello\n' | git hash-object --stdin`.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of(FileDigest::Sha256(String::new()), b"abc"), abc);
        assert_eq!(of(FileDigest::GitSha1(String::new()), b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}
