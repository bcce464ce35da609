//! `${params.x}`, `${env.X}`, `${secret.X}` and `${matrix.x}`: values that stand elsewhere. `${stage.metric}` is known only once
//! that stage has run, and stays.
//!
//! A reference that is the whole text keeps the type of what it names; inside other text it becomes text.
//! `$${` writes a literal `${`.

use std::{cell::Cell, collections::BTreeSet, rc::Rc, sync::Arc};

use indexmap::IndexMap;

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    matrix::Cell as MatrixCell,
    node::{Node, Value},
    origin::{Composed, Given, Origin},
    params::{Param, is_name},
    source::{SourceFile, Span},
};

/// What stands before the dot of a reference, if it is no stage.
const FAMILIES: [&str; 4] = ["params", "env", "secret", "matrix"];

/// What references may name.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    params: &'a IndexMap<String, Param>,
    environment: &'a dyn Fn(&str) -> Option<String>,
    source: &'a SourceFile,
    /// One combination of a matrix.
    cell: Option<MatrixCell<'a>>,
    /// Whether `${matrix.x}` stays, to be filled once for each combination.
    is_swept: bool,
    /// Whether params are read: none refers to another.
    is_of_params: bool,
    /// Whether `${secret.X}` may stand here: which params take it, the check of params says.
    takes_secrets: bool,
    /// Names of stages: each has metrics that a param may name.
    stages: Rc<BTreeSet<String>>,
    /// Bytes that substitution may still add: a long param named often is a bomb too.
    budget: Rc<Cell<usize>>,
}

impl<'a> Scope<'a> {
    pub fn new(
        params: &'a IndexMap<String, Param>,
        environment: &'a dyn Fn(&str) -> Option<String>,
        source: &'a SourceFile,
    ) -> Self {
        let budget = Rc::new(Cell::new((1 << 20) + 16 * source.text.len()));
        let stages = Rc::default();
        let (is_swept, is_of_params, takes_secrets) = (false, false, false);
        Self { params, environment, source, cell: None, is_swept, is_of_params, takes_secrets, stages, budget }
    }

    /// For the params themselves.
    pub fn of_params(self) -> Self {
        Self { is_of_params: true, ..self }
    }

    /// With stages whose metrics a param may name.
    pub fn with_stages(self, names: impl Iterator<Item = String>) -> Self {
        Self { stages: Rc::new(names.collect()), ..self }
    }

