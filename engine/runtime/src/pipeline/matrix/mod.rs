//! A sweep: one stage for each combination of some values.
//!
//! Owns: the order of the combinations, the name of each, what `${matrix.x}` means in it.
//! Must not know: what a stage does with the values.

mod axis;
mod read;

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

pub use axis::Axis;
pub(super) use axis::label_of;

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    node::{Node, Value},
    reference::{Scope, references},
    source::Span,
    varied::Varied,
};

/// Stages of one file, those of its matrices included.
pub const MAX_STAGES: usize = 1 << 20;

/// The values of a sweep and their combinations.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub axes: Vec<Axis>,
    /// Of each combination in turn, the position of its value on each axis.
    digits: Vec<u32>,
    /// How many of its stages may run at once.
    pub max_parallel: Option<u32>,
    /// Of the key.
    pub span: Span,
}

/// One combination, as references see it.
#[derive(Clone, Copy)]
pub(super) struct Cell<'a> {
    matrix: &'a Matrix,
    digits: &'a [u32],
    form: Form,
}

/// What `${matrix.x}` becomes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// The value, with its type.
    Value,
    /// As it stands in a stage's name: in `in`, `after` and `when`.
    Label,
}

impl Matrix {
    /// How many combinations there are.
    pub fn len(&self) -> usize {
        self.digits.len() / self.axes.len().max(1)
    }
    pub fn is_empty(&self) -> bool {
        self.digits.is_empty()
    }
    /// `sft@lora_r=8,lr=0.0001`
    pub fn id_of(&self, stage: &str, combination: u32) -> String {
        let mut id = String::with_capacity(stage.len() + 16 * self.axes.len());
        id.push_str(stage);
        for (at, (axis, digit)) in self.axes.iter().zip(self.digits_of(combination)).enumerate() {
            let sign = if at == 0 { '@' } else { ',' };
            let _ = write!(id, "{sign}{}={}", axis.name, axis.labels[*digit as usize]);
        }
        id
    }
    /// Axis and value of one combination, in the order of the file.
    pub fn values_of(&self, combination: u32) -> impl Iterator<Item = (&str, serde_json::Value)> {
        let digits = self.digits_of(combination).iter();
        self.axes.iter().zip(digits).map(|(axis, digit)| (axis.name.as_str(), axis.values[*digit as usize].to_json()))
    }
    fn digits_of(&self, combination: u32) -> &[u32] {
        let axes = self.axes.len();
        &self.digits[combination as usize * axes..][..axes]
    }
    fn axis_names(&self) -> impl Iterator<Item = &str> {
        self.axes.iter().map(|axis| axis.name.as_str())
    }

    /// For each combination of `self`, the one of `other` with equal values on all of that one's axes; `u32::MAX`
    /// where there is none. Nothing if an axis of `other` is not an axis of `self`.
    pub(super) fn pairs_with(&self, other: &Self) -> Option<Vec<u32>> {
        let own: Vec<usize> = other
            .axes
            .iter()
            .map(|axis| self.axes.iter().position(|own| own.name == axis.name))
            .collect::<Option<_>>()?;
        if self == other {
            return Some((0..self.len() as u32).collect());
        }
        // Positions on an axis of `self` as positions on the same axis of `other`.
        let translated: Vec<Vec<Option<u32>>> = other
            .axes
            .iter()
            .zip(&own)
            .map(|(axis, own)| self.axes[*own].values.iter().map(|value| axis.position(value)).collect())
            .collect();
        let by_digits: HashMap<&[u32], u32> =
            (0..other.len() as u32).map(|combination| (other.digits_of(combination), combination)).collect();
        let mut wanted = vec![0; other.axes.len()];
        let pairs = (0..self.len() as u32).map(|combination| {
            let digits = self.digits_of(combination);
            for (at, own) in own.iter().enumerate() {
                let Some(digit) = translated[at][digits[*own] as usize] else { return u32::MAX };
                wanted[at] = digit;
            }
            by_digits.get(wanted.as_slice()).copied().unwrap_or(u32::MAX)
        });
        Some(pairs.collect())
    }

    /// A node once for each combination of the axes it names, references filled.
    ///
    /// # Errors
    /// Each reference that names nothing goes to `diagnostics`, once.
    pub(super) fn vary<'a>(
        &'a self,
        node: Node,
        form: Form,
        scope: &Scope<'a>,
        diagnostics: &mut Diagnostics,
    ) -> Varied<Node> {
        let mut named = Vec::new();
        collect_axes(&node, &mut named);
        if named.is_empty() {
            return Varied::Same(node);
        }
        let axes: Vec<usize> =
            (0..self.axes.len()).filter(|at| named.contains(&self.axes[*at].name.as_str())).collect();
        let fill = |digits: &[u32], diagnostics: &mut Diagnostics| {
            let mut filled = node.clone();
            if scope.charge(filled.value.cost()) {
                scope.of_cell(Cell { matrix: self, digits, form }).fill(&mut filled, diagnostics);
            } else {
                let message = "this matrix repeats its texts far beyond what a pipeline needs";
                let help = "keep long texts in a file, and name that";
                diagnostics.push(Diagnostic::new("yaml/budget", message, node.span).help(help));
            }
            filled
        };
        let before = diagnostics.raw_len();
        let mut values = Vec::new();
        let mut seen: HashMap<Vec<u32>, u32> = HashMap::new();
        let mut of = Vec::with_capacity(self.len());
        for combination in 0..self.len() as u32 {
            let digits = self.digits_of(combination);
            let key: Vec<u32> = axes.iter().map(|axis| digits[*axis]).collect();
            let at = *seen.entry(key).or_insert_with(|| {
                // What is wrong for one value is wrong for all: said once.
                values.push(if diagnostics.raw_len() == before { fill(digits, diagnostics) } else { node.clone() });
                values.len() as u32 - 1
            });
            of.push(at);
        }
        Varied::Differs { values, of: Arc::from(of) }
    }
}

/// Whether a node refers to a matrix.
pub(super) fn is_named_in(node: &Node) -> bool {
    let mut named = Vec::new();
    collect_axes(node, &mut named);
    !named.is_empty()
}

/// Names of the axes that a node refers to.
fn collect_axes<'a>(node: &'a Node, found: &mut Vec<&'a str>) {
    match &node.value {
        Value::String(text) => {
            found.extend(references(text).filter_map(|name| name.trim().strip_prefix("matrix.")));
        }
        Value::List(items) => items.iter().for_each(|item| collect_axes(item, found)),
        Value::Map(entries) => entries.iter().for_each(|(_, value)| collect_axes(value, found)),
        _ => {}
    }
}

impl Cell<'_> {
    /// The value of an axis and where the axis stands.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn look_up(&self, name: &str) -> Result<(Value, Span), Diagnostic> {
        let Some(at) = self.matrix.axes.iter().position(|axis| axis.name == name) else {
            let names: Vec<&str> = self.matrix.axis_names().collect();
            return Err(Diagnostic::new("matrix/unknown-axis", format!("this matrix has no axis `{name}`"), None)
                .nearest(name, names.iter().copied())
                .help(format!("it has {}", names.join(", "))));
        };
        let (axis, digit) = (&self.matrix.axes[at], self.digits[at] as usize);
        let value = match self.form {
            Form::Value => axis.values[digit].value.clone(),
            Form::Label => Value::String(axis.labels[digit].clone()),
        };
        Ok((value, axis.span))
    }
}
