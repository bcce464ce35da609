//! A pipeline's own params and what `--set` changes.
//!
//! Owns: the short and the long form of a param, its type (its default's) and range, the `--set` grammar.
//! Must not know: operators; a `--set stage.param` is checked with the stage's other params.

use std::sync::Arc;

use indexmap::IndexMap;

use super::{
    diagnostic::{Diagnostic, Diagnostics, nearest},
    fields::refuse_unknown_keys,
    node::{Node, Value},
    reference::Origin,
    source::{At, SourceFile, Span},
};

/// A value that stages refer to as `${params.name}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// The default, or what `--set` made of it.
    pub value: Node,
    pub default: Node,
    /// Least and greatest, both allowed.
    pub range: Option<(f64, f64)>,
    pub doc: String,
    /// The `--set` that changed it, as typed.
    pub set: Option<String>,
}

/// One `--set`.
#[derive(Clone, Debug)]
pub(super) struct Set {
    /// As typed: `rank=32`.
    pub text: String,
    pub target: String,
    pub value: String,
}

impl Set {
    pub fn parse(text: &str) -> Result<Self, Diagnostic> {
        match text.split_once('=') {
            Some((target, value)) if !target.trim().is_empty() => {
                let target = target.trim();
                let target = target.strip_prefix("params.").unwrap_or(target).to_owned();
                Ok(Self { text: text.to_owned(), target, value: value.to_owned() })
            }
            _ => Err(Diagnostic::new("set/form", format!("`--set {text}` sets nothing"), None)
                .help("--set NAME=VALUE, or --set STAGE.PARAM=VALUE")),
        }
    }

    /// The value as YAML reads it; what is no YAML is text.
    pub fn node(&self, span: Span) -> Node {
        let value = match Node::parse(&SourceFile::new("--set", self.value.as_str())) {
            Ok(node) if !self.value.trim().is_empty() => node.value,
            _ => Value::String(self.value.clone()),
        };
        let mut node = Node::new(value, span);
        self.mark(&mut node);
        node
    }

    fn mark(&self, node: &mut Node) {
        node.origin = Some(Arc::new(Origin { param: None, span: None, set: Some(self.text.clone()) }));
        match &mut node.value {
            Value::List(items) => {
                for item in items {
                    item.span = node.span;
                    self.mark(item);
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    (key.span, value.span) = (node.span, node.span);
                    self.mark(value);
                }
            }
            _ => {}
        }
    }
}

