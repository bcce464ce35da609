//! Where the params of a stage stand in the file.

use std::sync::Arc;

use super::{
    node::{Node, Value},
    origin::Origin,
    source::Span,
};

/// Where each given param stands, by path: `keep.min_overlap`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Vec<(String, GivenAt)>);

/// Where one value stands and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenAt {
    pub span: Span,
    pub origin: Option<Arc<Origin>>,
    /// Where parts of it came from, each once: words of a command, values of a map.
    pub within: Vec<Arc<Origin>>,
}

/// Adds where the values below a node came from.
fn add_origins(node: &Node, found: &mut Vec<Arc<Origin>>) {
    let mut add = |node: &Node| {
        match &node.origin {
            Some(origin) if !found.contains(origin) => found.push(origin.clone()),
            _ => {}
        }
        add_origins(node, found);
    };
    match &node.value {
        Value::List(items) => items.iter().for_each(add),
        Value::Map(entries) => entries.iter().for_each(|(_, node)| add(node)),
        _ => {}
    }
}

impl Places {
    pub(super) fn push(&mut self, path: String, node: &Node) {
        let mut within = Vec::new();
        add_origins(node, &mut within);
        self.0.push((path, GivenAt { span: node.span, origin: node.origin.clone(), within }));
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