    /// For the fields of a stage with a matrix: what refers to the matrix stays as it is.
    pub fn swept(&self) -> Self {
        Self { is_swept: true, ..self.clone() }
    }
    /// For the params of a stage.
    pub fn with_secrets(&self) -> Self {
        Self { takes_secrets: true, ..self.clone() }
    }
    /// For one combination of a matrix.
    pub fn of_cell(&self, cell: MatrixCell<'a>) -> Self {
        Self { cell: Some(cell), is_swept: false, ..self.clone() }
    }
    pub fn param(&self, name: &str) -> Option<&'a Param> {
        self.params.get(name)
    }
    pub fn param_names(&self) -> impl Iterator<Item = &'a str> {
        self.params.keys().map(String::as_str)
    }
    pub fn allow_bytes(&self, more: usize) {
        self.budget.set(self.budget.get().saturating_add(more));
    }
    /// Takes bytes from the budget, if it has them.
    pub fn charge(&self, bytes: usize) -> bool {
        let left = self.budget.get().checked_sub(bytes);
        self.budget.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Replaces every reference below a node. Depth is bounded by the parser's.
    pub fn fill(&self, node: &mut Node, diagnostics: &mut Diagnostics) {
        match &mut node.value {
            Value::List(items) => items.iter_mut().for_each(|item| self.fill(item, diagnostics)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| self.fill(value, diagnostics)),
            Value::String(text) if text.contains("${") && self.budget.get() > 0 => {
                if self.is_swept && names_matrix(text) {
                    return;
                }
                let text = std::mem::take(text);
                match self.filled(&text, node) {
                    Ok((value, origin)) => {
                        node.value = value;
                        node.origin = Origin::joined(origin, node.origin.take());
                    }
                    Err(diagnostic) => {
                        diagnostics.push(diagnostic);
                        node.value = Value::String(text);
                    }
                }
            }
            _ => {}
        }
    }

    fn filled(&self, text: &str, node: &Node) -> Result<(Value, Option<Arc<Origin>>), Diagnostic> {
        let whole = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).filter(|name| !name.contains('}'));
        if let Some(name) = whole {
            if let Some(metric) = self.metric(name) {
                return Ok(metric);
            }
            return self.look_up(name, node);
        }
        let (mut filled, mut rest, mut parts) = (String::new(), text, Vec::new());
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                filled.push_str(&rest[..at]);
                filled.push('{');
                rest = &rest[at + 2..];
                continue;
            }
            filled.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                let message = format!("{}`${{` without its `}}`", node.blame_of_target());
                return Err(Diagnostic::new("reference/open", message, self.place(&rest[at..], node))
                    .help("write `$${` for a literal `${`"));
            };
            let reference = &rest[at..=at + end];
            let (value, from) = self.look_up(&rest[at + 2..at + end], node)?;
            if let Some(Origin { name: Some(name), .. }) = from.as_deref()
                && name.starts_with("secret.")
            {
                let message = format!("{}`{reference}` cannot stand inside other text", node.blame_of_target());
                return Err(Diagnostic::new("secret/outside", message, self.place(reference, node))
                    .help("a secret is the whole value of its param: what stands around it would be no secret"));
            }
            if matches!(value, Value::List(_) | Value::Map(_)) {
                let blame = node.blame_of_target();
                let message = format!("{blame}`{reference}` is a list or map: it cannot stand inside other text");
                let help = "use it as the whole value, or refer to a number or a text";
                return Err(Diagnostic::new("reference/type", message, self.place(reference, node)).help(help));
            }
            let start = filled.len();
            filled.push_str(&Node::new(value, node.span).to_string());
            parts.extend(from.map(|from| (start..filled.len(), from)));
            rest = &rest[at + end + 1..];
        }
        filled.push_str(rest);
        let origin = parts.first().map(|(_, first)| Arc::clone(first)).map(|first| {
            let text = Some(Arc::new(Composed { text: filled.clone(), parts }));
            Arc::new(Origin { text, ..(*first).clone() })
        });
        Ok((Value::String(filled), origin))
    }

    /// `${STAGE.METRIC}` as a whole value: it stays as it is written until that stage has run.
    fn metric(&self, name: &str) -> Option<(Value, Option<Arc<Origin>>)> {
        let name = name.trim();
        let stage = &name[..name.find(['.', '@'])?];
        if !self.takes_secrets || FAMILIES.contains(&stage) || !self.stages.contains(stage) {
            return None;
        }
        let origin = Origin { metric: Some(name.to_owned()), ..Origin::default() };
        Some((Value::String(format!("${{{name}}}")), Some(Arc::new(origin))))
    }

    fn look_up(&self, name: &str, node: &Node) -> Result<(Value, Option<Arc<Origin>>), Diagnostic> {
        let reference = format!("${{{name}}}");
        let at = self.place(&reference, node);
        let error =
            |code: &str, message: String| Diagnostic::new(code, format!("{}{message}", node.blame_of_target()), at);
        let forms = "write `${params.NAME}`, `${env.NAME}` or `${matrix.NAME}`, in `with` also `${STAGE.METRIC}`; `$${` for a literal `${`";
        let Some((family, key)) = name.trim().split_once('.') else {
            return Err(error("reference/unknown", format!("`{reference}` names nothing")).help(forms));
        };
        let named = |span: Option<Span>, given: Option<Given>| {
            Some(Arc::new(Origin { name: Some(format!("{family}.{key}")), span, given, ..Origin::default() }))
        };
        let (value, origin) = match family {
            "params" | "env" | "matrix" if !is_name(key) => {
                let message = format!("`{reference}` is no reference");
                let help = match key.contains("${") {
                    true => "references do not nest: name one value",
                    false => "a reference is the name of one value: no arithmetic, no default, no part of a map",
                };
                return Err(error("reference/form", message).help(help));
            }
            "params" if self.is_of_params => {
                let help = "write the value out here; stages refer to params";
                return Err(error("reference/params", "a param cannot refer to another".to_owned()).help(help));
            }
            "params" => {
                let Some(param) = self.params.get(key) else {
                    let unknown = error("reference/unknown", format!("there is no param `{key}`"));
                    return Err(unknown
                        .nearest(key, self.param_names())
                        .help(format!("give it a default at the top of the file: `params: {{{key}: …}}`")));
                };
                if let Some(refused) = &param.refused {
                    return Err(refused.clone());
                }
                let mut value = param.value.value.clone_within(&self.budget);
                if param.given.as_ref().is_some_and(Given::is_outside) {
                    value.iter_mut().for_each(|value| value.put_at(node.span)); // what lies within has no place in the file
                }
                (value, named(Some(param.default.span), param.given.clone()))
            }
            "env" => {
                let Some(value) = (self.environment)(key) else {
                    let message = format!("the environment has no variable `{key}`");
                    return Err(error("reference/env", message).help(format!("export {key}=…")));
                };
                (Value::String(value).clone_within(&self.budget), named(None, None))
            }
            "secret" if !is_variable(key) => {
                let message = "what stands here cannot name a secret: it is a variable of the environment".to_owned();
                let help = "use letters, digits and `_`: `${secret.API_KEY}`";
                return Err(error("secret/name", message).help(help).hide(at)); // it may be the secret
            }
            "secret" if !self.takes_secrets => {
                let help = "name it where it is used, in a param that takes a secret: `with: {api_key: \"${secret.API_KEY}\"}`";
                return Err(error("secret/outside", format!("`{reference}` would be recorded here")).help(help));
            }
            // The name stays as it was written: the value is known to the worker alone.
            "secret" => (Some(Value::String(format!("${{secret.{key}}}"))), named(None, None)),
            "matrix" => match &self.cell {
                Some(cell) => {
                    let (value, span) = cell.look_up(key).map_err(|diagnostic| diagnostic.at(at))?;
                    (value.clone_within(&self.budget), named(Some(span), None))
                }
                None => {
                    let message = format!("`{reference}` has no meaning here");
                    let help = format!(
                        "it stands in `with`, `in`, `when`, `after`, `seed` and `resources` of a stage with `matrix: {{{key}: […]}}`"
                    );
                    return Err(error("reference/matrix", message).help(help));
                }
            },
            _ => {
                return Err(error("reference/unknown", format!("`{reference}` names nothing"))
                    .nearest(family, FAMILIES.into_iter().chain(self.stages.iter().map(String::as_str)))
                    .help(forms));
            }
        };
        let value = value.ok_or_else(|| {
            error("yaml/budget", "params are repeated far beyond what a pipeline needs".to_owned())
                .help("refer to them in fewer places")
        })?;
        Ok((value, origin))
    }

    /// The place of a reference inside the text that holds it; nowhere for a `--set`.
    fn place(&self, reference: &str, node: &Node) -> Option<Span> {
        let span = node.place()?;
        let found = self.source.slice(span).find(reference);
        Some(found.map_or(span, |at| Span::new(span.start + at, span.start + at + reference.len())))
    }
}

