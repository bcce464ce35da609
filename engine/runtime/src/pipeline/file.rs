//! The pipeline as the file has it: parsed, overridden, params substituted, nothing looked up yet.

use std::sync::Arc;

use indexmap::IndexMap;
use llmflow_contract::{Port, StageId};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    fields::{refuse_unknown_keys, text, texts, whole},
    node::{Node, Value},
    params::{self, Param, Set},
    reference::Scope,
    source::{At, SourceFile, Span},
    stage::{Ref, Stage},
};

const KEYS: [&str; 5] = ["name", "seed", "params", "stages", "publish"];
const NOT_YET: [&str; 2] = ["store", "profiles"];

/// A pipeline file, read.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub source: Arc<SourceFile>,
    pub name: String,
    /// 0 if the file gives none.
    pub seed: u64,
    pub params: IndexMap<String, Param>,
    /// In file order.
    pub stages: Vec<Stage>,
    pub publish: Vec<Publish>,
    /// Every `--set`, as typed.
    pub set: Vec<String>,
}

/// What to put where at the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub target: Target,
    /// Relative to the file's folder and inside it, once checked.
    pub paths: Vec<At<String>>,
    /// Of the target.
    pub span: Span,
}

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The whole run's story.
    Report,
    /// An output of a stage: the main one without a port.
    Output { stage: StageId, port: Option<Port> },
}

impl Pipeline {
    /// Reads a pipeline and applies each `--set`.
    ///
    /// # Errors
    /// All that can be told without knowing the operators.
    pub fn parse(source: SourceFile, set: &[String]) -> Result<Self, Diagnostics> {
        let (pipeline, diagnostics) = Self::read(source, set, &|name| std::env::var(name).ok());
        if diagnostics.is_empty() { Ok(pipeline) } else { Err(diagnostics) }
    }

