//! The names of all stages, those of matrices included, and what a reference to one means.
//!
//! Owns: where a stage's name ends in `sft@lr=0.0001.adapter`, which combination reads which.
//! Must not know: ports, params.

use std::{collections::HashMap, rc::Rc};

use llmflow_contract::{Entry, Registry, StageId};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    matrix::{MAX_STAGES, Matrix},
    source::{At, Span},
    stage::Stage,
};

/// Combinations that a message lists.
const LISTED: usize = 8;

/// All stages of a file.
pub(super) struct Names<'a> {
    pub groups: Vec<Group<'a>>,
    /// Of all stages, in file order, those of a matrix in its order.
    pub ids: Vec<StageId>,
    by_name: HashMap<&'a str, usize>,
    pairs: HashMap<(usize, usize), Option<Rc<[u32]>>>,
}

/// One entry of `stages` and the stages it stands for.
pub(super) struct Group<'a> {
    pub stage: &'a Stage,
    /// Its operator, if that is known.
    pub entry: Option<&'a Entry>,
    /// Position of the first of its stages.
    pub first: u32,
    pub len: u32,
    /// Positions by id: made when a reference names one combination.
    by_id: Option<HashMap<StageId, u32>>,
}

/// What a reference names, seen from one entry of `stages`.
#[derive(Clone)]
pub(super) enum Target {
    One(u32),
    /// Every stage of a matrix.
    All(std::ops::Range<u32>),
    /// Of each combination of the one that reads, the stage with equal values.
    Paired(Rc<[u32]>),
}

/// A reference taken apart.
pub(super) struct Found<'t> {
    pub group: usize,
    /// A stage that stands for itself, or one combination.
    pub one: Option<u32>,
    /// What follows the stage's name: a port, a metric.
    pub rest: Option<&'t str>,
}

impl<'a> Names<'a> {
    pub fn new(stages: &'a [Stage], registry: &'a Registry, diagnostics: &mut Diagnostics) -> Self {
        let mut names = Self {
            groups: Vec::with_capacity(stages.len()),
            ids: Vec::with_capacity(stages.len()),
            by_name: HashMap::with_capacity(stages.len()),
            pairs: HashMap::new(),
        };
        for stage in stages {
            let first = names.ids.len() as u32;
            let matrix = stage.matrix.as_deref();
            match matrix {
                Some(matrix) if names.ids.len() + matrix.len() <= MAX_STAGES => {
                    let ids = (0..matrix.len() as u32).map(|at| StageId::new(matrix.id_of(stage.name.as_str(), at)));
                    names.ids.extend(ids);
                }
                Some(matrix) => {
                    let message = format!("with this matrix the file has more than {MAX_STAGES} stages");
                    let help = "sweep in two steps: one file for a coarse grid, a second for what is left";
                    diagnostics.push(Diagnostic::new("matrix/too-big", message, matrix.span).help(help));
                    names.ids.push(stage.name.value.clone());
                }
                None => names.ids.push(stage.name.value.clone()),
            }
            let len = names.ids.len() as u32 - first;
            // The first of a name: the second is reported where the file is parsed.
            names.by_name.entry(stage.name.as_str()).or_insert(names.groups.len());
            let entry = registry.find(&stage.op.value);
            names.groups.push(Group { stage, entry, first, len, by_id: None });
        }
        names
    }

