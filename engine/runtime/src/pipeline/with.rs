//! Checks a stage's `with` against the params of its operator.
//!
//! Owns: aliases → canonical names, types, ranges, choices, secrets, what is missing, and where each value came from.
//! Must not know: what a param does.

use std::borrow::Cow;

use llmflow_contract::{Entry, ParamInfo, ParamType, Role};
use serde_json::{Map, Value as Json};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    fields::truth_meant,
    node::{Node, Value, int_json},
    origin::Origin,
    places::Places,
    source::{At, Span},
    varied::Varied,
};

/// Params under their canonical names, in the operator's order.
pub(super) type Checked = Vec<(String, Varied<Json>)>;

/// Wrong values of one param that are told apart: a matrix can have thousands.
const MAX_WRONG_VALUES: usize = 20;

/// Checks all params of a stage; defaults are not filled in.
///
/// `at` is where a missing param is reported.
pub(super) fn check_params(
    entry: &Entry,
    with: &[(At<String>, Option<Varied<Node>>)],
    at: Span,
    diagnostics: &mut Diagnostics,
) -> (Checked, Places) {
    let mut checker = Checker { operator: entry.name, at, found: Vec::new(), places: Places::default() };
    let checked = checker.params(&entry.params, with);
    checker.found.into_iter().for_each(|diagnostic| diagnostics.push(diagnostic));
    (checked, checker.places)
}

struct Checker<'a> {
    operator: &'a str,
    at: Span,
    found: Vec<Diagnostic>,
    places: Places,
}