/// Whether a text refers to the matrix. A text that does is filled as a whole once the combination is known.
pub(super) fn names_matrix(text: &str) -> bool {
    references(text).any(|name| name.trim().starts_with("matrix."))
}

/// What stands between each `${` and its `}`.
pub(super) fn references(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find("${")?;
            let is_literal = rest[..at].ends_with('$');
            rest = &rest[at + 2..];
            if !is_literal {
                let end = rest.find('}')?;
                let name = &rest[..end];
                rest = &rest[end + 1..];
                return Some(name);
            }
        }
    })
}

/// Whether a reference can be written so: `params.rank`, `secret.API_KEY`.
pub(super) fn is_reference(name: &str) -> bool {
    let fits = |family: &str, key: &str| if family == "secret" { is_variable(key) } else { is_name(key) };
    name.split_once('.').is_some_and(|(family, key)| FAMILIES.contains(&family) && fits(family, key))
}

/// Whether the environment of a process can have it.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.len() <= 200 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Value {
    /// Gives all within a list or map this place.
    fn put_at(&mut self, span: Span) {
        let put = |node: &mut Node| {
            node.span = span;
            node.value.put_at(span);
        };
        match self {
            Self::List(items) => items.iter_mut().for_each(put),
            Self::Map(entries) => entries.iter_mut().for_each(|(key, node)| {
                key.span = span;
                put(node);
            }),
            _ => {}
        }
    }

    /// A copy, if the budget still allows it.
    fn clone_within(&self, budget: &Cell<usize>) -> Option<Self> {
        let left = budget.get().checked_sub(self.cost());
        budget.set(left.unwrap_or(0));
        left.map(|_| self.clone())
    }

    /// Bytes it takes, about.
    pub(super) fn cost(&self) -> usize {
        16 + match self {
            Self::String(text) => text.len(),
            Self::List(items) => items.iter().map(|item| item.value.cost()).sum(),
            Self::Map(entries) => entries.iter().map(|(key, node)| key.value.len() + node.value.cost()).sum(),
            _ => 0,
        }
    }
}
