//! Row ids: a hash of the content, so that a row keeps its name wherever it goes.

use std::{collections::HashMap, fmt};

use llmflow_contract::Hasher;
use serde::{Deserialize, Serialize};

/// Hexadecimal digits of an id: 128 bits, so that a billion rows share none by accident.
const HEX_DIGITS: usize = 32;

/// The name of a row: 32 hexadecimal digits, then `#n` for the n-th repeat of the same content in one dataset.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowId(String);

impl RowId {
    /// An id read back from a file.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }
    /// The id of a row that was made: of its parents, in order, and which sample of them it is.
    pub fn made(parents: &[RowId], sample: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.part(b"made").part(&sample.to_le_bytes());
        for parent in parents {
            hasher.part(parent.0.as_bytes());
        }
        Self::of(&hasher)
    }
    pub(crate) fn of(hasher: &Hasher) -> Self {
        Self(hasher.finish().hex()[..HEX_DIGITS].to_owned())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl fmt::Debug for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes the ids of one dataset unique: the second row of the same id becomes `id#2`.
#[derive(Debug, Default)]
pub struct Numbering(HashMap<RowId, u64>);

impl Numbering {
    pub fn new() -> Self {
        Self::default()
    }
    /// `id` itself the first time, `id#n` the n-th; never one that was given before.
    pub fn unique(&mut self, id: RowId) -> RowId {
        let Some(count) = self.0.get_mut(&id) else {
            self.0.insert(id.clone(), 1);
            return id;
        };
        let mut number = *count;
        let repeat = loop {
            number += 1;
            let repeat = RowId(format!("{id}#{number}"));
            if !self.0.contains_key(&repeat) {
                break repeat;
            }
        };
        self.0.insert(repeat.clone(), 1);
        self.0.insert(id, number);
        repeat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_gets_a_number_and_a_made_row_depends_on_parents_and_sample() {
        let mut numbering = Numbering::new();
        let id = RowId::new("a");
        let given: Vec<_> = (0..3).map(|_| numbering.unique(id.clone()).to_string()).collect();
        assert_eq!(given, ["a", "a#2", "a#3"]);
        assert_eq!(numbering.unique(RowId::new("a#2")).as_str(), "a#2#2", "one that came numbered is told apart too");
        assert_eq!(numbering.unique(id).as_str(), "a#4");
        let parents = [RowId::new("a"), RowId::new("b")];
        assert_ne!(RowId::made(&parents, 0), RowId::made(&parents, 1));
        assert_ne!(RowId::made(&parents, 0), RowId::made(&parents[..1], 0));
        assert_eq!(RowId::made(&parents, 0).as_str().len(), HEX_DIGITS);
    }
}
