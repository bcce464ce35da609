//! What is asked in place of what the file says: `--set`, `--params-file`.
//!
//! Owns: their grammar, the order in which they win: the file, its profile, a params file, `--set`.
//! Must not know: operators; a `stage.param` is checked with the stage's other params.

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{
    diagnostic::{Diagnostic, Diagnostics, nearest},
    node::{Node, Value},
    origin::{Given, Origin},
    params::{Param, out_of_range},
    reference::Scope,
    source::{At, SourceFile, Span},
};

/// What was asked in place of what the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    /// Every `--set`, as typed; the last of a name wins.
    pub set: Vec<String>,
    /// YAML or JSON: a map from params, and from `stage.param`, to values.
    pub params_file: Option<SourceFile>,
    /// A name under `profiles`.
    pub profile: Option<String>,
    /// A rehearsal: every bound on how much is done is lowered to this.
    pub limit: Option<u64>,
    /// What the variables of the environment are that the file reads, whatever they are now: a run is gone on with as it began.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

impl From<&[String]> for Overrides {
    fn from(set: &[String]) -> Self {
        Self { set: set.to_vec(), ..Self::default() }
    }
}

/// The parts of a file that can be changed before they are read.
pub(super) struct Changes<'a> {
    pub scope: &'a Scope<'a>,
    pub params: &'a mut IndexMap<String, Param>,
    pub stages: Option<&'a mut Node>,
    pub diagnostics: &'a mut Diagnostics,
}

/// One value to put in place of another.
pub(super) struct Change {
    /// A param, or `stage.param`.
    pub target: String,
    pub value: Node,
    /// The text as typed, for a param that is text.
    pub text: Option<String>,
}

