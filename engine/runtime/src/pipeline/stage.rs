//! One stage as the file has it: names not yet looked up, params not yet checked.

use std::{sync::Arc, time::Duration};

use llmflow_contract::{Port, StageId};

use super::{
    condition::{self, ReadWhen},
    demand::{self, Resources, Retry},
    diagnostic::{Diagnostic, Diagnostics},
    expression::Expr,
    fields::{form, refuse_unknown_keys, text, texts, truth, whole},
    matrix::{Form, Matrix},
    node::{Node, Value},
    reference::Scope,
    source::{At, Span},
    varied::Varied,
};

/// Names with a meaning of their own.
pub const RESERVED: [&str; 7] = ["params", "env", "secret", "matrix", "stages", "report", "run"];
pub(super) const KEYS: [&str; 13] = [
    "op",
    "in",
    "with",
    "matrix",
    "when",
    "after",
    "resources",
    "retry",
    "timeout",
    "seed",
    "require",
    "cache",
    "frozen",
];
const NOT_YET: [&str; 3] = ["use", "each", "repeat"];
const MAX_NAME_BYTES: usize = 64;
/// What the texts of one combination of a matrix may take.
const BYTES_A_COMBINATION: usize = 256;

/// A stage as written, params substituted.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    /// Its key: the name that all combinations of its matrix share.
    pub name: At<StageId>,
    /// Empty if missing, which is reported.
    pub op: At<String>,
    pub wiring: Varied<Wiring>,
    /// A value that could not be filled is nothing, and reported.
    pub with: Vec<(At<String>, Option<Varied<Node>>)>,
    pub resources: Varied<Resources>,
    pub retry: Retry,
    pub timeout: Option<Duration>,
    pub seed: Varied<Option<u64>>,
    pub after: Varied<Vec<Ref>>,
    pub when: Option<Varied<Option<ReadWhen>>>,
    pub require: Vec<Require>,
    pub is_frozen: bool,
    pub is_cached: bool,
    pub matrix: Option<Arc<Matrix>>,
    /// Whether it has a `matrix` that was refused: then its combinations are unknown.
    pub is_unswept: bool,
    /// Whether nothing in it was refused.
    pub sound: bool,
}

/// The forms of `in`.
#[derive(Clone, Debug)]
pub(super) enum Wiring {
    None,
    /// `in: a` or `in: [a, b]`: the main port.
    Main(Vec<Ref>),
    /// `in: {port: a}`; where the operator has one port, and that takes many, `in: {label: a}`.
    Ports(Vec<(At<Port>, Reads)>),
}

/// What one port reads.
#[derive(Clone, Debug)]
pub(super) enum Reads {
    /// `a` or `[a, b]`
    List(Vec<Ref>),
    /// `{label: a}`: inputs that go by names.
    Labelled(Vec<(At<String>, Vec<Ref>)>),
}

impl Reads {
    pub fn refs(&self) -> impl Iterator<Item = &Ref> {
        let (list, labelled): (&[Ref], &[_]) = match self {
            Self::List(refs) => (refs, &[]),
            Self::Labelled(labels) => (&[], labels),
        };
        list.iter().chain(labelled.iter().flat_map(|(_, refs)| refs))
    }
}

/// `stage`, `stage.port`, `stage@axis=value.port`: not taken apart before all stages are known.
pub(super) type Ref = At<String>;

/// A condition that the stage's metrics must meet.
#[derive(Clone, Debug)]
pub struct Require {
    pub expr: Expr,
    pub span: Span,
}

impl Stage {
    /// Reads one entry of `stages`; what is refused is left at its default.
    pub fn read(key: At<String>, body: Node, scope: &Scope<'_>, diagnostics: &mut Diagnostics) -> Self {
        let before = diagnostics.raw_len();
        check_name(&key, diagnostics);
        let mut stage = Self::spoilt(key.clone());
        stage.is_unswept = false;
        let described = body.describe();
        if let Value::Map(entries) = body.value {
            stage.read_fields(entries, scope, diagnostics);
        } else {
            let message = format!("stage `{}` is a map, not {described}", key.value);
            let help = format!("{}: {{op: data.load, with: {{…}}}}", key.value);
            diagnostics.push(Diagnostic::new("stage/form", message, key.span).help(help));
        }
        stage.sound = diagnostics.raw_len() == before;
        stage
    }

