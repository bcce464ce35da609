//! Memory for activations that is used again: a pass needs what the pass before it gave back, and pages that the system
//! takes and clears anew cost a tenth of a training step.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

/// Buffers given back. Cheap to clone: all clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    free: Arc<Mutex<Vec<Vec<f32>>>>,
}

impl Memory {
    /// A buffer of `len` values, whatever they are: the smallest that is long enough.
    ///
    /// Where none is, the longest makes way for a new one, so there are never more than were once in use together.
    pub fn take(&self, len: usize) -> Buffer {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = (0..free.len()).filter(|at| free[*at].len() >= len).min_by_key(|at| free[*at].len());
        let values = match fitting {
            Some(at) => free.swap_remove(at),
            None => {
                if let Some(longest) = (0..free.len()).max_by_key(|at| free[*at].len()) {
                    free.swap_remove(longest);
                }
                drop(free);
                vec![0.0; len]
            }
        };
        Buffer { values, len, home: self.clone() }
    }

    /// A buffer with these values.
    pub fn copy(&self, values: &[f32]) -> Buffer {
        let mut buffer = self.take(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

/// Values in lent memory, given back when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    values: Vec<f32>,
    len: usize,
    home: Memory,
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values[..self.len]
    }
}
impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.len]
    }
}
impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        self.home.free.lock().unwrap_or_else(PoisonError::into_inner).push(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_lent_again_and_never_more_is_kept_than_was_in_use() {
        let memory = Memory::default();
        let lengths = || {
            let mut all: Vec<usize> = memory.free.lock().unwrap().iter().map(Vec::len).collect();
            all.sort_unstable();
            all
        };
        let (short, long) = (memory.copy(&[1.0; 10]), memory.take(100));
        assert_eq!((&short[..], long.len()), (&[1.0; 10][..], 100));
        drop((short, long));
        assert_eq!(lengths(), [10, 100]);
        let lent = memory.take(11);
        assert_eq!((lent.len(), lengths()), (11, vec![10]), "the smallest that is long enough");
        drop(lent);
        drop(memory.take(1000));
        assert_eq!(lengths(), [10, 1000], "the longest made way");
    }
}
