//! Checks a stage's `with` against the params of its operator.
//!
//! Owns: aliases → canonical names, types, ranges, choices, what is missing, and where each value came from.
//! Must not know: what a param does.

use std::{collections::BTreeMap, sync::Arc};

use llmflow_contract::{Entry, ParamInfo, ParamType};
use serde_json::{Map, Value as Json};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    node::{Node, Value, int_json},
    reference::Origin,
    source::{At, Span},
};

/// Where each given param stands, by path: `keep.min_overlap`.
pub type Places = BTreeMap<String, GivenAt>;

/// Where one value stands and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenAt {
    pub span: Span,
    pub origin: Option<Arc<Origin>>,
}

/// Checks all params of a stage and returns them under their canonical names, defaults not filled in.
///
/// `at` is where a missing param is reported.
pub fn check_params(entry: &Entry, with: &Node, at: Span, diagnostics: &mut Diagnostics) -> (Json, Places) {
    let mut checker = Checker { operator: entry.name, at, found: Vec::new(), places: Places::new() };
    let json = checker.object(&entry.params, with.as_map().unwrap_or_default(), "");
    checker.found.into_iter().for_each(|diagnostic| diagnostics.push(diagnostic));
    (json, checker.places)
}

struct Checker<'a> {
    operator: &'a str,
    at: Span,
    found: Vec<Diagnostic>,
    places: Places,
}