    /// A stage of which only the name can be read: others may refer to it.
    pub fn spoilt(key: At<String>) -> Self {
        Self {
            name: At::new(StageId::new(key.value), key.span),
            op: At::new(String::new(), key.span),
            wiring: Varied::Same(Wiring::None),
            with: Vec::new(),
            resources: Varied::Same(Resources::default()),
            retry: Retry::default(),
            timeout: None,
            seed: Varied::Same(None),
            after: Varied::Same(Vec::new()),
            when: None,
            require: Vec::new(),
            is_frozen: false,
            is_cached: true,
            matrix: None,
            is_unswept: true,
            sound: false,
        }
    }

    fn read_fields(&mut self, mut entries: Vec<(At<String>, Node)>, scope: &Scope<'_>, diagnostics: &mut Diagnostics) {
        let owner = format!("stage `{}`", self.name.value);
        refuse_unknown_keys(&owner, &entries, &KEYS, &NOT_YET, diagnostics);
        if !entries.iter().any(|(name, _)| name.value == "op") {
            let message = format!("{owner} does not say what it does: `op` is missing");
            diagnostics.push(Diagnostic::new("stage/no-op", message, self.name.span).help("llmflow operators"));
        }
        let swept = entries.iter().position(|(name, _)| name.value == "matrix").map(|at| {
            let (key, mut node) = entries.remove(at);
            scope.fill(&mut node, diagnostics);
            Matrix::read(key.span, &node, diagnostics).map(Arc::new)
        });
        let is_swept = swept.is_some();
        self.matrix = swept.flatten();
        if let Some(matrix) = &self.matrix {
            scope.allow_bytes(BYTES_A_COMBINATION * matrix.len());
        }
        self.is_unswept = is_swept && self.matrix.is_none();
        for (name, mut node) in entries {
            let can_vary = matches!(name.value.as_str(), "in" | "with" | "when" | "after" | "resources" | "seed");
            if name.value == "with" {
                self.read_with(node, is_swept, scope, diagnostics);
                continue;
            }
            let before = diagnostics.raw_len();
            if can_vary && is_swept {
                scope.swept().fill(&mut node, diagnostics);
            } else {
                scope.fill(&mut node, diagnostics);
            }
            if diagnostics.raw_len() == before {
                self.read_field(&name, node, is_swept, scope, diagnostics);
            }
        }
    }

    fn read_field(
        &mut self,
        name: &At<String>,
        node: Node,
        is_swept: bool,
        scope: &Scope<'_>,
        diagnostics: &mut Diagnostics,
    ) {
        match name.value.as_str() {
            "op" => self.op = text(&node, "`op`", diagnostics).unwrap_or(At::new(String::new(), node.span)),
            "retry" => self.retry = demand::retry(&node, diagnostics),
            "timeout" => self.timeout = demand::duration(&node, "timeout", diagnostics),
            "require" => self.require = condition::require(&node, diagnostics),
            "frozen" => self.is_frozen = truth(&node, "`frozen`", diagnostics).unwrap_or(false),
            "cache" => self.is_cached = truth(&node, "`cache`", diagnostics).unwrap_or(true),
            "in" | "when" | "after" => {
                let Some(nodes) = self.vary(node, Form::Label, is_swept, scope, diagnostics) else { return };
                match name.value.as_str() {
                    "in" => self.wiring = nodes.map(|node| wiring(&node, diagnostics)),
                    "when" => self.when = Some(nodes.map(|node| condition::when(&node, scope, diagnostics))),
                    _ => self.after = nodes.map(|node| texts(&node, "`after`", diagnostics)),
                }
            }
            "resources" | "seed" => {
                let Some(nodes) = self.vary(node, Form::Value, is_swept, scope, diagnostics) else { return };
                match name.value.as_str() {
                    "seed" => self.seed = nodes.map(|node| whole(&node, "`seed`", 0, u64::MAX, diagnostics)),
                    _ => self.resources = nodes.map(|node| demand::resources(&node, diagnostics)),
                }
            }
            _ => {}
        }
    }