    /// Takes a reference apart: the first dot ends a stage's name, but within `@axis=value` dots belong to it.
    pub fn find<'t>(&mut self, reference: &'t At<String>, diagnostics: &mut Diagnostics) -> Option<Found<'t>> {
        let text = reference.value.as_str();
        let end = text.find(['.', '@']).unwrap_or(text.len());
        let Some(group) = self.by_name.get(&text[..end]).copied() else {
            self.unknown(&text[..end], reference.span, diagnostics);
            return None;
        };
        if !text[end..].starts_with('@') {
            let one = self.groups[group].matrix().is_none().then_some(self.groups[group].first);
            return Some(Found { group, one, rest: text.get(end + 1..) });
        }
        let by_id = self.by_id(group);
        let ends = std::iter::once(text.len()).chain(text.rmatch_indices('.').map(|(at, _)| at));
        for end in ends {
            if let Some(one) = by_id.get(&text[..end]) {
                return Some(Found { group, one: Some(*one), rest: text.get(end + 1..) });
            }
        }
        let stage = self.groups[group].stage;
        if !stage.is_unswept {
            let message = format!("`{}` has no combination `{}`", stage.name.value, &text[end..]);
            let diagnostic = Diagnostic::new("stage/unknown-stage", message, reference.span);
            let help = match self.groups[group].matrix() {
                Some(_) => format!("it has {}", self.listed(group)),
                None => format!("it has no matrix: write `{}`", stage.name.value),
            };
            diagnostics.push(diagnostic.help(help));
        }
        None
    }

    /// What a reference means to the stages of `from`. `gathers` says whether several stages may be meant.
    pub fn target(
        &mut self,
        from: usize,
        found: &Found<'_>,
        reader: &str,
        gathers: bool,
        span: Span,
        diagnostics: &mut Diagnostics,
    ) -> Option<Target> {
        if let Some(one) = found.one {
            return Some(Target::One(one));
        }
        if self.groups[from].stage.is_unswept {
            return Some(Target::One(self.groups[found.group].first)); // reported already; its axes are unknown
        }
        if let Some(pairs) = self.paired(from, found.group) {
            if let Some(lone) = pairs.iter().position(|pair| *pair == u32::MAX) {
                let reader = &self.ids[self.groups[from].first as usize + lone];
                let name = &self.groups[found.group].stage.name.value;
                let message = format!("`{name}` has no combination for `{reader}` to read");
                let help = format!("exclude it here too, or add it to `{name}`; it has {}", self.listed(found.group));
                diagnostics.push(Diagnostic::new("matrix/pair", message, span).help(help));
                return None;
            }
            return Some(Target::Paired(pairs));
        }
        let group = &self.groups[found.group];
        if gathers {
            return Some(Target::All(group.first..group.first + group.len));
        }
        let name = &group.stage.name.value;
        let message = format!("`{name}` is {}, and {reader} takes one", counted(group.len));
        let axes = group.matrix().into_iter().flat_map(|matrix| &matrix.axes);
        let axes: Vec<String> = axes.map(|axis| format!("{}: […]", axis.name)).collect();
        let help =
            format!("name one of {}; or sweep here too: `matrix: {{{}}}`", self.listed(found.group), axes.join(", "));
        diagnostics.push(Diagnostic::new("matrix/many", message, span).help(help));
        None
    }

    fn paired(&mut self, from: usize, to: usize) -> Option<Rc<[u32]>> {
        if let Some(known) = self.pairs.get(&(from, to)) {
            return known.clone();
        }
        let (reader, read) = (self.groups[from].matrix(), self.groups[to].matrix());
        let first = self.groups[to].first;
        let pairs = reader.zip(read).and_then(|(reader, read)| reader.pairs_with(read));
        let offset = |pair: u32| if pair == u32::MAX { pair } else { first + pair };
        let pairs: Option<Rc<[u32]>> = pairs.map(|pairs| pairs.into_iter().map(offset).collect());
        self.pairs.insert((from, to), pairs.clone());
        pairs
    }

    fn by_id(&mut self, group: usize) -> &HashMap<StageId, u32> {
        let Self { groups, ids, .. } = self;
        let group = &mut groups[group];
        let (first, len) = (group.first, group.len);
        group.by_id.get_or_insert_with(|| {
            (first..first + len).map(|position| (ids[position as usize].clone(), position)).collect()
        })
    }

    /// The ids of a matrix, as a message lists them.
    pub fn listed(&self, group: usize) -> String {
        let group = &self.groups[group];
        let (first, len) = (group.first as usize, group.len as usize);
        let ids = self.ids[first..first + len.min(LISTED)].iter().map(|id| format!("`{id}`"));
        let listed = ids.collect::<Vec<_>>().join(", ");
        if len > LISTED { format!("{listed} and {} more", len - LISTED) } else { listed }
    }

    fn unknown(&self, name: &str, span: Span, diagnostics: &mut Diagnostics) {
        let mut names: Vec<&str> = self.by_name.keys().copied().collect();
        names.sort_unstable();
        let diagnostic = Diagnostic::new("stage/unknown-stage", format!("there is no stage `{name}`"), span)
            .nearest(name, names.iter().copied());
        let shown = names.iter().take(2 * LISTED).copied().collect::<Vec<_>>().join(", ");
        let more = if names.len() > 2 * LISTED { ", …" } else { "" };
        diagnostics.push(diagnostic.help(format!("the file has {shown}{more}")));
    }
}

/// How a message counts the stages of a matrix.
pub(super) fn counted(stages: u32) -> String {
    if stages == 1 { "a matrix of 1 stage".to_owned() } else { format!("{stages} stages") }
}

impl<'a> Group<'a> {
    /// Its matrix, if its stages are that matrix's.
    pub fn matrix(&self) -> Option<&'a Matrix> {
        self.stage.matrix.as_deref().filter(|matrix| matrix.len() == self.len as usize)
    }
}
