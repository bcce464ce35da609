//! What of a pipeline file, and of what is asked in its place, may be a secret: nothing shows it.
//!
//! Owns: which values stand where the name of a secret belongs, those that references there lead to, and how a text
//! reads without them. Goes by what is written, whichever profile is chosen and whatever else is wrong.
//! Must not know: what is refused, and why.
//! Start at [`Hidden::find`].

use std::{
    collections::BTreeSet,
    ops::{Bound, Range},
};

use llmflow_contract::{Entry, ParamInfo, ParamType, Registry, Role};

use super::{
    diagnostic::nearest,
    matrix::label_of,
    node::{Node, Value},
    origin::Given,
    overrides::{Overrides, own_name, parse_set},
    reference::{is_reference, is_variable, references},
    source::{At, SourceFile, Span},
    stage::KEYS,
};

/// Characters of a value that no message may repeat: a shorter one says nothing and stands in much else.
const LEAST_CHARS: usize = 8;

/// What parts a line of a file that is no YAML.
const SEPARATORS: [char; 11] = ['{', '}', '[', ']', ',', '"', '\'', ' ', '\t', '\r', '\n'];

/// What nothing may show.
#[derive(Clone, Debug, Default)]
pub(super) struct Hidden {
    /// Of the pipeline file.
    pub spans: Vec<Span>,
    texts: BTreeSet<String>,
    /// Of each `--set` that holds some: as messages show it, and without its value.
    sets: Vec<(String, String)>,
}

impl Hidden {
    /// `root` is the file as far as it could be read, `is_whole` whether that is all of it.
    pub fn find(
        root: Option<&Node>,
        is_whole: bool,
        source: &SourceFile,
        overrides: &Overrides,
        registry: &Registry,
    ) -> Self {
        let get = |name: &str| root.and_then(|root| root.get(name));
        let stages = get("stages").and_then(Node::as_map).unwrap_or_default();
        let ops = stages.iter().map(|(_, stage)| registry.find(stage.get("op")?.as_str()?));
        let ops: Option<Vec<&Entry>> = ops.collect();
        let mut names = BTreeSet::new();
        match ops.filter(|ops| is_whole && !ops.is_empty()) {
            Some(ops) => ops.iter().for_each(|entry| add_names(&entry.params, &mut names)),
            None => registry.entries().for_each(|entry| add_names(&entry.params, &mut names)),
        }
        let (params, profiles) = (get("params"), get("profiles"));
        let mut finder = Finder { source, registry, stages, names, ..Finder::new(source, registry) };
        if let Some(root) = root {
            finder.file(root);
        }
        if !is_whole {
            finder.lines();
        }
        finder.asked(overrides, true);
        for name in finder.params.clone() {
            given(params, &name).for_each(|node| finder.secret(node.get("default").unwrap_or(node)));
            for (_, profile) in profiles.and_then(Node::as_map).unwrap_or_default() {
                given(profile.get("params"), &name).for_each(|node| finder.secret(node));
            }
        }
        finder.asked(overrides, false);
        finder.hidden
    }

    /// A text with `***` in the place of each value.
    pub fn scrub(&self, text: &str) -> String {
        let text = self.sets.iter().fold(text.to_owned(), |text, (set, shown)| text.replace(set, shown));
        if self.texts.is_empty() {
            return text;
        }
        let (mut shown, mut rest) = (String::with_capacity(text.len()), text.as_str());
        while let Some(first) = rest.chars().next() {
            let found = self.begun(rest);
            match found {
                Some(_) => shown.push_str("***"),
                None => shown.push(first),
            }
            rest = &rest[found.unwrap_or(first.len_utf8())..];
        }
        shown
    }

    /// The length of the longest value that a text begins with.
    fn begun(&self, text: &str) -> Option<usize> {
        let (last, character) = text.char_indices().nth(LEAST_CHARS - 1)?;
        let head = &text[..last + character.len_utf8()];
        let alike = self.texts.range::<str, _>((Bound::Included(head), Bound::Unbounded));
        let alike = alike.take_while(|value| value.starts_with(head));
        alike.filter(|value| text.starts_with(value.as_str())).map(String::len).max()
    }

