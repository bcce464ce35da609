//! `matrix` as the file has it: axes, `include`, `exclude`, `max_parallel`.

use std::collections::HashSet;

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        fields::whole,
        node::{Node, Value},
        source::{At, Span},
    },
    MAX_STAGES, Matrix,
    axis::{Axis, check_name},
};

/// Combinations times exclusions that a file may ask to compare.
const MAX_COMPARISONS: usize = 1 << 26;

/// Keys of `matrix` that are no axes.
const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";
const MAX_PARALLEL: &str = "max_parallel";
/// Letters of one of these keys for one in which a name may differ from it and still be taken for it.
const LETTERS_A_SLIP: usize = 6;

impl Matrix {
    /// Reads `matrix`.
    ///
    /// # Errors
    /// Everything wrong with it goes to `diagnostics`; then there is none.
    pub(in crate::pipeline) fn read(key: Span, node: &Node, diagnostics: &mut Diagnostics) -> Option<Self> {
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
                _ => match mistaken(name, node, entries) {
                    Some(diagnostic) => diagnostics.push(diagnostic),
                    None => matrix.axes.extend(Axis::read(name, node, diagnostics)),
                },
            }
        }
        let mut listed =
            |name: &str| node.get(name).map(|node| entry_list(name, node, diagnostics)).unwrap_or_default();
        let (include, exclude) = (listed(INCLUDE), listed(EXCLUDE));
        let has_axes = !matrix.axes.is_empty();
        if let Some(first) = include.first().filter(|_| !has_axes) {
            // A matrix of `include` alone: its first entry names the axes.
            let names = first.0.iter().map(|(name, _)| name).filter(|name| check_name(name, diagnostics));
            matrix.axes = names.map(Axis::empty).collect();
        }
        if diagnostics.raw_len() > before {
            return None;
        }
        let included: Vec<Vec<u32>> = include.iter().filter_map(|entry| matrix.included(entry, diagnostics)).collect();
        matrix.axes.iter_mut().for_each(Axis::label);
        matrix.combine(has_axes, &exclude, diagnostics);
        if diagnostics.raw_len() > before {
            return None;
        }
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
        self.multiply(product, &sizes, &mut excluded);
        for exclusion in excluded.iter().filter(|exclusion| !exclusion.is_used) {
            let message = "this excludes no combination";
            diagnostics
                .push(Diagnostic::new("matrix/exclude", message, exclusion.span).help("remove it, or mend its values"));
        }
    }

    /// The product of the axes' values, without what is excluded.
    fn multiply(&mut self, product: usize, sizes: &[usize], excluded: &mut [Exclusion]) {
        let axes = self.axes.len();
        let mut digits = vec![0_u32; axes];
        self.digits.reserve_exact(product * axes);
        for _ in 0..product {
            let mut is_out = false;
            for exclusion in &mut *excluded {
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
}

/// What is wrong with an axis that is hardly meant as one: its name is a slip of a key's, or it lists combinations.
fn mistaken(name: &At<String>, node: &Node, entries: &[(At<String>, Node)]) -> Option<Diagnostic> {
    let keys = [INCLUDE, EXCLUDE, MAX_PARALLEL];
    if let Some(key) = keys.into_iter().find(|key| strsim::osa_distance(&name.value, key) <= key.len() / LETTERS_A_SLIP)
    {
        let message = format!("`{}` is too close to `{key}` to name an axis", name.value);
        let diagnostic = Diagnostic::new("matrix/name", message, name.span).label(format!("the nearest is `{key}`"));
        return Some(diagnostic.help(format!("write `{key}`, or give the axis another name")));
    }
    let Value::List(items) = &node.value else { return None };
    let is_other =
        |key: &At<String>| key.value != name.value && entries.iter().any(|(axis, _)| axis.value == key.value);
    let is_combination = |item: &Node| {
        item.as_map().is_some_and(|entry| !entry.is_empty() && entry.iter().all(|(key, _)| is_other(key)))
    };
    (!items.is_empty() && items.iter().all(is_combination)).then(|| {
        let message = format!("`{}` lists combinations of other axes, an axis lists values", name.value);
        let help = "`exclude: […]` leaves combinations out, `include: […]` adds some";
        Diagnostic::new("matrix/form", message, name.span).help(help)
    })
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