impl Changes<'_> {
    pub fn apply(&mut self, overrides: &Overrides) {
        if let Some(file) = &overrides.params_file {
            for change in self.read_file(file) {
                self.change(change);
            }
        }
        for text in &overrides.set {
            match parse_set(text) {
                Ok(change) => self.change(change),
                Err(diagnostic) => self.diagnostics.push(diagnostic),
            }
        }
    }

    fn read_file(&mut self, file: &SourceFile) -> Vec<Change> {
        let here = std::env::current_dir().unwrap_or_default();
        let path = file.path.strip_prefix(here).unwrap_or(&file.path).display().to_string();
        let given = Given::ParamsFile(path.clone());
        let place = |span: Span| {
            let (line, column) = file.position(span.start);
            format!("{path}:{line}:{column}")
        };
        let mut refuse = |code: &str, message: String, span: Span| {
            let message = format!("`{}`: {message}", place(span));
            self.diagnostics
                .push(Diagnostic::new(code, message, None).help("a map: {rank: 32, sft.num_train_epochs: 2}"));
        };
        match Node::parse(file) {
            Ok((Node { value: Value::Map(entries), .. }, found)) => {
                for diagnostic in found {
                    refuse(&diagnostic.code, diagnostic.message.clone(), diagnostic.span.unwrap_or_default());
                }
                let change = |(key, mut value): (At<String>, Node)| {
                    mark(&mut value, Span::default(), &given);
                    Change { target: own_name(&key.value).to_owned(), value, text: None }
                };
                entries.into_iter().map(change).collect()
            }
            Ok((Node { value: Value::Null, .. }, _)) => Vec::new(),
            Ok((node, _)) => {
                refuse("params-file/form", format!("params are a map, not {}", node.describe()), node.span);
                Vec::new()
            }
            Err(error) => {
                refuse(&error.code, error.message.clone(), error.span.unwrap_or_default());
                Vec::new()
            }
        }
    }

    pub fn change(&mut self, change: Change) {
        if let Some(stage) = self.stage_of_combination(&change.target) {
            let message = format!("{}one combination of `{stage}` cannot be set", change.value.blame_of_target());
            let help = format!(
                "`--set {stage}.PARAM=VALUE` sets all of them; what differs between them stands in its `matrix`"
            );
            self.diagnostics.push(Diagnostic::new("set/combination", message, change.place()).help(help));
        } else if self.params.contains_key(&change.target) {
            self.set_param(change);
        } else if change.target.contains('.') {
            self.set_in_stage(change);
        } else {
            let message = format!("{}there is no param `{}`", change.value.blame_of_target(), change.target);
            let names = self.params.keys().map(String::as_str);
            let help = match self.params.is_empty() {
                true => "this pipeline has no params; a stage's are set by `--set STAGE.PARAM=VALUE`".to_owned(),
                false => format!("it has {}", self.params.keys().cloned().collect::<Vec<_>>().join(", ")),
            };
            let diagnostic = Diagnostic::new("set/unknown", message, change.place()).nearest(&change.target, names);
            self.diagnostics.push(diagnostic.help(help));
        }
    }

    /// The stage of the file of whose combinations a target names one: `keep` of `keep@min=5`.
    fn stage_of_combination<'t>(&self, target: &'t str) -> Option<&'t str> {
        let (stage, _) = target.split_once('@')?;
        self.stages.as_deref()?.get(stage).map(|_| stage)
    }

    /// Changes a param, if the value has the type of its default.
    fn set_param(&mut self, mut change: Change) {
        let Some(param) = self.params.get_mut(&change.target) else { return };
        let name = &change.target;
        let node = &mut change.value;
        if let (Value::String(_), Some(text)) = (&param.default.value, &change.text) {
            node.value = Value::String(text.clone());
        }
        let origin = node.origin.clone();
        let before = self.diagnostics.raw_len();
        self.scope.fill(node, self.diagnostics);
        if let Some(refused) = self.diagnostics.get(before) {
            param.refused = Some(refused.clone()); // what it is instead is nobody's to judge
            return;
        }
        if !matches!(param.default.value, Value::String(_)) {
            node.read_variable();
        }
        node.origin = origin; // what gave it, not what it was filled with
        let fits = match (&param.default.value, &node.value) {
            (Value::Null, _) => true,
            (Value::Int(_), _) => node.as_int().is_some(),
            (Value::Float(_), _) => node.as_f64().is_some_and(f64::is_finite),
            (Value::Bool(_), Value::Bool(_))
            | (Value::String(_), Value::String(_))
            | (Value::List(_), Value::List(_))
            | (Value::Map(_), Value::Map(_)) => true,
            _ => false,
        };
        if !fits {
            let message = format!("{}`params.{name}` is {}", node.blame(), param.default.describe());
            let help = format!("its default is `{}`", param.default);
            let diagnostic = Diagnostic::new("set/type", message, node.place()).also(param.default.span, "its default");
            self.diagnostics.push(diagnostic.help(help));
            return;
        }
        let (blame, place) = (node.blame(), node.place());
        param.given = node.given().cloned();
        param.value = change.value;
        if let Some(message) = out_of_range(name, param) {
            let diagnostic = Diagnostic::new("set/range", format!("{blame}{message}"), place);
            self.diagnostics
                .push(diagnostic.also(param.default.span, "its range stands here").help("take a value within it"));
        }
    }

    /// Puts a value into a stage's `with`. Its name is checked with the stage's other params.
    fn set_in_stage(&mut self, change: Change) {
        let place = change.place();
        let blame = change.value.blame_of_target();
        let unknown = |what: &str, near: Option<&str>| {
            let diagnostic = Diagnostic::new("set/unknown", format!("{blame}{what}"), place);
            match near {
                Some(name) => diagnostic.help(format!("the nearest is `{name}`")),
                None => diagnostic.help("NAME=VALUE sets a param, STAGE.PARAM=VALUE a stage's"),
            }
        };
        let (stage, path) = change.target.split_once('.').unwrap_or((&change.target, ""));
        let Some(Value::Map(entries)) = self.stages.as_mut().map(|stages| &mut stages.value) else {
            self.diagnostics.push(unknown("the file has no stages", None));
            return;
        };
        let Some(at) = entries.iter().position(|(key, _)| key.value == stage) else {
            let near = nearest(stage, entries.iter().map(|(key, _)| key.value.as_str()));
            self.diagnostics.push(unknown(&format!("there is no stage `{stage}`"), near));
            return;
        };
        let (key, body) = &mut entries[at];
        if !matches!(body.value, Value::Map(_)) {
            return; // Reported where the stage is read.
        }
        match node_at(body, key.span, path, &change.value) {
            Ok(node) => {
                // Outside the file a value stands where the one it replaces stood.
                let span = if change.value.place().is_some() { change.value.span } else { node.span };
                *node = change.value;
                node.span = span;
            }
            Err(what) => self.diagnostics.push(unknown(&what, None)),
        }
    }
}