    fn add_text(&mut self, text: &str) {
        for text in std::iter::once(text).chain(text.lines()).map(str::trim) {
            if text.chars().count() >= LEAST_CHARS && !self.texts.contains(text) {
                self.texts.insert(text.to_owned());
            }
        }
    }
}

struct Finder<'a> {
    source: &'a SourceFile,
    registry: &'a Registry,
    stages: &'a [(At<String>, Node)],
    /// Names of params that take secrets.
    names: BTreeSet<&'a str>,
    /// Of the stage whose params are looked at.
    matrix: Option<&'a Node>,
    /// Whether the values stand outside the pipeline file.
    is_outside: bool,
    /// Params of the pipeline that a secret's place refers to.
    params: BTreeSet<String>,
    /// Axes that one refers to, by the place of their matrix.
    axes: BTreeSet<(usize, String)>,
    /// How many literals were met.
    literals: usize,
    hidden: Hidden,
}

impl<'a> Finder<'a> {
    fn new(source: &'a SourceFile, registry: &'a Registry) -> Self {
        Self {
            source,
            registry,
            stages: &[],
            names: BTreeSet::new(),
            matrix: None,
            is_outside: false,
            params: BTreeSet::new(),
            axes: BTreeSet::new(),
            literals: 0,
            hidden: Hidden::default(),
        }
    }

    fn file(&mut self, root: &'a Node) {
        for (key, node) in root.as_map().unwrap_or_default() {
            match key.value.as_str() {
                "stages" => {
                    let stages = node.as_map().unwrap_or_default();
                    stages.iter().for_each(|(_, stage)| self.stage(Some(stage), stage));
                }
                "profiles" => {
                    let profiles = node.as_map().unwrap_or_default();
                    profiles.iter().for_each(|(_, profile)| self.profile(profile));
                }
                "name" | "seed" | "store" | "publish" => {}
                name => self.named(name, node),
            }
        }
    }

    fn profile(&mut self, profile: &Node) {
        for (key, node) in profile.as_map().unwrap_or_default() {
            match (key.value.as_str(), node.as_map()) {
                ("stages", Some(stages)) => {
                    stages.iter().for_each(|(name, part)| self.stage(self.stage_named(&name.value), part));
                }
                (name, _) => self.named(name, node),
            }
        }
    }