    fn read_with(&mut self, node: Node, is_swept: bool, scope: &Scope<'_>, diagnostics: &mut Diagnostics) {
        let refused = form("`with` is a map of params", &node).help("with: {path: data.jsonl}");
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Null => return,
            _ => return diagnostics.push(refused),
        };
        let scope = scope.with_secrets();
        for (key, mut node) in entries {
            let before = diagnostics.raw_len();
            match is_swept {
                true => scope.swept().fill(&mut node, diagnostics),
                false => scope.fill(&mut node, diagnostics),
            }
            let value = match diagnostics.raw_len() == before {
                true => self.vary(node, Form::Value, is_swept, &scope, diagnostics),
                false => None,
            };
            self.with.push((key, value.filter(|_| diagnostics.raw_len() == before)));
        }
    }

    /// A node for each combination that needs one of its own; nothing if the matrix is refused and the node needs it.
    fn vary(
        &self,
        node: Node,
        form: Form,
        is_swept: bool,
        scope: &Scope<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Varied<Node>> {
        match &self.matrix {
            Some(matrix) => Some(matrix.vary(node, form, scope, diagnostics)),
            None if is_swept && super::matrix::is_named_in(&node) => None,
            None => Some(Varied::Same(node)),
        }
    }
}

fn check_name(key: &At<String>, diagnostics: &mut Diagnostics) {
    let name = key.value.as_str();
    if RESERVED.contains(&name) {
        let message = format!("`{name}` is reserved and cannot name a stage");
        let help = format!("name it `{name}_1`, or what it makes");
        diagnostics.push(Diagnostic::new("stage/reserved", message, key.span).help(help));
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(fits) {
        let message = format!("`{name}` cannot name a stage: use up to {MAX_NAME_BYTES} of a-z, 0-9, `_` and `-`");
        let better: String =
            name.to_lowercase().chars().map(|c| if fits(c) { c } else { '_' }).take(MAX_NAME_BYTES).collect();
        let help = if better.is_empty() { "rows: {op: data.load}".to_owned() } else { format!("{better}:") };
        diagnostics.push(Diagnostic::new("stage/name", message, key.span).help(help));
    }
}

fn wiring(node: &Node, diagnostics: &mut Diagnostics) -> Wiring {
    match &node.value {
        Value::Null => Wiring::None,
        Value::Map(entries) => Wiring::Ports(
            entries
                .iter()
                .map(|(port, node)| {
                    (At::new(Port::new(port.value.as_str()), port.span), reads(port, node, diagnostics))
                })
                .collect(),
        ),
        _ => Wiring::Main(texts(node, "`in`", diagnostics)),
    }
}

fn reads(port: &At<String>, node: &Node, diagnostics: &mut Diagnostics) -> Reads {
    let port = &port.value;
    let Value::Map(entries) = &node.value else {
        return Reads::List(texts(node, &format!("input `{port}`"), diagnostics));
    };
    if entries.is_empty() {
        let message = format!("input `{port}` is an empty map");
        let help = "name a stage, or remove the line";
        diagnostics.push(Diagnostic::new("pipeline/form", message, node.span).help(help));
    }
    let mut labels: Vec<(At<String>, Vec<Ref>)> = Vec::with_capacity(entries.len());
    for (label, node) in entries {
        let what = format!("input `{port}.{}`", label.value);
        labels.push((label.clone(), texts(node, &what, diagnostics)));
    }
    Reads::Labelled(labels)
}

/// A label is in the name of a key's part, `in.data.LABEL`, and in what is shown.
pub(super) fn check_label(name: &str, span: Span, diagnostics: &mut Diagnostics) {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(fits) {
        let message =
            format!("`{name}` cannot label an input: use up to {MAX_NAME_BYTES} letters, digits, `_` and `-`");
        let help = "in: {data: {code: STAGE, talk: STAGE}}";
        diagnostics.push(Diagnostic::new("stage/label", message, span).help(help));
    }
}