    /// As [`Self::parse`], keeping what could be read beside what could not.
    pub(super) fn read(
        source: SourceFile,
        set: &[String],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> (Self, Diagnostics) {
        let source = Arc::new(source);
        let mut diagnostics = Diagnostics::new(source.clone());
        let mut pipeline = Self {
            name: source.stem(),
            source: source.clone(),
            seed: 0,
            params: IndexMap::new(),
            stages: Vec::new(),
            publish: Vec::new(),
            set: set.to_vec(),
        };
        match Node::parse(&source) {
            Ok(root) if root.as_map().is_some() => pipeline.read_root(root, environment, &mut diagnostics),
            Ok(root) => {
                let message = match root.value {
                    Value::Null => "the file is empty".to_owned(),
                    _ => format!("a pipeline is a map with `stages`, not {}", root.describe()),
                };
                let help = "start with `stages: {rows: {op: data.load, with: {path: data.jsonl}}}`";
                diagnostics.push(Diagnostic::new("pipeline/form", message, root.span).help(help));
            }
            Err(errors) => errors.into_iter().for_each(|error| diagnostics.push(error)),
        }
        (pipeline, diagnostics)
    }

    fn read_root(
        &mut self,
        mut root: Node,
        environment: &dyn Fn(&str) -> Option<String>,
        diagnostics: &mut Diagnostics,
    ) {
        let Value::Map(entries) = &mut root.value else { return };
        entries.retain(|(key, _)| !key.value.starts_with("x-"));
        refuse_unknown_keys("a pipeline", entries, &KEYS, &NOT_YET, diagnostics);
        if let Some(node) = root.get("name") {
            let name = text(node, "`name`", diagnostics);
            self.name = name.map_or_else(|| std::mem::take(&mut self.name), |name| name.value);
        }
        if let Some(node) = root.get("seed") {
            self.seed = whole(node, "`seed`", 0, u64::MAX, diagnostics).unwrap_or(0);
        }
        if let Some(node) = root.get("params") {
            self.params = params::read(node, diagnostics);
            // A param may read the environment; it may not refer to another param.
            let (none, source) = (IndexMap::new(), self.source.clone());
            let scope = Scope::new(&none, environment, &source);
            for param in self.params.values_mut() {
                scope.fill(&mut param.default, diagnostics);
                param.value = param.default.clone();
            }
        }
        let Value::Map(entries) = &mut root.value else { return };
        let mut stages = entries.iter().position(|(key, _)| key.value == "stages").map(|at| entries.remove(at).1);
        let mut publish = entries.iter().position(|(key, _)| key.value == "publish").map(|at| entries.remove(at).1);
        self.apply_sets(stages.as_mut(), diagnostics);
        let source = self.source.clone();
        let params = std::mem::take(&mut self.params);
        let scope = Scope::new(&params, environment, &source);
        self.read_stages(stages.as_mut(), &scope, diagnostics);
        if let Some(node) = &mut publish {
            scope.fill(node, diagnostics);
            self.publish = read_publish(node, diagnostics);
        }
        self.params = params;
    }

    fn apply_sets(&mut self, stages: Option<&mut Node>, diagnostics: &mut Diagnostics) {
        let mut none = Node::new(Value::Null, Span::default());
        let stages = stages.unwrap_or(&mut none);
        for text in self.set.clone() {
            let set = match Set::parse(&text) {
                Ok(set) => set,
                Err(diagnostic) => {
                    diagnostics.push(diagnostic);
                    continue;
                }
            };
            if let Some(param) = self.params.get_mut(&set.target) {
                params::set(param, &set.target, &set, diagnostics);
            } else if set.target.contains('.') {
                if let Err(diagnostic) = params::set_in_stage(stages, &set) {
                    diagnostics.push(diagnostic);
                }
            } else {
                let message = format!("`--set {text}`: there is no param `{}`", set.target);
                let names = self.params.keys().map(String::as_str);
                let help = match self.params.is_empty() {
                    true => "this pipeline has no params; a stage's are set by `--set STAGE.PARAM=VALUE`".to_owned(),
                    false => format!("it has {}", self.params.keys().cloned().collect::<Vec<_>>().join(", ")),
                };
                diagnostics.push(Diagnostic::new("set/unknown", message, None).nearest(&set.target, names).help(help));
            }
        }
    }

    fn read_stages(&mut self, stages: Option<&mut Node>, scope: &Scope<'_>, diagnostics: &mut Diagnostics) {
        let Some(node) = stages else {
            let message = "a pipeline needs `stages`";
            diagnostics
                .push(Diagnostic::new("pipeline/no-stages", message, None).help("stages: {rows: {op: data.load}}"));
            return;
        };
        let span = node.span;
        match &mut node.value {
            Value::Map(entries) if !entries.is_empty() => {
                for (key, body) in entries {
                    let before = diagnostics.raw_len();
                    scope.fill(body, diagnostics);
                    let is_filled = diagnostics.raw_len() == before;
                    let mut stage = Stage::read(key, body, diagnostics);
                    stage.is_filled = is_filled;
                    stage.sound &= is_filled;
                    self.stages.push(stage);
                }
            }
            Value::Map(_) | Value::Null => {
                diagnostics.push(Diagnostic::new("pipeline/no-stages", "`stages` is empty", span));
            }
            _ => {
                let message = format!("`stages` is a map of names, not {}", node.describe());
                diagnostics
                    .push(Diagnostic::new("pipeline/form", message, span).help("stages: {rows: {op: data.load}}"));
            }
        }
    }
}

fn read_publish(node: &Node, diagnostics: &mut Diagnostics) -> Vec<Publish> {
    let Some(entries) = node.as_map() else {
        if node.value != Value::Null {
            let message = format!("`publish` is a map from stages to paths, not {}", node.describe());
            diagnostics
                .push(Diagnostic::new("publish/form", message, node.span).help("publish: {gguf: out/model.gguf}"));
        }
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, node) in entries {
        let target = match key.value.as_str() {
            "report" => Target::Report,
            _ => {
                let Ref { stage, port, .. } = Ref::new(key);
                Target::Output { stage, port }
            }
        };
        let paths = texts(node, "a path", diagnostics);
        found.push(Publish { target, paths, span: key.span });
    }
    found
}