    fn stage_named(&self, name: &str) -> Option<&'a Node> {
        self.stages.iter().find(|(key, _)| key.value == name).map(|(_, stage)| stage)
    }

    /// A stage, or what a profile puts over it.
    fn stage(&mut self, stage: Option<&'a Node>, part: &Node) {
        for (key, node) in part.as_map().unwrap_or_default() {
            match key.value.as_str() {
                "with" => self.with(stage, node),
                name if KEYS.contains(&name) => {}
                name => self.named(name, node),
            }
        }
    }

    /// What stands under the name of a param that takes secrets, where no params belong.
    fn named(&mut self, name: &str, node: &Node) {
        match &node.value {
            _ if self.names.contains(name) => self.secret(node),
            Value::List(items) => items.iter().for_each(|item| self.named("", item)),
            Value::Map(entries) => entries.iter().for_each(|(key, node)| self.named(&key.value, node)),
            _ => {}
        }
    }

    /// The params of a stage.
    fn with(&mut self, stage: Option<&'a Node>, node: &Node) {
        let registry = self.registry;
        self.matrix = stage.and_then(|stage| stage.get("matrix"));
        match stage.and_then(|stage| registry.find(stage.get("op")?.as_str()?)) {
            Some(entry) => self.fields(&entry.params, node),
            None => self.fields(&[], node),
        }
        self.matrix = None;
    }

    fn fields(&mut self, params: &[ParamInfo], node: &Node) {
        if let Value::List(items) = &node.value {
            items.iter().for_each(|item| self.fields(params, item));
        }
        for (key, node) in node.as_map().unwrap_or_default() {
            match params.iter().find(|info| info.name == key.value || info.aliases.contains(&key.value)) {
                Some(info) if info.role == Role::Secret => self.secret(node),
                Some(info) => fields_of(&info.kind).into_iter().for_each(|fields| self.fields(fields, node)),
                None if nearest(&key.value, self.names.iter().copied()).is_some() => self.secret(node),
                None => {}
            }
        }
    }

    /// A value where the name of a secret belongs: all of it but references, and what they lead to.
    fn secret(&mut self, node: &Node) {
        match &node.value {
            Value::Null => {}
            Value::List(items) => items.iter().for_each(|item| self.secret(item)),
            Value::Map(entries) => {
                for (key, node) in entries {
                    let rest = self.source.text.get(key.span.end..).filter(|_| !self.is_outside);
                    let is_key = rest.is_some_and(|rest| rest.trim_start().starts_with(':'));
                    if !is_variable(&key.value) || (node.value == Value::Null && !is_key) {
                        self.literal(&key.value, key.span);
                    }
                    self.secret(node);
                }
            }
            Value::String(text) => {
                self.literal(text, node.span);
                references(text).for_each(|name| self.follow(name.trim()));
            }
            _ => self.literal(&node.to_string(), node.span),
        }
    }

    fn follow(&mut self, reference: &str) {
        match reference.split_once('.') {
            Some(("params", name)) => {
                self.params.insert(name.to_owned());
            }
            Some(("matrix", axis)) => {
                // Taken out meanwhile: a matrix may name itself.
                let Some(matrix) = self.matrix.take() else { return };
                let is_outside = std::mem::replace(&mut self.is_outside, false);
                if self.axes.insert((matrix.span.start, axis.to_owned())) {
                    self.axis(axis, matrix);
                }
                (self.matrix, self.is_outside) = (Some(matrix), is_outside);
            }
            _ => {}
        }
    }

    /// The values of one axis of a matrix.
    fn axis(&mut self, axis: &str, matrix: &Node) {
        let Value::Map(entries) = &matrix.value else { return self.secret(matrix) };
        for (key, node) in entries {
            match (key.value.as_str(), &node.value) {
                (name, _) if name == axis => self.secret(node),
                ("include" | "exclude", Value::List(items)) => {
                    items.iter().filter_map(|item| item.get(axis)).for_each(|value| self.secret(value));
                }
                ("include" | "exclude", _) => self.secret(node),
                _ => {}
            }
        }
    }

    fn literal(&mut self, text: &str, span: Span) {
        for part in beside_references(text).map(|part| text[part].trim()).filter(|part| !part.is_empty()) {
            self.literals += 1;
            self.hidden.add_text(part);
            // As it stands in the name of a stage of a matrix.
            self.hidden.add_text(&label_of(&Node::new(Value::String(part.to_owned()), span)));
        }
        if self.is_outside {
            return;
        }
        let written = self.source.slice(span);
        let is_quoted = |quote: &char| written.len() > 1 && written.starts_with(*quote) && written.ends_with(*quote);
        let quote = usize::from(['"', '\''].iter().any(is_quoted));
        let inner = &written[quote..written.len() - quote];
        let spans = beside_references(inner).map(|part| {
            let start = span.start + quote;
            Span::new(start + part.start, start + part.end)
        });
        self.hidden.spans.extend(spans);
    }

    /// What is asked in place of what the file says: of stages, or of params that are known to lead to a secret's place.
    fn asked(&mut self, overrides: &Overrides, is_of_stages: bool) {
        self.is_outside = true;
        let file = overrides.params_file.as_ref().and_then(|file| Node::parse(file).ok());
        for (key, value) in file.as_ref().and_then(|(node, _)| node.as_map()).unwrap_or_default() {
            self.change(own_name(&key.value), value, is_of_stages);
        }
        for typed in &overrides.set {
            let Ok(change) = parse_set(typed) else { continue };
            let before = self.literals;
            self.change(&change.target, &change.value, is_of_stages);
            if self.literals > before {
                change.text.iter().for_each(|text| self.hidden.add_text(text));
                let given = Given::Set(typed.clone());
                self.hidden.sets.push((given.to_string(), format!("{}=***", given.target())));
            }
        }
        self.hidden.sets.sort_by_key(|(set, _)| std::cmp::Reverse(set.len())); // one may begin as another does
        self.is_outside = false;
    }

    fn change(&mut self, target: &str, value: &Node, is_of_stages: bool) {
        match target.split_once('.') {
            Some((stage, path)) if is_of_stages => {
                let stage = self.stage_named(stage);
                let wrapped = path.rsplit('.').fold(value.clone(), |node, name| {
                    let (key, span) = (At::new(name.to_owned(), node.span), node.span);
                    Node::new(Value::Map(vec![(key, node)]), span)
                });
                self.with(stage, &wrapped);
            }
            None if !is_of_stages && self.params.contains(target) => self.secret(value),
            _ => {}
        }
    }

    /// Of a file that is no YAML: what follows the name of a param that takes secrets, on its line and on those that
    /// are indented below it.
    fn lines(&mut self) {
        let source = self.source;
        let (mut at, mut above) = (0, None);
        for line in source.text.split_inclusive('\n') {
            let indent = line.len() - line.trim_start().len();
            if above.is_some_and(|above| indent <= above && !line.trim().is_empty()) {
                above = None;
            }
            let from = if above.is_some() { Some(0) } else { self.value_start(line) };
            if let Some(from) = from {
                above.get_or_insert(indent);
                self.words(&line[from..], at + from);
            }
            at += line.len();
        }
    }

    /// Where the value of the first such param begins on a line.
    fn value_start(&self, line: &str) -> Option<usize> {
        let starts = self.names.iter().filter_map(|name| {
            let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
            let found = line.match_indices(*name).filter(|(at, _)| !line[..*at].ends_with(is_of_name));
            let mut ends = found.map(|(at, _)| at + name.len());
            ends.find(|end| line[*end..].trim_start_matches(['"', '\'', ' ']).starts_with(':'))
        });
        starts.min()
    }

    fn words(&mut self, text: &str, at: usize) {
        for part in beside_references(text) {
            let mut start = part.start;
            for word in text[part].split(SEPARATORS) {
                let is_key = word.strip_suffix(':').is_some_and(|name| name.is_empty() || is_variable(name));
                if !is_key {
                    self.literal(word, Span::new(at + start, at + start + word.len()));
                }
                start += word.len() + 1;
            }
        }
    }
}