impl Checker<'_> {
    fn params(&mut self, params: &[ParamInfo], entries: &[(At<String>, Option<Varied<Node>>)]) -> Checked {
        let given = self.assign(params, entries, |value| value.as_ref().map(|value| &value.values()[0]), "");
        let mut checked = Vec::with_capacity(entries.len());
        for (info, value) in params.iter().zip(given) {
            let Some(value) = value else {
                if info.required {
                    self.missing(info, &info.name);
                }
                continue;
            };
            let Some(value) = value else { continue }; // reported where it could not be filled
            if let Some(json) = self.varied(info, value) {
                checked.push((info.name.clone(), json));
            }
        }
        checked
    }

    /// The values of a param, if each is right.
    fn varied(&mut self, info: &ParamInfo, value: &Varied<Node>) -> Option<Varied<Json>> {
        let first = &value.values()[0];
        self.places.push(info.name.clone(), first);
        let (before, mut places) = (self.found.len(), None);
        let checked = value.map_ref(|node| {
            let json = match self.found.len() < before + MAX_WRONG_VALUES {
                true => self.value(info, node, &info.name),
                false => None,
            };
            // The places within are those of the first value.
            let kept = *places.get_or_insert(self.places.len());
            self.places.truncate(kept);
            json.unwrap_or_default()
        });
        (self.found.len() == before).then_some(checked)
    }

    fn object(&mut self, params: &[ParamInfo], entries: &[(At<String>, Node)], path: &str) -> Json {
        let given = self.assign(params, entries, Some, path);
        let mut json = Map::new();
        for (info, node) in params.iter().zip(given) {
            let name = join(path, &info.name);
            let Some(node) = node else {
                if info.required {
                    self.missing(info, &name);
                }
                continue;
            };
            self.places.push(name.clone(), node);
            if let Some(value) = self.value(info, node, &name) {
                json.insert(info.name.clone(), value);
            }
        }
        Json::Object(json)
    }

    /// For each param the value it is given, under whichever of its names.
    fn assign<'e, V>(
        &mut self,
        params: &[ParamInfo],
        entries: &'e [(At<String>, V)],
        node_of: impl Fn(&'e V) -> Option<&'e Node>,
        path: &str,
    ) -> Vec<Option<&'e V>> {
        let mut given: Vec<Option<&'e (At<String>, V)>> = vec![None; params.len()];
        for entry in entries {
            let (key, value) = entry;
            let node = node_of(value);
            let at = params.iter().position(|info| info.name == key.value || info.aliases.contains(&key.value));
            let Some(at) = at else {
                self.unknown(params, key, node, path);
                continue;
            };
            if let Some((first, _)) = given[at].replace(entry) {
                // What stands outside the file wins, and so does a profile, whichever of the names each of them uses.
                // The same name twice is reported where the file is parsed.
                let overrides = node.is_some_and(|node| node.given().is_some());
                if !overrides && first.value != key.value {
                    self.doubled(&params[at], first, key);
                }
            }
        }
        given.into_iter().map(|entry| entry.map(|(_, value)| value)).collect()
    }

    fn unknown(&mut self, params: &[ParamInfo], key: &At<String>, node: Option<&Node>, path: &str) {
        let names = params.iter().flat_map(|info| std::iter::once(&info.name).chain(&info.aliases)).map(String::as_str);
        let owner =
            if path.is_empty() { format!("`{}`", self.operator) } else { format!("`{path}` of `{}`", self.operator) };
        let blame = node.map(Node::blame_of_target).unwrap_or_default();
        let message = format!("{blame}{owner} has no param `{}`", key.value);
        let span = node.is_none_or(|node| node.place().is_some()).then_some(key.span);
        let diagnostic = Diagnostic::new("param/unknown", message, span);
        self.found.push(match node.is_some_and(|node| is_cut_off(&key.value, node)) {
            true => diagnostic.label("the comma ends the number before it").help(CUT_OFF),
            false => diagnostic.nearest(&key.value, names).help(format!("llmflow operators {}", self.operator)),
        });
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
        if let Some(refused) = self.secrecy(info, node, name) {
            self.found.push(refused);
            return None;
        }
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
        if node.origin.as_ref().is_some_and(|origin| origin.metric.is_some()) {
            return self.metric(info, node, name);
        }
        let node = &*read(&info.kind, node);
        let value = self.typed(&info.kind, node, name)?;
        if let Some(bounds) = outside(info, node) {
            let message = format!("`{name}` is {node}, it must be {bounds}");
            let help = info.default.as_ref().filter(|default| !default.is_null() && !info.required);
            let help = help.map_or_else(
                || format!("llmflow operators {}", self.operator),
                |default| format!("{name}: {default}  # the default"),
            );
            self.refuse("param/range", message, node).help(help).push(&mut self.found);
            return None;
        }
        Some(value)
    }

    /// A metric of another stage: a number, and the whole value of a param of the stage. It stays until it is known.
    fn metric(&mut self, info: &ParamInfo, node: &Node, name: &str) -> Option<Json> {
        let takes_number = |kind: &ParamType| matches!(kind, ParamType::Integer | ParamType::Number | ParamType::Any);
        let fits = match &info.kind {
            ParamType::Either(kinds) => kinds.iter().any(takes_number),
            kind => takes_number(kind),
        };
        if fits && name == info.name && info.role != Role::Source {
            return Some(node.to_json());
        }
        let message = format!("`{name}` is {}: a metric is a number", info.kind.describe());
        let help = "a metric can be the value of a param that is a number; `when` compares metrics, too";
        self.refuse("param/metric", message, node).help(help).push(&mut self.found);
        None
    }

    /// What is wrong with a secret that stands where its value would be recorded, or a value where a secret belongs.
    fn secrecy(&self, info: &ParamInfo, node: &Node, name: &str) -> Option<Diagnostic> {
        // The fields of a map are checked one by one.
        let is_secret = if has_fields(&info.kind) { is_own_secret(node) } else { is_secret(node) };
        if info.role == Role::Secret {
            let literal = literal_in(node).filter(|_| node.value != Value::Null)?;
            return Some(literal_secret(info, literal, name));
        }
        if is_secret {
            let message = format!("`{name}` takes no secret: its value would be recorded");
            let help = format!("llmflow operators {}", self.operator);
            return Some(self.refuse("secret/outside", message, node).help(help));
        }
        None
    }

    fn typed(&mut self, kind: &ParamType, node: &Node, name: &str) -> Option<Json> {
        if let Some(metric) = metric_within(kind, node) {
            let message = format!("a metric cannot stand within `{name}`");
            let help = "a metric is a number, and the whole value of a param of the stage";
            self.refuse("param/metric", message, metric).help(help).push(&mut self.found);
            return None;
        }
        match (kind, &node.value) {
            (ParamType::Any, _) => return Some(node.to_json()),
            (ParamType::Bool, Value::Bool(_))
            | (ParamType::String, Value::String(_))
            | (ParamType::Number, Value::Int(_) | Value::Float(_)) => return Some(node.to_json()),
            // A number that stands elsewhere is written out: `["python", "train.py", "${params.steps}"]`.
            (ParamType::String, Value::Int(_) | Value::Float(_) | Value::Bool(_)) if is_elsewhere(node) => {
                return Some(Json::String(node.to_string()));
            }
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
            (ParamType::Map(item), Value::Map(entries)) => {
                let values = entries.iter().map(|(key, node)| {
                    let name = join(name, &key.value);
                    self.places.push(name.clone(), node);
                    Some((key.value.clone(), self.typed(item, node, &name)?))
                });
                return values.collect::<Vec<_>>().into_iter().collect::<Option<Map<_, _>>>().map(Json::Object);
            }
            (ParamType::Either(kinds), _) => return self.either(kinds, kind, node, name),
            _ => {}
        }
        self.refuse_type(kind, node, name);
        None
    }

    /// The first shape that fits; else the complaint of the one it most resembles.
    fn either(&mut self, kinds: &[ParamType], kind: &ParamType, node: &Node, name: &str) -> Option<Json> {
        let (found, places) = (std::mem::take(&mut self.found), self.places.len());
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
            self.places.truncate(places);
        }
        self.found = found;
        match resembling {
            Some(complaint) => self.found.extend(complaint),
            None => self.refuse_type(kind, node, name),
        }
        None
    }

    fn refuse_type(&mut self, kind: &ParamType, node: &Node, name: &str) {
        let message = match (kind, &node.value) {
            (ParamType::Integer, Value::Float(number)) if number.fract() == 0.0 => {
                format!("`{name}` is too large for a whole number")
            }
            (ParamType::Integer, Value::Float(number)) => format!("`{name}` is {}, not {number}", kind.describe()),
            _ => format!("`{name}` is {}, not {}", kind.describe(), node.describe()),
        };
        let diagnostic = self.refuse("param/type", message, node);
        let is_scalar = matches!(node.value, Value::Bool(_) | Value::Int(_) | Value::Float(_));
        let is_composed = node.is_composed(); // what to write instead would lack its references
        let diagnostic = match (kind, &node.value) {
            (ParamType::String | ParamType::Choice(_), _) if is_scalar => {
                diagnostic.help(format!("quote it: \"{node}\""))
            }
            (ParamType::Bool, Value::String(_) | Value::Int(_)) => {
                diagnostic.help(match truth_meant(&node.to_string()) {
                    Some(truth) => format!("write `{truth}`"),
                    None => "write `true` or `false`".to_owned(),
                })
            }
            (ParamType::List(_), _) if !is_composed && !matches!(node.value, Value::Map(_)) => {
                diagnostic.help(format!("write `[{node}]`"))
            }
            (ParamType::Integer | ParamType::Number, Value::String(text))
                if !is_composed && text.parse::<f64>().is_ok() =>
            {
                diagnostic.help(format!("without quotes: {text}"))
            }
            _ => diagnostic.help(format!("llmflow operators {}", self.operator)),
        };
        self.found.push(diagnostic);
    }

    fn refuse(&self, code: &str, message: String, node: &Node) -> Diagnostic {
        let diagnostic = Diagnostic::new(code, format!("{}{message}", node.blame()), node.place());
        match node.origin.as_deref() {
            Some(Origin { name: Some(name), span: Some(span), .. }) => {
                diagnostic.also(*span, format!("`{name}` stands here"))
            }
            _ => diagnostic,
        }
    }
}