/// Reads `params`.
pub(super) fn read(node: &Node, diagnostics: &mut Diagnostics) -> IndexMap<String, Param> {
    let mut params = IndexMap::new();
    let Some(entries) = node.as_map() else {
        if node.value != Value::Null {
            let message = format!("`params` is a map of names, not {}", node.describe());
            diagnostics.push(Diagnostic::new("pipeline/form", message, node.span).help("params: {rank: 16}"));
        }
        return params;
    };
    for (key, value) in entries {
        if !is_name(&key.value) {
            let message = format!("`{}` cannot name a param: use letters, digits and `_`", key.value);
            diagnostics.push(Diagnostic::new("param/name", message, key.span));
        } else if let Some(param) = read_one(key, value, diagnostics) {
            params.insert(key.value.clone(), param);
        }
    }
    params
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn read_one(key: &At<String>, value: &Node, diagnostics: &mut Diagnostics) -> Option<Param> {
    let plain = |default: &Node| Param {
        value: default.clone(),
        default: default.clone(),
        range: None,
        doc: String::new(),
        set: None,
    };
    let Some(entries) = value.as_map() else { return Some(plain(value)) };
    let Some(default) = value.get("default") else {
        let message = format!("the long form of `{}` has no `default`", key.value);
        let help = format!("{}: {{ default: 4, range: [1, 16], doc: what it does }}", key.value);
        diagnostics.push(Diagnostic::new("param/no-default", message, key.span).help(help));
        return None;
    };
    refuse_unknown_keys(&format!("param `{}`", key.value), entries, &["default", "range", "doc"], &[], diagnostics);
    let mut param = plain(default);
    param.doc = value.get("doc").map(ToString::to_string).unwrap_or_default();
    if let Some(range) = value.get("range") {
        let bounds: Option<Vec<f64>> =
            if let Value::List(items) = &range.value { items.iter().map(Node::as_f64).collect() } else { None };
        match bounds.as_deref() {
            Some([least, greatest]) if least <= greatest => param.range = Some((*least, *greatest)),
            _ => {
                let message = format!("the range of `{}` is not two numbers, the lesser first", key.value);
                diagnostics.push(Diagnostic::new("param/range", message, range.span).help("range: [1, 16]"));
            }
        }
    }
    if let Some(message) = out_of_range(&key.value, &param) {
        diagnostics.push(Diagnostic::new("param/range", message, default.span).label("out of its own range"));
    }
    Some(param)
}

fn out_of_range(name: &str, param: &Param) -> Option<String> {
    let ((least, greatest), value) = (param.range?, param.value.as_f64()?);
    let is_inside = (least..=greatest).contains(&value);
    (!is_inside).then(|| format!("`params.{name}` is {}, outside {least} to {greatest}", param.value))
}

/// Changes a param, if the value has the type of its default.
pub(super) fn set(param: &mut Param, name: &str, set: &Set, diagnostics: &mut Diagnostics) {
    let mut node = set.node(param.default.span);
    let fits = match (&param.default.value, &node.value) {
        (Value::Null, _) => true,
        (Value::String(_), _) => {
            node.value = Value::String(set.value.clone());
            true
        }
        (Value::Int(_), _) => node.as_int().is_some(),
        (Value::Float(_), _) => node.as_f64().is_some(),
        (Value::Bool(_), Value::Bool(_)) | (Value::List(_), Value::List(_)) | (Value::Map(_), Value::Map(_)) => true,
        _ => false,
    };
    if !fits {
        let message = format!("`--set {}`: `params.{name}` is {}", set.text, param.default.describe());
        let help = format!("its default is `{}`", param.default);
        diagnostics.push(Diagnostic::new("set/type", message, None).also(param.default.span, "its default").help(help));
        return;
    }
    (param.value, param.set) = (node, Some(set.text.clone()));
    if let Some(message) = out_of_range(name, param) {
        let message = format!("`--set {}`: {message}", set.text);
        diagnostics.push(Diagnostic::new("set/range", message, None).also(param.default.span, "its range stands here"));
    }
}

/// Puts a value into a stage's `with`, below `stages`. Its name is checked with the stage's other params.
pub(super) fn set_in_stage(stages: &mut Node, set: &Set) -> Result<(), Diagnostic> {
    let unknown = |what: &str, near: Option<&str>| {
        let diagnostic = Diagnostic::new("set/unknown", format!("`--set {}`: {what}", set.text), None);
        match near {
            Some(name) => diagnostic.help(format!("the nearest is `{name}`")),
            None => diagnostic.help("--set NAME=VALUE for a param, --set STAGE.PARAM=VALUE for a stage's"),
        }
    };
    let (stage, path) = set.target.split_once('.').unwrap_or((&set.target, ""));
    let Value::Map(entries) = &mut stages.value else {
        return Err(unknown("the file has no stages", None));
    };
    let Some(at) = entries.iter().position(|(key, _)| key.value == stage) else {
        let near = nearest(stage, entries.iter().map(|(key, _)| key.value.as_str()));
        return Err(unknown(&format!("there is no stage `{stage}`"), near));
    };
    let (key, body) = &mut entries[at];
    let mut node = body;
    if !matches!(node.value, Value::Map(_)) {
        return Ok(()); // Reported where the stage is read.
    }
    for name in std::iter::once("with").chain(path.split('.')) {
        if name.is_empty() {
            return Err(unknown("the name of a param is missing", None));
        }
        if matches!(node.value, Value::Null) {
            node.value = Value::Map(Vec::new());
        }
        let described = node.describe();
        let Value::Map(entries) = &mut node.value else {
            return Err(unknown(&format!("there is nothing to set below {described}"), None));
        };
        let at = entries.iter().position(|(key, _)| key.value == name).unwrap_or_else(|| {
            let mut made = Node::new(Value::Null, key.span);
            set.mark(&mut made);
            entries.push((At::new(name.to_owned(), key.span), made));
            entries.len() - 1
        });
        node = &mut entries[at].1;
    }
    *node = set.node(node.span);
    Ok(())
}
