//! A pipeline's own params.
//!
//! Owns: the short and the long form of a param, its type (its default's) and range.
//! Must not know: operators, what changes a param (`overrides`).

use indexmap::IndexMap;

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    fields::refuse_unknown_keys,
    node::{Node, Value},
    origin::Given,
    reference::Scope,
    source::At,
    with::{CUT_OFF, is_cut_off},
};

/// A value that stages refer to as `${params.name}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// The default, or what an override made of it.
    pub value: Node,
    pub default: Node,
    /// Least and greatest, both allowed.
    pub range: Option<(f64, f64)>,
    pub doc: String,
    /// What changed it.
    pub given: Option<Given>,
    /// What is wrong with the default: whoever refers to it is told that, and it is shown once.
    pub(super) refused: Option<Diagnostic>,
}

/// Reads `params`.
pub(super) fn read(node: &Node, scope: &Scope<'_>, diagnostics: &mut Diagnostics) -> IndexMap<String, Param> {
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
            diagnostics.push(Diagnostic::new("param/name", message, key.span).help("params: {learning_rate: 2e-4}"));
        } else if is_cut_off(&key.value, value) {
            let diagnostic = Diagnostic::new("param/name", format!("`{}` is no param", key.value), key.span);
            diagnostics.push(diagnostic.label("the comma ends the number before it").help(CUT_OFF));
        } else if let Some(param) = read_one(key, value, scope, diagnostics) {
            params.insert(key.value.clone(), param);
        }
    }
    params
}

pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn read_one(key: &At<String>, value: &Node, scope: &Scope<'_>, diagnostics: &mut Diagnostics) -> Option<Param> {
    let plain = |default: &Node, diagnostics: &mut Diagnostics| {
        let mut default = default.clone();
        let before = diagnostics.raw_len();
        scope.fill(&mut default, diagnostics);
        let refused = diagnostics.get(before).cloned();
        default.read_variable();
        Param { value: default.clone(), default, range: None, doc: String::new(), given: None, refused }
    };
    let Some(entries) = value.as_map() else { return Some(plain(value, diagnostics)) };
    let Some(default) = value.get("default") else {
        let message = format!("the long form of `{}` has no `default`", key.value);
        let help = format!("{}: {{ default: 4, range: [1, 16], doc: what it does }}", key.value);
        diagnostics.push(Diagnostic::new("param/no-default", message, key.span).help(help));
        return None;
    };
    refuse_unknown_keys(&format!("param `{}`", key.value), entries, &["default", "range", "doc"], &[], diagnostics);
    let mut param = plain(default, diagnostics);
    let default = param.default.clone();
    param.doc = value.get("doc").map(ToString::to_string).unwrap_or_default();
    if let Some(range) = value.get("range") {
        let bounds: Option<Vec<f64>> =
            if let Value::List(items) = &range.value { items.iter().map(Node::as_f64).collect() } else { None };
        match bounds.as_deref() {
            Some([least, greatest]) if least <= greatest && default.as_f64().is_some() => {
                param.range = Some((*least, *greatest));
            }
            Some([least, greatest]) if least <= greatest => {
                let message = format!("`{}` has a range, and its default is {}", key.value, default.describe());
                let help = "a range is of numbers: remove it, or give a number as default";
                diagnostics.push(Diagnostic::new("param/range", message, range.span).help(help));
            }
            _ => {
                let message = format!("the range of `{}` is not two numbers, the lesser first", key.value);
                diagnostics.push(Diagnostic::new("param/range", message, range.span).help("range: [1, 16]"));
            }
        }
    }
    if let Some(message) = out_of_range(&key.value, &param) {
        let diagnostic = Diagnostic::new("param/range", message, default.span).label("out of its own range");
        diagnostics.push(diagnostic.help("mend the default or the range"));
    }
    Some(param)
}

pub(super) fn out_of_range(name: &str, param: &Param) -> Option<String> {
    let ((least, greatest), value) = (param.range?, param.value.as_f64()?);
    let is_inside = (least..=greatest).contains(&value);
    (!is_inside).then(|| format!("`params.{name}` is {}, outside {least} to {greatest}", param.value))
}