pub(super) const CUT_OFF: &str = "a number has a decimal point, and no comma: `0.5`, `1000`";

/// Whether a key is what a comma in a number leaves behind: `{x: 0,5}` is an `x` of 0 and a `5` of nothing.
pub(super) fn is_cut_off(key: &str, node: &Node) -> bool {
    node.value == Value::Null && !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit())
}

/// A value where the name of a secret belongs. It may be the secret: the message does not repeat it, and
/// [`Hidden`](super::secrecy::Hidden) takes it out of the lines that are shown.
fn literal_secret(info: &ParamInfo, literal: &Node, name: &str) -> Diagnostic {
    let message = format!("{}`{name}` takes the name of a secret, never the secret itself", literal.blame_of_secret());
    let secret = match info.kind {
        ParamType::Map(_) => "{NAME: \"${secret.NAME}\"}",
        _ => "\"${secret.NAME}\"",
    };
    let help = format!("{name}: {secret}, and in the shell: export NAME=…");
    let mut diagnostic = Diagnostic::new("secret/literal", message, literal.place()).help(help);
    for origin in literal.origin.iter().flat_map(Origin::all) {
        if let (Some(from), Some(span)) = (&origin.name, origin.span) {
            diagnostic = diagnostic.also(span, format!("`{from}` stands here"));
        }
    }
    diagnostic
}

