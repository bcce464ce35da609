//! Parameters in one run of memory, each with its name: what an optimizer walks and a checkpoint stores.

use std::collections::HashMap;

/// One named matrix or vector inside [`Parameters`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub name: String,
    pub shape: Vec<usize>,
    pub start: usize,
}

impl Span {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.len()
    }
}

/// Named parameters, one after another.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    pub values: Vec<f32>,
    spans: Vec<Span>,
    by_name: HashMap<String, usize>,
}

impl Parameters {
    /// Adds a parameter, zero at first.
    pub fn push(&mut self, name: impl Into<String>, shape: &[usize]) {
        let span = Span { name: name.into(), shape: shape.to_vec(), start: self.values.len() };
        self.values.resize(span.start + span.len(), 0.0);
        self.by_name.insert(span.name.clone(), self.spans.len());
        self.spans.push(span);
    }
    /// In order of memory.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }
    pub fn find(&self, name: &str) -> Option<&Span> {
        self.by_name.get(name).map(|index| &self.spans[*index])
    }
    /// Values of a parameter.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.find(name).map(|span| &self.values[span.range()])
    }
}
