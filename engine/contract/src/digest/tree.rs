//! BLAKE3's tree over a file: each core reads and hashes pieces of its own, small enough for its cache.
//!
//! Mapping the file would save the copy, but a file that shrinks while it is mapped kills the process that reads it.

use std::{cell::RefCell, fs::File, io, os::unix::fs::FileExt};

use blake3::{
    Hash, Hasher,
    hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root},
};

/// Bytes that are read at once: a power of two, as subtrees are, that fits the cache of one core.
pub(super) const LEAF_BYTES: u64 = 512 << 10;

/// The hash of a file's first `length` bytes.
///
/// # Errors
/// `UnexpectedEof` if it has fewer.
pub(super) fn root(file: &File, length: u64) -> io::Result<Hash> {
    if length <= LEAF_BYTES {
        return read(file, 0, length, blake3::hash);
    }
    let middle = left_subtree_len(length);
    let (left, right) = rayon::join(|| subtree(file, 0, middle), || subtree(file, middle, length - middle));
    Ok(merge_subtrees_root(&left?, &right?, Mode::Hash))
}

fn subtree(file: &File, offset: u64, length: u64) -> io::Result<ChainingValue> {
    if length <= LEAF_BYTES {
        return read(file, offset, length, |bytes| {
            let mut hasher = Hasher::new();
            hasher.set_input_offset(offset).update(bytes).finalize_non_root()
        });
    }
    let middle = left_subtree_len(length);
    let halves = || subtree(file, offset, middle);
    let (left, right) = rayon::join(halves, || subtree(file, offset + middle, length - middle));
    Ok(merge_subtrees_non_root(&left?, &right?, Mode::Hash))
}

/// Reads a piece into this thread's buffer.
fn read<T>(file: &File, offset: u64, length: u64, hash: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        let length = length as usize; // of a leaf
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        file.read_exact_at(&mut buffer[..length], offset)?;
        Ok(hash(&buffer[..length]))
    })
}
