//! What is learned from, and how a batch of it becomes forward passes.

use crate::transformer::{Packed, Target};

/// A sequence to learn from: `loss_mask` marks the tokens that are supervised. Both have one length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    pub ids: Vec<u32>,
    pub loss_mask: Vec<bool>,
}

/// Two continuations of one prompt: the better and the worse, whole sequences with their masks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contrast {
    pub chosen: Example,
    pub rejected: Example,
}

impl Example {
    /// Supervised tokens; the first of a sequence never is, for nothing precedes it.
    pub fn supervised(&self) -> usize {
        self.loss_mask.iter().skip(1).filter(|supervised| **supervised).count()
    }
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

impl Contrast {
    pub fn tokens(&self) -> usize {
        self.chosen.tokens() + self.rejected.tokens()
    }
}

/// Most tokens of one pass: a larger batch is cut into several, whose gradients add up.
const MAX_ROWS: usize = 1024;

/// Cuts a batch into passes of at most [`MAX_ROWS`] tokens, or one item.
pub(super) fn passes<T>(mut batch: &[T], tokens: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    while !batch.is_empty() {
        let mut rows = 0;
        let fits = batch.iter().take_while(|item| {
            rows += tokens(item);
            rows <= MAX_ROWS
        });
        let (part, rest) = batch.split_at(fits.count().max(1));
        parts.push(part);
        batch = rest;
    }
    parts
}

/// Sequences of one pass and their supervised tokens, in order.
#[derive(Debug)]
pub(super) struct Pass {
    pub packed: Packed,
    pub targets: Vec<Target>,
}

impl Pass {
    /// Neighbours that begin alike share that beginning.
    pub fn of(examples: &[&Example]) -> Self {
        let ids: Vec<&[u32]> = examples.iter().map(|example| &example.ids[..]).collect();
        let packed = Packed::sharing(&ids);
        let mut targets = Vec::new();
        for (index, example) in examples.iter().enumerate() {
            for position in (1..example.ids.len()).filter(|position| example.loss_mask[*position]) {
                targets.push(Target { row: packed.row(index, position - 1), token: example.ids[position] });
            }
        }
        Self { packed, targets }
    }
}
