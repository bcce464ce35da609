//! `${params.x}` and `${env.X}`: values that stand elsewhere.
//!
//! A reference that is the whole text keeps the type of what it names; inside other text it becomes text.
//! `$${` writes a literal `${`.

use std::{cell::Cell, sync::Arc};

use indexmap::IndexMap;

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    node::{Node, Value},
    params::Param,
    source::{SourceFile, Span},
};

/// Where a value came from, if not from the place where it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The param's name: `rank`.
    pub param: Option<String>,
    /// Where the param's default stands.
    pub span: Option<Span>,
    /// The `--set` that gave the value, as typed: `rank=32`.
    pub set: Option<String>,
}

impl Origin {
    /// `params.rank, assistant.yaml:10, set by --set`
    pub fn describe(&self, source: &SourceFile) -> String {
        let param = self.param.as_ref().map(|name| format!("params.{name}"));
        let place = self.span.map(|span| format!("{}:{}", source.file_name(), source.position(span.start).0));
        let set = self.set.as_ref().map(|_| "set by --set".to_owned());
        [param, place, set].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// What references may name.
pub(super) struct Scope<'a> {
    params: &'a IndexMap<String, Param>,
    environment: &'a dyn Fn(&str) -> Option<String>,
    source: &'a SourceFile,
    /// Bytes that substitution may still add: a long param named often is a bomb too.
    budget: Cell<usize>,
}

impl<'a> Scope<'a> {
    pub fn new(
        params: &'a IndexMap<String, Param>,
        environment: &'a dyn Fn(&str) -> Option<String>,
        source: &'a SourceFile,
    ) -> Self {
        Self { params, environment, source, budget: Cell::new((1 << 20) + 16 * source.text.len()) }
    }

    /// Replaces every reference below a node. Depth is bounded by the parser's.
    pub fn fill(&self, node: &mut Node, diagnostics: &mut Diagnostics) {
        match &mut node.value {
            Value::List(items) => items.iter_mut().for_each(|item| self.fill(item, diagnostics)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| self.fill(value, diagnostics)),
            Value::String(text) if self.budget.get() > 0 && text.contains("${") => {
                let text = std::mem::take(text);
                match self.filled(&text, node) {
                    Ok((value, origin)) => {
                        node.value = value;
                        node.origin = origin.or_else(|| node.origin.take());
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
            return self.look_up(name, node);
        }
        let (mut filled, mut rest, mut origin) = (String::new(), text, None);
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                filled.push_str(&rest[..at]);
                filled.push('{');
                rest = &rest[at + 2..];
                continue;
            }
            filled.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                return Err(Diagnostic::new("reference/open", "`${` without its `}`", self.place(&rest[at..], node))
                    .help("write `$${` for a literal `${`"));
            };
            let (value, from) = self.look_up(&rest[at + 2..at + end], node)?;
            if matches!(value, Value::List(_) | Value::Map(_)) {
                let reference = &rest[at..=at + end];
                let message = format!("`{reference}` is a list or map: it cannot stand inside other text");
                return Err(Diagnostic::new("reference/type", message, self.place(reference, node)));
            }
            filled.push_str(&Node::new(value, node.span).to_string());
            origin = origin.or(from);
            rest = &rest[at + end + 1..];
        }
        filled.push_str(rest);
        Ok((Value::String(filled), origin))
    }

    fn look_up(&self, name: &str, node: &Node) -> Result<(Value, Option<Arc<Origin>>), Diagnostic> {
        let reference = format!("${{{name}}}");
        let at = self.place(&reference, node);
        let error = |code: &str, message: String| Diagnostic::new(code, message, at);
        let Some((family, key)) = name.trim().split_once('.') else {
            return Err(error("reference/unknown", format!("`{reference}` names nothing"))
                .help("write `${params.NAME}` or `${env.NAME}`; `$${` for a literal `${`"));
        };
        let (value, origin) = match family {
            "params" => {
                let Some(param) = self.params.get(key) else {
                    let unknown = error("reference/unknown", format!("there is no param `{key}`"));
                    return Err(unknown
                        .nearest(key, self.params.keys().map(String::as_str))
                        .help(format!("give it a default at the top of the file: `params: {{{key}: …}}`")));
                };
                let origin =
                    Origin { param: Some(key.to_owned()), span: Some(param.default.span), set: param.set.clone() };
                (param.value.value.clone_within(&self.budget), Some(Arc::new(origin)))
            }
            "env" => {
                let Some(value) = (self.environment)(key) else {
                    let message = format!("the environment has no variable `{key}`");
                    return Err(error("reference/env", message).help(format!("export {key}=…")));
                };
                (Value::String(value).clone_within(&self.budget), None)
            }
            "secret" | "matrix" => {
                return Err(error("pipeline/not-yet", format!("`${{{family}.…}}` is not supported yet")));
            }
            _ => {
                return Err(error("reference/unknown", format!("`{reference}` names nothing"))
                    .nearest(family, ["params", "env"])
                    .help("write `${params.NAME}` or `${env.NAME}`; `$${` for a literal `${`"));
            }
        };
        let value = value
            .ok_or_else(|| error("yaml/budget", "params are repeated far beyond what a pipeline needs".to_owned()))?;
        Ok((value, origin))
    }

    /// The place of a reference inside the text that holds it; nowhere for a `--set`.
    fn place(&self, reference: &str, node: &Node) -> Option<Span> {
        let span = node.place()?;
        let found = self.source.slice(span).find(reference);
        Some(found.map_or(span, |at| Span::new(span.start + at, span.start + at + reference.len())))
    }
}

impl Value {
    /// A copy, if the budget still allows it.
    fn clone_within(&self, budget: &Cell<usize>) -> Option<Self> {
        let cost = self.cost();
        budget.set(budget.get().checked_sub(cost).or_else(|| {
            budget.set(0);
            None
        })?);
        Some(self.clone())
    }

    fn cost(&self) -> usize {
        16 + match self {
            Self::String(text) => text.len(),
            Self::List(items) => items.iter().map(|item| item.value.cost()).sum(),
            Self::Map(entries) => entries.iter().map(|(key, node)| key.value.len() + node.value.cost()).sum(),
            _ => 0,
        }
    }
}

impl Node {
    /// Where to point when the value is wrong: nowhere if `--set` gave it.
    pub fn place(&self) -> Option<Span> {
        match &self.origin {
            Some(origin) if origin.param.is_none() && origin.set.is_some() => None,
            _ => Some(self.span),
        }
    }
}
