//! Sequences side by side without padding, a common beginning computed once.
//!
//! Owns: which row of a forward pass holds which token, and what each row may look at. A pass over `rows` tokens has no
//! padding; sequences that begin alike share the rows of that beginning (one level: a group of sequences, one prefix).

/// A run of tokens in consecutive rows. It sees its parent whole and itself causally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first row.
    pub first: usize,
    pub len: usize,
    /// Position of its first token in its sequence.
    pub position: usize,
    /// The segment that precedes it: the prefix it shares with its neighbours.
    pub parent: Option<usize>,
}

/// Tokens of several sequences, packed.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    tokens: Vec<u32>,
    segments: Vec<Segment>,
    /// Segments that see one another: a prefix and its continuations.
    groups: Vec<std::ops::Range<usize>>,
    /// Of each sequence: its prefix, and its own rest.
    sequences: Vec<(Option<usize>, usize)>,
}

impl Packed {
    /// Packs sequences, each apart from the others.
    pub fn separate<S: AsRef<[u32]>>(sequences: &[S]) -> Self {
        let mut packed = Self::default();
        for sequence in sequences {
            packed.push_group(&[sequence.as_ref()], 0);
        }
        packed
    }

    /// Packs sequences; neighbours that begin alike share the rows of their common prefix where that saves rows.
    ///
    /// The last token of a sequence is never shared, so each sequence has a row of its own.
    pub fn sharing<S: AsRef<[u32]>>(sequences: &[S]) -> Self {
        let mut packed = Self::default();
        let mut group: Vec<&[u32]> = Vec::new();
        let mut prefix = 0;
        for sequence in sequences.iter().map(AsRef::as_ref) {
            let own = sequence.len().saturating_sub(1);
            let Some(first) = group.first() else {
                (prefix, group) = (own, vec![sequence]);
                continue;
            };
            let common = first.iter().zip(sequence).take(prefix.min(own)).take_while(|(a, b)| a == b).count();
            let saved_before = if group.len() > 1 { (group.len() - 1) * prefix } else { 0 };
            if common > 0 && group.len() * common >= saved_before {
                prefix = common;
                group.push(sequence);
            } else {
                packed.push_group(&group, if group.len() > 1 { prefix } else { 0 });
                (prefix, group) = (own, vec![sequence]);
            }
        }
        if !group.is_empty() {
            let shared = if group.len() > 1 { prefix } else { 0 };
            packed.push_group(&group, shared);
        }
        packed
    }

    fn push_group(&mut self, group: &[&[u32]], prefix: usize) {
        let start = self.segments.len();
        let parent = (prefix > 0).then(|| self.push_segment(&group[0][..prefix], 0, None));
        for sequence in group {
            let own = self.push_segment(&sequence[prefix..], prefix, parent);
            self.sequences.push((parent, own));
        }
        self.groups.push(start..self.segments.len());
    }

    fn push_segment(&mut self, tokens: &[u32], position: usize, parent: Option<usize>) -> usize {
        self.segments.push(Segment { first: self.tokens.len(), len: tokens.len(), position, parent });
        self.tokens.extend_from_slice(tokens);
        self.segments.len() - 1
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }
    /// Token of each row.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
    pub(crate) fn groups(&self) -> &[std::ops::Range<usize>] {
        &self.groups
    }
    /// The row that holds a position of a sequence.
    pub fn row(&self, sequence: usize, position: usize) -> usize {
        let (parent, own) = self.sequences[sequence];
        let segment = match parent {
            Some(parent) if position < self.segments[parent].len => self.segments[parent],
            _ => self.segments[own],
        };
        segment.first + position - segment.position
    }
    /// Position of each row in its sequence.
    pub(crate) fn positions(&self) -> Vec<usize> {
        self.segments.iter().flat_map(|segment| segment.position..segment.position + segment.len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_that_begin_alike_share_rows() {
        let packed = Packed::sharing(&[vec![1, 2, 3, 4], vec![1, 2, 3, 5, 6], vec![9, 8]]);
        assert_eq!(packed.tokens(), [1, 2, 3, 4, 5, 6, 9, 8]);
        assert_eq!((packed.row(1, 0), packed.row(1, 2), packed.row(1, 3), packed.row(2, 1)), (0, 2, 4, 7));
        assert_eq!(packed.positions(), [0, 1, 2, 3, 3, 4, 0, 1]);
        assert_eq!(packed.groups(), [0..3, 3..4]);
    }

    #[test]
    fn equal_sequences_keep_a_row_each() {
        let packed = Packed::sharing(&[vec![1, 2], vec![1, 2]]);
        assert_eq!(packed.tokens(), [1, 2, 2]);
        assert_eq!((packed.row(0, 1), packed.row(1, 1)), (1, 2));
        assert_eq!(Packed::separate(&[vec![1, 2], vec![1, 2]]).rows(), 4);
    }
}
