//! A sweep: one stage for each combination of some values.
//!
//! Owns: the forms of `matrix`, the order of the combinations, the name of each.
//! Must not know: what a stage does with the values.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    sync::Arc,
};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    fields::whole,
    node::{Node, Value},
    reference::{Scope, references},
    source::{At, Span},
    varied::Varied,
};

/// Stages of one file, those of its matrices included.
pub const MAX_STAGES: usize = 1 << 20;
/// Combinations times exclusions that a file may ask to compare.
const MAX_COMPARISONS: usize = 1 << 26;
/// Longest part of a stage's name that one value gives.
const MAX_LABEL_CHARS: usize = 32;

/// Keys of `matrix` that are no axes.
const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";
const MAX_PARALLEL: &str = "max_parallel";

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

/// One name and the values it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub name: String,
    pub span: Span,
    values: Vec<Node>,
    /// How many of them, from the first on, combine with the other axes' values; the rest are `include`'s.
    own: usize,
    /// How each value reads in a stage's name; unique on the axis.
    labels: Vec<String>,
    /// The position of a value, by its JSON.
    index: HashMap<String, u32>,
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

    /// Reads `matrix`.
    ///
    /// # Errors
    /// Everything wrong with it goes to `diagnostics`; then there is none.
    pub(super) fn read(key: Span, node: &Node, diagnostics: &mut Diagnostics) -> Option<Self> {
        let before = diagnostics.raw_len();
        let Some(entries) = node.as_map() else {
            let message = format!("`matrix` is a map from names to lists, not {}", node.describe());
            let help = "matrix: {lora_r: [8, 16], learning_rate: [1e-4, 2e-4]}";
            diagnostics.push(Diagnostic::new("matrix/form", message, node.span).help(help));
            return None;
        };
        let mut matrix = Self { axes: Vec::new(), digits: Vec::new(), max_parallel: None, span: key };
        for (name, node) in entries {
            match name.value.as_str() {
                INCLUDE | EXCLUDE => {}
                MAX_PARALLEL => {
                    matrix.max_parallel =
                        whole(node, "`max_parallel`", 1, MAX_STAGES as u64, diagnostics).map(|number| number as u32);
                }
                _ => matrix.axes.extend(Axis::read(name, node, diagnostics)),
            }
        }
        let has_axes = !matrix.axes.is_empty();
        let mut listed =
            |name: &str| node.get(name).map(|node| entry_list(name, node, diagnostics)).unwrap_or_default();
        let (include, exclude) = (listed(INCLUDE), listed(EXCLUDE));
        if !has_axes && let Some(first) = include.first() {
            // A matrix of `include` alone: its first entry names the axes.
            matrix.axes = first.0.iter().map(|(name, _)| Axis::empty(name)).collect();
        }
        if diagnostics.raw_len() > before {
            return None;
        }
        let included: Vec<Vec<u32>> = include.iter().filter_map(|entry| matrix.included(entry, diagnostics)).collect();
        if diagnostics.raw_len() > before {
            return None;
        }
        matrix.axes.iter_mut().for_each(Axis::label);
        matrix.combine(has_axes, &exclude, diagnostics);
        matrix.append(&include, included, diagnostics);
        if diagnostics.raw_len() == before && matrix.is_empty() {
            let message = "this matrix has no combination: the stage would never run";
            let help = "give an axis its values: `matrix: {lora_r: [8, 16]}`";
            diagnostics.push(Diagnostic::new("matrix/empty", message, key).help(help));
        }
        (diagnostics.raw_len() == before).then_some(matrix)
    }

    /// All combinations of the axes but those excluded; the last axis changes fastest.
    fn combine(&mut self, has_axes: bool, exclude: &[Entry<'_>], diagnostics: &mut Diagnostics) {
        let sizes: Vec<usize> = self.axes.iter().map(|axis| axis.own).collect();
        let product = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let product = product.filter(|product| *product <= MAX_STAGES);
        let Some(product) = product else {
            let message = format!("this matrix has more than {MAX_STAGES} combinations");
            let help = "sweep in two steps: one stage for a coarse grid, a second for what is left";
            diagnostics.push(Diagnostic::new("matrix/too-big", message, self.span).help(help));
            return;
        };
        let mut excluded: Vec<Exclusion> = Vec::new();
        for entry in exclude {
            excluded.extend(self.exclusion(entry, diagnostics));
        }
        if product.saturating_mul(excluded.len()) > MAX_COMPARISONS {
            let message = format!("{} exclusions of {product} combinations are too many", excluded.len());
            let help = "list what is wanted under `include` instead";
            diagnostics.push(Diagnostic::new("matrix/too-big", message, self.span).help(help));
            return;
        }
        if !has_axes {
            return;
        }
        let axes = self.axes.len();
        let mut digits = vec![0_u32; axes];
        self.digits.reserve_exact(product * axes);
        for _ in 0..product {
            let mut is_out = false;
            for exclusion in &mut excluded {
                if exclusion.wanted.iter().all(|(axis, digit)| digits[*axis] == *digit) {
                    exclusion.is_used = true;
                    is_out = true;
                }
            }
            if !is_out {
                self.digits.extend_from_slice(&digits);
            }
            for axis in (0..axes).rev() {
                digits[axis] += 1;
                if (digits[axis] as usize) < sizes[axis] {
                    break;
                }
                digits[axis] = 0;
            }
        }
        for exclusion in excluded.iter().filter(|exclusion| !exclusion.is_used) {
            let message = "this excludes no combination";
            diagnostics
                .push(Diagnostic::new("matrix/exclude", message, exclusion.span).help("remove it, or mend its values"));
        }
    }

    fn exclusion(&self, entry: &Entry<'_>, diagnostics: &mut Diagnostics) -> Option<Exclusion> {
        let before = diagnostics.raw_len();
        let mut wanted = Vec::new();
        for (name, value) in entry.0 {
            let Some(at) = self.axes.iter().position(|axis| axis.name == name.value) else {
                self.unknown_axis(name, diagnostics);
                continue;
            };
            let axis = &self.axes[at];
            match axis.position(value) {
                Some(digit) => wanted.push((at, digit)),
                None => {
                    let message = format!("`{}` takes no value `{value}`", axis.name);
                    let help = format!("it takes {}", axis.labels[..axis.own.min(20)].join(", "));
                    diagnostics.push(Diagnostic::new("matrix/exclude", message, value.span).help(help));
                }
            }
        }
        (diagnostics.raw_len() == before).then_some(Exclusion { wanted, span: entry.1, is_used: false })
    }

    /// The digits of one entry of `include`; its values join the axes.
    fn included(&mut self, entry: &Entry<'_>, diagnostics: &mut Diagnostics) -> Option<Vec<u32>> {
        let before = diagnostics.raw_len();
        for (name, _) in entry.0.iter().filter(|(name, _)| !self.axis_names().any(|axis| axis == name.value)) {
            self.unknown_axis(name, diagnostics);
        }
        let mut digits = Vec::with_capacity(self.axes.len());
        for axis in &mut self.axes {
            match entry.0.iter().find(|(name, _)| name.value == axis.name) {
                Some((_, value)) => digits.push(axis.add(value.clone())),
                None => {
                    let message = format!("this combination gives no value to `{}`", axis.name);
                    let help = format!("each entry of `include` is one combination: add `{}: …`", axis.name);
                    diagnostics.push(Diagnostic::new("matrix/include", message, entry.1).help(help));
                }
            }
        }
        (diagnostics.raw_len() == before).then_some(digits)
    }

    /// Adds what is included behind the product.
    fn append(&mut self, include: &[Entry<'_>], included: Vec<Vec<u32>>, diagnostics: &mut Diagnostics) {
        let mut seen: HashSet<Vec<u32>> = if included.is_empty() {
            Default::default()
        } else {
            self.digits.chunks(self.axes.len()).map(<[u32]>::to_vec).collect()
        };
        for (entry, digits) in include.iter().zip(included) {
            if seen.insert(digits.clone()) {
                self.digits.extend(digits);
            } else {
                let message = "this combination is there already";
                diagnostics.push(Diagnostic::new("matrix/duplicate", message, entry.1).help("remove it"));
            }
        }
    }

    fn unknown_axis(&self, name: &At<String>, diagnostics: &mut Diagnostics) {
        let names: Vec<&str> = self.axis_names().collect();
        let message = format!("this matrix has no axis `{}`", name.value);
        let diagnostic =
            Diagnostic::new("matrix/unknown-axis", message, name.span).nearest(&name.value, names.iter().copied());
        diagnostics.push(diagnostic.help(format!("it has {}", names.join(", "))));
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

impl Axis {
    fn empty(name: &At<String>) -> Self {
        let (name, span) = (name.value.clone(), name.span);
        Self { name, span, own: 0, values: Vec::new(), labels: Vec::new(), index: HashMap::new() }
    }

    fn read(name: &At<String>, node: &Node, diagnostics: &mut Diagnostics) -> Option<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(fits) {
            let message = format!("`{}` cannot name an axis: use a-z, 0-9, `_` and `-`", name.value);
            let help = "matrix: {lora_r: [8, 16]}, read as `${matrix.lora_r}`";
            diagnostics.push(Diagnostic::new("matrix/name", message, name.span).help(help));
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

    fn position(&self, value: &Node) -> Option<u32> {
        self.index.get(&value.to_json().to_string()).copied()
    }

    /// The position of a value, which joins the axis if it is new.
    fn add(&mut self, value: Node) -> u32 {
        let next = self.values.len() as u32;
        let position = *self.index.entry(value.to_json().to_string()).or_insert(next);
        if position == next {
            self.values.push(value);
        }
        position
    }

    /// Names every value. Two that read alike are told apart by their position on the axis: `large+2`.
    fn label(&mut self) {
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
fn label_of(value: &Node) -> String {
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

/// One entry of `include` or `exclude`, and its place.
type Entry<'a> = (&'a [(At<String>, Node)], Span);

struct Exclusion {
    wanted: Vec<(usize, u32)>,
    span: Span,
    is_used: bool,
}

fn entry_list<'a>(name: &str, node: &'a Node, diagnostics: &mut Diagnostics) -> Vec<Entry<'a>> {
    let items = if let Value::List(items) = &node.value { items.as_slice() } else { &[] };
    let entries: Vec<Entry<'a>> = items
        .iter()
        .filter_map(|item| Some((item.as_map().filter(|entries| !entries.is_empty())?, item.span)))
        .collect();
    if entries.is_empty() || entries.len() < items.len() {
        let message = format!("`{name}` is a list of maps, each from axes to values");
        let help = format!("{name}: [{{lora_r: 8, learning_rate: 2e-4}}]");
        diagnostics.push(Diagnostic::new("matrix/form", message, node.span).help(help));
    }
    entries
}
