//! Where the params of a stage stand in the file.

use std::sync::Arc;

use serde_json::Value as Json;

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
    /// Where parts of it came from, by their JSON pointers: words of a command, values of a map.
    within: Vec<(String, Arc<Origin>)>,
}

/// Adds where the values below a node came from; the node lies at `path`.
fn add_origins(node: &Node, path: &str, found: &mut Vec<(String, Arc<Origin>)>) {
    let mut add = |name: &str, node: &Node| {
        let path = format!("{path}/{name}");
        add_origins(node, &path, found);
        found.extend(node.origin.clone().map(|origin| (path, origin)));
    };
    match &node.value {
        Value::List(items) => items.iter().enumerate().for_each(|(at, node)| add(&at.to_string(), node)),
        Value::Map(entries) => {
            entries.iter().for_each(|(key, node)| add(&key.value.replace('~', "~0").replace('/', "~1"), node));
        }
        _ => {}
    }
}

impl GivenAt {
    /// Where it came from as a whole; nothing if only parts of it came from elsewhere.
    pub fn whole(&self) -> Option<&Origin> {
        self.origin.as_deref().filter(|origin| origin.text.is_none())
    }

    /// Where parts of it came from, each once.
    pub fn parts(&self) -> Vec<&Origin> {
        once(self.placed().flat_map(|(_, origin)| origin.all()))
    }

    /// The same without the parts that two values, as JSON text, have in common; with those of which that cannot be told.
    pub fn changed_parts(&self, before: &str, now: &str) -> Vec<&Origin> {
        let read = |text: &str| serde_json::from_str::<Json>(text).ok();
        let (before, now) = (read(before), read(now));
        let at = |value: &Option<Json>, path: &str| value.as_ref()?.pointer(path).cloned();
        once(self.placed().flat_map(|(path, origin)| match (at(&before, path), at(&now, path), &origin.text) {
            (Some(before), Some(now), _) if before == now => Vec::new(),
            (Some(Json::String(before)), Some(Json::String(now)), Some(text)) => text.changed(&before, &now).collect(),
            _ => origin.all(),
        }))
    }

    fn placed(&self) -> impl Iterator<Item = (&str, &Arc<Origin>)> {
        let own = self.origin.iter().map(|origin| ("", origin));
        own.chain(self.within.iter().map(|(path, origin)| (path.as_str(), origin)))
    }
}

fn once<'a>(origins: impl Iterator<Item = &'a Arc<Origin>>) -> Vec<&'a Origin> {
    let mut found: Vec<&Origin> = Vec::new();
    for origin in origins {
        if !found.contains(&&**origin) {
            found.push(origin);
        }
    }
    found
}

impl Places {
    pub(super) fn push(&mut self, path: String, node: &Node) {
        let mut within = Vec::new();
        add_origins(node, "", &mut within);
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
