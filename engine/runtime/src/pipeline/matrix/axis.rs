//! One axis of a sweep: a name, the values it takes, and how each reads in a stage's name.

use std::collections::{HashMap, HashSet};

use super::super::{
    diagnostic::{Diagnostic, Diagnostics},
    node::{Node, Value},
    source::{At, Span},
};

/// Longest part of a stage's name that one value gives.
const MAX_LABEL_CHARS: usize = 32;

/// One name and the values it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub name: String,
    pub span: Span,
    pub(super) values: Vec<Node>,
    /// How many of them, from the first on, combine with the other axes' values; the rest are `include`'s.
    pub(super) own: usize,
    /// How each value reads in a stage's name; unique on the axis.
    pub(super) labels: Vec<String>,
    /// The position of a value, by its JSON.
    index: HashMap<String, u32>,
}

impl Axis {
    pub(super) fn empty(name: &At<String>) -> Self {
        let (name, span) = (name.value.clone(), name.span);
        Self { name, span, own: 0, values: Vec::new(), labels: Vec::new(), index: HashMap::new() }
    }

    pub(super) fn read(name: &At<String>, node: &Node, diagnostics: &mut Diagnostics) -> Option<Self> {
        if !check_name(name, diagnostics) {
            return None;
        }
        let Value::List(items) = &node.value else {
            let message = format!("`{}` is a list of values, not {}", name.value, node.describe());
            let help = format!("{}: [{node}]", name.value);
            diagnostics.push(Diagnostic::new("matrix/form", message, node.span).help(help));
            return None;
        };
        if items.is_empty() {
            let message = format!("`{}` has no values: the stage would never run", name.value);
            let help = format!("give it some: `{}: [8, 16]`; or remove the axis", name.value);
            diagnostics.push(Diagnostic::new("matrix/empty", message, node.span).help(help));
            return None;
        }
        let mut axis = Self::empty(name);
        for item in items {
            if axis.position(item).is_some() {
                let message = format!("`{}` has the value `{item}` twice", name.value);
                diagnostics.push(Diagnostic::new("matrix/duplicate", message, item.span).help("keep one of them"));
            } else {
                axis.add(item.clone());
            }
        }
        axis.own = axis.values.len();
        Some(axis)
    }

    pub(super) fn position(&self, value: &Node) -> Option<u32> {
        self.index.get(&value.to_json().to_string()).copied()
    }

    /// The position of a value, which joins the axis if it is new.
    pub(super) fn add(&mut self, value: Node) -> u32 {
        let next = self.values.len() as u32;
        let position = *self.index.entry(value.to_json().to_string()).or_insert(next);
        if position == next {
            self.values.push(value);
        }
        position
    }

    /// Names every value. Two that read alike are told apart by their position on the axis: `large+2`.
    pub(super) fn label(&mut self) {
        let mut taken = HashSet::new();
        for (at, value) in self.values.iter().enumerate() {
            let mut label = label_of(value);
            while label.is_empty() || !taken.insert(label.clone()) {
                label.push_str(&format!("+{}", at + 1));
            }
            self.labels.push(label);
        }
    }
}

/// A value as part of a stage's name: of a-z, 0-9, `_`, `-`, `.` and `+` alone.
pub(in crate::pipeline) fn label_of(value: &Node) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
    let plain = match &value.value {
        Value::List(items) => items.iter().map(label_of).collect::<Vec<_>>().join("+"),
        Value::Map(_) => String::new(),
        Value::String(text) => {
            let text: String = text.to_lowercase().chars().map(|c| if fits(c) { c } else { '-' }).collect();
            text.trim_matches(['-', '.']).to_owned()
        }
        _ => value.to_string(),
    };
    plain.chars().take(MAX_LABEL_CHARS).collect()
}

/// Whether an axis can have this name; else it is reported.
pub(super) fn check_name(name: &At<String>, diagnostics: &mut Diagnostics) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let is_name = !name.value.is_empty() && name.value.len() <= 64 && name.value.chars().all(fits);
    if !is_name {
        let message = format!("`{}` cannot name an axis: use a-z, 0-9, `_` and `-`", name.value);
        let help = "matrix: {lora_r: [8, 16]}, read as `${matrix.lora_r}`";
        diagnostics.push(Diagnostic::new("matrix/name", message, name.span).help(help));
    }
    is_name
}