/// The node at a path below a stage's `with`, made if it is not there: what is made comes from where the value does.
///
/// # Errors
/// Why there can be none.
fn node_at<'a>(body: &'a mut Node, key: Span, path: &str, value: &Node) -> Result<&'a mut Node, String> {
    let mut node = body;
    for name in std::iter::once("with").chain(path.split('.')) {
        if name.is_empty() {
            return Err("the name of a param is missing".to_owned());
        }
        if matches!(node.value, Value::Null) {
            node.value = Value::Map(Vec::new());
        }
        let described = node.describe();
        let Value::Map(entries) = &mut node.value else {
            return Err(format!("there is nothing to set below {described}"));
        };
        let at = entries.iter().position(|(key, _)| key.value == name).unwrap_or_else(|| {
            let made = Node { origin: value.origin.clone(), ..Node::new(Value::Null, key) };
            entries.push((At::new(name.to_owned(), key), made));
            entries.len() - 1
        });
        node = &mut entries[at].1;
    }
    Ok(node)
}

impl Change {
    /// Where it stands in the file; nowhere if it stands outside.
    fn place(&self) -> Option<Span> {
        self.value.place()
    }
}

pub(super) fn own_name(target: &str) -> &str {
    target.strip_prefix("params.").unwrap_or(target)
}

/// Reads a `--set`.
///
/// # Errors
/// It has no name, or no `=`.
pub(super) fn parse_set(text: &str) -> Result<Change, Diagnostic> {
    let Some((target, typed)) = text.split_once('=').filter(|(target, _)| !target.trim().is_empty()) else {
        let name = text.split([':', ' ']).next().unwrap_or_default(); // what follows may be a secret
        return Err(Diagnostic::new("set/form", format!("`--set {name}` sets nothing"), None)
            .help("--set NAME=VALUE, or --set STAGE.PARAM=VALUE"));
    };
    // The value as YAML reads it; what is no YAML is text.
    let mut value = match Node::parse(&SourceFile::new("--set", typed)) {
        Ok((node, found)) if found.is_empty() && !typed.trim().is_empty() => node,
        _ => Node::new(Value::String(typed.to_owned()), Span::default()),
    };
    mark(&mut value, Span::default(), &Given::Set(text.to_owned()));
    Ok(Change { target: own_name(target.trim()).to_owned(), value, text: Some(typed.to_owned()) })
}

/// Notes on a value and all within it what gave it.
fn mark(node: &mut Node, span: Span, given: &Given) {
    node.span = span;
    note(node, given);
}

/// As [`mark`], where the value stands in the file and keeps its place.
pub(super) fn note(node: &mut Node, given: &Given) {
    node.origin = Some(Arc::new(Origin::given(given.clone())));
    let span = node.span;
    let is_outside = node.place().is_none();
    match &mut node.value {
        Value::List(items) => {
            for item in items {
                item.span = if is_outside { span } else { item.span };
                note(item, given);
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                if is_outside {
                    (key.span, value.span) = (span, span);
                }
                note(value, given);
            }
        }
        _ => {}
    }
}
