//! The pipeline as the file has it: parsed, overridden, params substituted, nothing looked up yet.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;
use llmflow_contract::Registry;

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    fields::{refuse_unknown_keys, text, whole},
    node::{Node, Value},
    overrides::{self, Overrides},
    params::{self, Param},
    profile,
    publish::{self, Publish, ReadPublish},
    recover,
    reference::Scope,
    secrecy::Hidden,
    source::{At, SourceFile},
    stage::Stage,
    store_place,
};

const KEYS: [&str; 7] = ["name", "seed", "store", "params", "profiles", "stages", "publish"];

/// A pipeline file, read.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub source: Arc<SourceFile>,
    pub name: String,
    /// Whether the file states its name; else it is the file's.
    pub is_named: bool,
    /// 0 if the file gives none.
    pub seed: u64,
    /// Where artifacts lie, if not in the home: a URL, or a path relative to the file.
    pub store: Option<At<String>>,
    /// Names of the overlays that it has.
    pub profiles: Vec<String>,
    pub params: IndexMap<String, Param>,
    pub publish: Vec<Publish>,
    /// What was asked in place of what the file says.
    pub overrides: Overrides,
}

/// A pipeline with what is not looked up yet.
pub(super) struct Read {
    pub pipeline: Pipeline,
    /// In file order.
    pub stages: Vec<Stage>,
    pub publish: Vec<ReadPublish>,
    pub hidden: Hidden,
}

impl Read {
    /// Reads a pipeline and applies the overrides; keeps what could be read beside what could not.
    pub fn new(
        source: SourceFile,
        overrides: Overrides,
        registry: &Registry,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> (Self, Diagnostics) {
        let source = Arc::new(source);
        let mut diagnostics = Diagnostics::new(source.clone());
        let pipeline = Pipeline {
            name: source.stem(),
            is_named: false,
            source: source.clone(),
            seed: 0,
            store: None,
            profiles: Vec::new(),
            params: IndexMap::new(),
            publish: Vec::new(),
            overrides,
        };
        let recovered = recover::parse(&source);
        let is_whole = recovered.root.is_some() && recovered.spoilt.is_empty();
        let hidden = Hidden::find(recovered.root.as_ref(), is_whole, &source, &pipeline.overrides, registry);
        let mut read = Self { pipeline, stages: Vec::new(), publish: Vec::new(), hidden };
        recovered.found.into_iter().for_each(|diagnostic| diagnostics.push(diagnostic));
        if let Some(root) = recovered.root {
            let given = std::mem::take(&mut read.pipeline.overrides.environment);
            let used = RefCell::new(BTreeMap::new());
            let variable = |name: &str| {
                let value = given.get(name).cloned().or_else(|| environment(name))?;
                used.borrow_mut().insert(name.to_owned(), value.clone());
                Some(value)
            };
            read.read_root(root, &recovered.spoilt, &variable, &mut diagnostics);
            read.pipeline.overrides.environment = used.into_inner();
        }
        (read, diagnostics)
    }

    fn read_root(
        &mut self,
        root: Node,
        spoilt: &[String],
        environment: &dyn Fn(&str) -> Option<String>,
        diagnostics: &mut Diagnostics,
    ) {
        let (described, span) = (root.describe(), root.span);
        let Value::Map(mut entries) = root.value else {
            let message = match root.value {
                Value::Null => "the file is empty".to_owned(),
                _ => format!("a pipeline is a map with `stages`, not {described}"),
            };
            let help = "start with `stages: {rows: {op: data.load, with: {path: data.jsonl}}}`";
            diagnostics.push(Diagnostic::new("pipeline/form", message, span).help(help));
            return;
        };
        entries.retain(|(key, _)| !key.value.starts_with("x-"));
        refuse_unknown_keys("a pipeline", &entries, &KEYS, &[], diagnostics);
        let mut take =
            |name: &str| entries.iter().position(|(key, _)| key.value == name).map(|at| entries.swap_remove(at).1);
        let [name, seed, store, params, profiles, mut stages, mut publish] = KEYS.map(&mut take);
        let source = self.pipeline.source.clone();
        let none = IndexMap::new();
        let scope = Scope::new(&none, environment, &source).of_params();
        let mut params = params.map(|node| params::read(&node, &scope, diagnostics)).unwrap_or_default();
        let mut changes = overrides::Changes {
            scope: &scope,
            params: &mut params,
            stages: stages.as_mut(),
            diagnostics: &mut *diagnostics,
        };
        self.pipeline.profiles = profile::names(profiles.as_ref());
        profile::apply(profiles, self.pipeline.overrides.profile.as_deref(), &mut changes);
        changes.apply(&self.pipeline.overrides);
        let names = stages.as_ref().and_then(Node::as_map).into_iter().flatten().map(|(name, _)| name.value.clone());
        let scope = Scope::new(&params, environment, &source).with_stages(names);
        if let Some(mut node) = seed {
            let before = diagnostics.raw_len();
            scope.fill(&mut node, diagnostics);
            let seed = (diagnostics.raw_len() == before).then(|| whole(&node, "`seed`", 0, u64::MAX, diagnostics));
            self.pipeline.seed = seed.flatten().unwrap_or(0);
        }
        if let Some(mut node) = name {
            scope.fill(&mut node, diagnostics);
            let name = text(&node, "`name`", diagnostics);
            self.pipeline.is_named = name.is_some();
            self.pipeline.name = name.map_or_else(|| std::mem::take(&mut self.pipeline.name), |name| name.value);
        }
        if let Some(mut node) = store {
            let before = diagnostics.raw_len();
            scope.fill(&mut node, diagnostics);
            if diagnostics.raw_len() == before {
                self.pipeline.store = store_place::read(&node, diagnostics);
            }
        }
        self.read_stages(stages, spoilt, &scope, diagnostics);
        if let Some(node) = &mut publish {
            scope.fill(node, diagnostics);
            self.publish = publish::read(node, diagnostics);
        }
        self.pipeline.params = params;
    }

    fn read_stages(
        &mut self,
        stages: Option<Node>,
        spoilt: &[String],
        scope: &Scope<'_>,
        diagnostics: &mut Diagnostics,
    ) {
        let help = "stages: {rows: {op: data.load, with: {path: data.jsonl}}}";
        let Some(node) = stages else {
            diagnostics.push(Diagnostic::new("pipeline/no-stages", "a pipeline needs `stages`", None).help(help));
            return;
        };
        let (described, span) = (node.describe(), node.span);
        match node.value {
            Value::Map(entries) if !entries.is_empty() => {
                self.stages.reserve(entries.len());
                for (key, body) in entries {
                    self.stages.push(match spoilt.contains(&key.value) {
                        true => Stage::spoilt(key),
                        false => Stage::read(key, body, scope, diagnostics),
                    });
                }
            }
            Value::Map(_) | Value::Null => {
                diagnostics.push(Diagnostic::new("pipeline/no-stages", "`stages` is empty", span).help(help));
            }
            _ => {
                let message = format!("`stages` is a map of names, not {described}");
                diagnostics.push(Diagnostic::new("pipeline/form", message, span).help(help));
            }
        }
    }
}