impl Checker<'_> {
    fn object(&mut self, params: &[ParamInfo], entries: &[(At<String>, Node)], path: &str) -> Json {
        let mut json = Map::new();
        let mut given: BTreeMap<&str, &(At<String>, Node)> = BTreeMap::new();
        for entry in entries {
            let (key, node) = entry;
            let Some(info) = params.iter().find(|info| info.name == key.value || info.aliases.contains(&key.value))
            else {
                self.unknown(params, key, node, path);
                continue;
            };
            match given.insert(&info.name, entry) {
                // `--set` wins over the file, whichever of the names each of them uses.
                Some(first) if node.place().is_some() || first.1.place().is_none() => self.doubled(info, &first.0, key),
                _ => {}
            }
        }
        for info in params {
            let name = join(path, &info.name);
            let Some((_, node)) = given.get(info.name.as_str()) else {
                if info.required {
                    self.missing(info, &name);
                }
                continue;
            };
            self.places.insert(name.clone(), GivenAt { span: node.span, origin: node.origin.clone() });
            if let Some(value) = self.value(info, node, &name) {
                json.insert(info.name.clone(), value);
            }
        }
        Json::Object(json)
    }

    fn unknown(&mut self, params: &[ParamInfo], key: &At<String>, node: &Node, path: &str) {
        let names = params.iter().flat_map(|info| std::iter::once(&info.name).chain(&info.aliases)).map(String::as_str);
        let owner =
            if path.is_empty() { format!("`{}`", self.operator) } else { format!("`{path}` of `{}`", self.operator) };
        let from_set = set_of(node).map(|set| format!("`--set {set}`: ")).unwrap_or_default();
        let message = format!("{from_set}{owner} has no param `{}`", key.value);
        let span = node.place().map(|_| key.span);
        let diagnostic = Diagnostic::new("param/unknown", message, span).nearest(&key.value, names);
        self.found.push(diagnostic.help(format!("llmflow operators {}", self.operator)));
    }

    fn doubled(&mut self, info: &ParamInfo, first: &At<String>, second: &At<String>) {
        let message = format!("`{}` and `{}` are the same param", first.value, second.value);
        let label = format!("`{}` again", info.name);
        let diagnostic =
            Diagnostic::new("param/twice", message, second.span).label(label).also(first.span, "given here");
        self.found.push(diagnostic.help("keep one of them"));
    }

    fn missing(&mut self, info: &ParamInfo, name: &str) {
        let message = format!("`{}` needs a param `{name}`", self.operator);
        let doc = info.doc.lines().next().unwrap_or_default();
        let help =
            format!("with: {{{name}: …}}  # {}", if doc.is_empty() { info.kind.describe() } else { doc.to_owned() });
        self.found.push(Diagnostic::new("param/missing", message, self.at).help(help));
    }

    /// The canonical value; nothing if it was refused.
    fn value(&mut self, info: &ParamInfo, node: &Node, name: &str) -> Option<Json> {
        if node.value == Value::Null {
            if info.nullable {
                return Some(Json::Null);
            }
            let label = format!("{} expected", info.kind.describe());
            let help = if info.required { "give it a value" } else { "remove the line to take the default" };
            self.refuse("param/type", format!("`{name}` has no value"), node)
                .label(label)
                .help(help)
                .push(&mut self.found);
            return None;
        }
        let value = self.typed(&info.kind, node, name)?;
        if let Some(bounds) = outside(info, node) {
            let message = format!("`{name}` is {node}, it must be {bounds}");
            self.refuse("param/range", message, node).push(&mut self.found);
            return None;
        }
        Some(value)
    }

    fn typed(&mut self, kind: &ParamType, node: &Node, name: &str) -> Option<Json> {
        match (kind, &node.value) {
            (ParamType::Any, _) => return Some(node.to_json()),
            (ParamType::Bool, Value::Bool(_))
            | (ParamType::String, Value::String(_))
            | (ParamType::Number, Value::Int(_) | Value::Float(_)) => return Some(node.to_json()),
            (ParamType::Integer, _) => {
                if let Some(number) = node.as_int() {
                    return Some(int_json(number));
                }
            }
            (ParamType::Choice(names), Value::String(text)) => {
                if names.contains(text) {
                    return Some(node.to_json());
                }
                let message = format!("`{name}` cannot be `{text}`");
                self.refuse("param/choice", message, node)
                    .nearest(text, names.iter().map(String::as_str))
                    .help(format!("it takes {}", names.join(", ")))
                    .push(&mut self.found);
                return None;
            }
            (ParamType::List(item), Value::List(nodes)) => {
                let values =
                    nodes.iter().enumerate().map(|(at, node)| self.typed(item, node, &format!("{name}[{at}]")));
                return values.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>().map(Json::Array);
            }
            (ParamType::Object(fields), Value::Map(entries)) => {
                let before = self.found.len();
                let at = std::mem::replace(&mut self.at, node.span);
                let json = self.object(fields, entries, name);
                self.at = at;
                return (self.found.len() == before).then_some(json);
            }
            (ParamType::Either(kinds), _) => return self.either(kinds, kind, node, name),
            _ => {}
        }
        self.refuse_type(kind, node, name);
        None
    }

    /// The first shape that fits; else the complaint of the one it most resembles.
    fn either(&mut self, kinds: &[ParamType], kind: &ParamType, node: &Node, name: &str) -> Option<Json> {
        let (found, places) = (std::mem::take(&mut self.found), self.places.clone());
        let mut resembling = None;
        for shape in kinds {
            if let Some(value) = self.typed(shape, node, name) {
                self.found = found;
                return Some(value);
            }
            let complaint = std::mem::take(&mut self.found);
            let is_alike = matches!(
                (shape, &node.value),
                (ParamType::Object(_), Value::Map(_)) | (ParamType::List(_), Value::List(_))
            );
            if is_alike {
                resembling.get_or_insert(complaint);
            }
            self.places.clone_from(&places);
        }
        self.found = found;
        match resembling {
            Some(complaint) => self.found.extend(complaint),
            None => self.refuse_type(kind, node, name),
        }
        None
    }

    fn refuse_type(&mut self, kind: &ParamType, node: &Node, name: &str) {
        let message = format!("`{name}` is {}, not {}", kind.describe(), node.describe());
        let diagnostic = self.refuse("param/type", message, node);
        let is_scalar = matches!(node.value, Value::Bool(_) | Value::Int(_) | Value::Float(_));
        let diagnostic = match (kind, &node.value) {
            (ParamType::String | ParamType::Choice(_), _) if is_scalar => {
                diagnostic.help(format!("quote it: \"{node}\""))
            }
            (ParamType::Bool, Value::String(text)) if ["yes", "on", "y"].contains(&text.to_lowercase().as_str()) => {
                diagnostic.help("write `true`")
            }
            (ParamType::Bool, Value::String(text)) if ["no", "off", "n"].contains(&text.to_lowercase().as_str()) => {
                diagnostic.help("write `false`")
            }
            (ParamType::List(_), _) if !matches!(node.value, Value::Map(_)) => {
                diagnostic.help(format!("write `[{node}]`"))
            }
            (ParamType::Integer | ParamType::Number, Value::String(text)) if text.parse::<f64>().is_ok() => {
                diagnostic.help(format!("without quotes: {text}"))
            }
            _ => diagnostic,
        };
        self.found.push(diagnostic);
    }

    fn refuse(&self, code: &str, message: String, node: &Node) -> Diagnostic {
        let message = match set_of(node) {
            Some(set) => format!("`--set {set}`: {message}"),
            None => message,
        };
        let diagnostic = Diagnostic::new(code, message, node.place());
        match node.origin.as_deref() {
            Some(Origin { param: Some(param), span: Some(span), .. }) => {
                diagnostic.also(*span, format!("`params.{param}` stands here"))
            }
            _ => diagnostic,
        }
    }
}

impl Diagnostic {
    fn push(self, found: &mut Vec<Self>) {
        found.push(self);
    }
}

fn set_of(node: &Node) -> Option<&str> {
    node.origin.as_ref()?.set.as_deref()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What a number must be, if it is not.
fn outside(info: &ParamInfo, node: &Node) -> Option<String> {
    let number = node.as_f64()?;
    let below = info.min.is_some_and(|min| number < min || (info.above_min && number == min));
    let above = info.max.is_some_and(|max| number > max);
    if !below && !above {
        return None;
    }
    Some(match (info.min, info.max, info.above_min) {
        (Some(min), Some(max), false) => format!("{min} to {max}"),
        (Some(min), Some(max), true) => format!("above {min} and at most {max}"),
        (Some(min), None, false) => format!("{min} or more"),
        (Some(min), None, true) => format!("above {min}"),
        (None, Some(max), _) => format!("at most {max}"),
        (None, None, _) => return None,
    })
}
