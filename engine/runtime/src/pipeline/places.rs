//! Where the params of a stage stand in the file.

use std::sync::Arc;

use super::{node::Node, origin::Origin, source::Span};

/// Where each given param stands, by path: `keep.min_overlap`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Vec<(String, GivenAt)>);

/// Where one value stands and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenAt {
    pub span: Span,
    pub origin: Option<Arc<Origin>>,
}

impl Places {
    pub(super) fn push(&mut self, path: String, node: &Node) {
        self.0.push((path, GivenAt { span: node.span, origin: node.origin.clone() }));
    }
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
    /// Drops what was put in after it had this length.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
    pub fn get(&self, path: &str) -> Option<&GivenAt> {
        self.0.iter().find(|(name, _)| name == path).map(|(_, given)| given)
    }
}