/// The parts of a text that are no well-formed `${params.x}`, `${secret.X}` or the like.
fn beside_references(text: &str) -> impl Iterator<Item = Range<usize>> {
    let (mut found, mut start, mut from) = (Vec::new(), 0, 0);
    while let Some(at) = text[from..].find("${").map(|at| from + at) {
        let Some(len) = text[at..].find('}') else { break };
        from = at + len + 1;
        if is_reference(text[at + 2..from - 1].trim()) && !text[..at].ends_with('$') {
            found.push(start..at);
            start = from;
        }
    }
    found.push(start..text.len());
    found.into_iter().filter(|part| !part.is_empty())
}

/// All that a map gives a name: twice is a mistake.
fn given<'a>(map: Option<&'a Node>, name: &'a str) -> impl Iterator<Item = &'a Node> {
    let entries = map.and_then(Node::as_map).unwrap_or_default();
    entries.iter().filter(move |(key, _)| key.value == name).map(|(_, node)| node)
}

/// The params within one.
fn fields_of(kind: &ParamType) -> Option<&[ParamInfo]> {
    match kind {
        ParamType::Object(fields) => Some(fields),
        ParamType::List(item) => fields_of(item),
        ParamType::Either(kinds) => kinds.iter().find_map(fields_of),
        _ => None,
    }
}

fn add_names<'a>(params: &'a [ParamInfo], names: &mut BTreeSet<&'a str>) {
    for info in params {
        if info.role == Role::Secret {
            names.extend(std::iter::once(&info.name).chain(&info.aliases).map(String::as_str));
        }
        fields_of(&info.kind).into_iter().for_each(|fields| add_names(fields, names));
    }
}