/// The first part of a value that is no `${secret.X}`.
fn literal_in(node: &Node) -> Option<&Node> {
    match &node.value {
        Value::List(items) => items.iter().find_map(literal_in),
        Value::Map(entries) => entries.iter().find_map(|(_, value)| literal_in(value)),
        _ => (!is_own_secret(node)).then_some(node),
    }
}

/// Whether `${secret.X}` stands anywhere in a value.
fn is_secret(node: &Node) -> bool {
    is_own_secret(node)
        || match &node.value {
            Value::List(items) => items.iter().any(is_secret),
            Value::Map(entries) => entries.iter().any(|(_, value)| is_secret(value)),
            _ => false,
        }
}

fn is_own_secret(node: &Node) -> bool {
    let name = node.origin.as_ref().and_then(|origin| origin.name.as_ref());
    name.is_some_and(|name| name.starts_with("secret."))
}

/// A metric of another stage in a value that is not the param's own; below `Any` at any depth.
fn metric_within<'a>(kind: &ParamType, node: &'a Node) -> Option<&'a Node> {
    if node.origin.as_ref().is_some_and(|origin| origin.metric.is_some()) {
        return Some(node);
    }
    match (&node.value, kind) {
        (Value::List(items), ParamType::Any) => items.iter().find_map(|item| metric_within(kind, item)),
        (Value::Map(entries), ParamType::Any) => entries.iter().find_map(|(_, value)| metric_within(kind, value)),
        _ => None,
    }
}

/// A variable of the environment is text; where a number or a truth belongs it is read as one: `5`.
fn read<'a>(kind: &ParamType, node: &'a Node) -> Cow<'a, Node> {
    let is_given = node.origin.as_ref().is_some_and(|origin| origin.is_variable());
    match (&node.value, kind) {
        (Value::String(text), ParamType::Bool | ParamType::Integer | ParamType::Number) if is_given => {
            let read = Node::plain(text).map(|value| Node { value, ..node.clone() });
            read.map_or(Cow::Borrowed(node), Cow::Owned)
        }
        _ => Cow::Borrowed(node),
    }
}

/// Whether a value stands where a reference points to.
fn is_elsewhere(node: &Node) -> bool {
    node.origin.as_ref().is_some_and(|origin| origin.name.is_some())
}

fn has_fields(kind: &ParamType) -> bool {
    match kind {
        ParamType::Object(_) => true,
        ParamType::List(item) => has_fields(item),
        ParamType::Either(kinds) => kinds.iter().any(has_fields),
        _ => false,
    }
}

impl Diagnostic {
    fn push(self, found: &mut Vec<Self>) {
        found.push(self);
    }
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
