//! Looks up every name of a pipeline: operators, stages, ports, params, what is published.
//!
//! Owns: the forms of `in` resolved to ports, arity, cycles, paths of `publish`.
//! Must not know: kinds of what flows (the planner's), how a stage runs.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use llmflow_contract::{Arity, Entry, Port, Registry, StageId};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    file::{Pipeline, Target},
    reference::Origin,
    source::{At, Span},
    stage::{Ref, Require, Resources, Retry, Stage, Wiring},
    with::{Places, check_params},
};

/// Side outputs that every stage has.
pub const SIDE_PORTS: [&str; 2] = ["report", "trace"];

/// A stage whose names are all looked up: what the planner reads.
#[derive(Clone, Debug)]
pub struct StageDef {
    pub id: StageId,
    /// Its key.
    pub span: Span,
    pub op: String,
    pub op_span: Span,
    /// The ports that are given, in the order the operator declares them.
    pub inputs: Vec<(Port, Vec<InputRef>)>,
    /// Params under their canonical names, defaults not filled in.
    pub with: serde_json::Value,
    pub places: Places,
    pub resources: Resources,
    pub retry: Retry,
    pub timeout: Option<Duration>,
    /// Else the pipeline's.
    pub seed: Option<u64>,
    pub after: Vec<At<StageId>>,
    pub require: Vec<Require>,
    /// Whether nothing in it was refused. Else neither it nor what needs it can be planned.
    pub sound: bool,
}

/// An output of a stage, named by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRef {
    pub stage: StageId,
    /// Resolved: a bare stage name means its main output, or `report` if it has none.
    pub port: Port,
    pub span: Span,
}

impl StageDef {
    /// Where a param stands: its own place, else that of the param around it, else the stage's name.
    pub fn place_of(&self, param: Option<&str>) -> Span {
        let mut path = param.unwrap_or_default();
        loop {
            if let Some(given) = self.places.get(path) {
                return given.span;
            }
            match path.rsplit_once('.') {
                Some((outer, _)) => path = outer,
                None => return self.span,
            }
        }
    }

    /// Where a param's value came from, if not from its own place.
    pub fn origin_of(&self, param: &str) -> Option<&Origin> {
        self.places.get(param)?.origin.as_deref()
    }
}

/// Looks up every name. What is refused is reported; the stage is then not `sound`.
pub fn check(pipeline: &Pipeline, registry: &Registry) -> (Vec<StageDef>, Diagnostics) {
    let mut checker = Checker {
        registry,
        ops: pipeline.stages.iter().map(|stage| (stage.id.as_str(), registry.find(&stage.op.value))).collect(),
        diagnostics: Diagnostics::new(Arc::clone(&pipeline.source)),
    };
    let mut stages: Vec<StageDef> = pipeline.stages.iter().map(|stage| checker.stage(stage)).collect();
    checker.cycles(&mut stages);
    checker.publish(pipeline);
    (stages, checker.diagnostics)
}

struct Checker<'a> {
    registry: &'a Registry,
    /// The operator of each stage, if it is known.
    ops: HashMap<&'a str, Option<&'a Entry>>,
    diagnostics: Diagnostics,
}

impl<'a> Checker<'a> {
    fn stage(&mut self, stage: &Stage) -> StageDef {
        let before = self.diagnostics.raw_len();
        let entry = self.registry.find(&stage.op.value);
        let (mut inputs, mut with, mut places) = (Vec::new(), serde_json::Value::Null, Places::new());
        match entry {
            Some(entry) => {
                inputs = self.inputs(stage, entry);
                // A reference that names nothing is reported already; its text is no value to check.
                if stage.is_filled {
                    (with, places) = check_params(entry, &stage.with, stage.span, &mut self.diagnostics);
                }
            }
            None => {
                self.unknown_op(stage);
                self.refs_of(stage);
            }
        }
        for after in &stage.after {
            if !self.ops.contains_key(after.value.as_str()) {
                self.unknown_stage(after.value.as_str(), after.span);
            }
        }
        StageDef {
            id: stage.id.clone(),
            span: stage.span,
            op: stage.op.value.clone(),
            op_span: stage.op.span,
            inputs,
            with,
            places,
            resources: stage.resources.clone(),
            retry: stage.retry.clone(),
            timeout: stage.timeout,
            seed: stage.seed,
            after: stage.after.clone(),
            require: stage.require.clone(),
            sound: stage.sound && entry.is_some() && self.diagnostics.raw_len() == before,
        }
    }

    fn unknown_op(&mut self, stage: &Stage) {
        let op = stage.op.value.as_str();
        if !op.is_empty() {
            let diagnostic = Diagnostic::new("stage/unknown-op", format!("there is no operator `{op}`"), stage.op.span)
                .nearest(op, self.registry.entries().map(|entry| entry.name));
            self.diagnostics.push(diagnostic.help("llmflow operators"));
        }
    }

    /// Looks up the stages that one of unknown operator names.
    fn refs_of(&mut self, stage: &Stage) {
        let refs: Vec<&Ref> = match &stage.wiring {
            Wiring::None => Vec::new(),
            Wiring::Main(refs) => refs.iter().collect(),
            Wiring::Ports(ports) => ports.iter().flat_map(|(_, refs)| refs).collect(),
        };
        for reference in refs {
            self.resolve(reference);
        }
    }

    fn inputs(&mut self, stage: &Stage, entry: &Entry) -> Vec<(Port, Vec<InputRef>)> {
        let mut given: Vec<(Port, Span, Vec<InputRef>)> = Vec::new();
        match &stage.wiring {
            Wiring::None => {}
            Wiring::Main(refs) => {
                let span = refs.iter().map(|reference| reference.span).reduce(Span::to).unwrap_or(stage.span);
                match entry.main_input() {
                    Some(spec) => given.push((spec.port.clone(), span, self.resolve_all(refs))),
                    None => self.takes_no_inputs(entry, span),
                }
            }
            Wiring::Ports(ports) => {
                for (port, refs) in ports {
                    let found = self.resolve_all(refs);
                    if entry.inputs.iter().any(|spec| spec.port == port.value) {
                        given.push((port.value.clone(), port.span, found));
                    } else if entry.inputs.is_empty() {
                        self.takes_no_inputs(entry, port.span);
                    } else {
                        self.unknown_input(entry, port);
                    }
                }
            }
        }
        let mut inputs = Vec::new();
        for spec in &entry.inputs {
            let Some((port, span, refs)) = given.iter().find(|(port, ..)| *port == spec.port) else {
                if spec.arity != Arity::Optional {
                    let message = format!("`{}` needs an input `{}`", entry.name, spec.port);
                    let doc = spec.doc.lines().next().unwrap_or_default();
                    let help = format!("in: {{{}: STAGE}}  # {}: {doc}", spec.port, spec.accepts);
                    self.diagnostics.push(Diagnostic::new("stage/missing-input", message, stage.span).help(help));
                }
                continue;
            };
            if spec.arity != Arity::Many && refs.len() > 1 {
                let message = format!("`{}.{port}` takes one input, {} are given", stage.id, refs.len());
                self.diagnostics.push(Diagnostic::new("stage/too-many-inputs", message, *span));
            }
            inputs.push((port.clone(), refs.clone()));
        }
        inputs
    }

    fn takes_no_inputs(&mut self, entry: &Entry, span: Span) {
        let message = format!("`{}` takes no inputs", entry.name);
        self.diagnostics.push(Diagnostic::new("stage/unknown-input", message, span).help("remove `in`"));
    }

    fn unknown_input(&mut self, entry: &Entry, port: &At<Port>) {
        let names: Vec<&str> = entry.inputs.iter().map(|spec| spec.port.as_str()).collect();
        let message = format!("`{}` has no input `{}`", entry.name, port.value);
        let diagnostic = Diagnostic::new("stage/unknown-input", message, port.span)
            .nearest(port.value.as_str(), names.iter().copied());
        self.diagnostics.push(diagnostic.help(format!("it takes {}", names.join(", "))));
    }

    fn resolve_all(&mut self, refs: &[Ref]) -> Vec<InputRef> {
        refs.iter().filter_map(|reference| self.resolve(reference)).collect()
    }

    /// The output a reference names. One of a stage whose operator is unknown is taken on trust.
    fn resolve(&mut self, reference: &Ref) -> Option<InputRef> {
        let found = |port: Port| Some(InputRef { stage: reference.stage.clone(), port, span: reference.span });
        let Some(entry) = self.ops.get(reference.stage.as_str()).copied() else {
            self.unknown_stage(reference.stage.as_str(), reference.span);
            return None;
        };
        let Some(entry) = entry else { return found(reference.port.clone().unwrap_or(Port::from("unknown"))) };
        let outputs: Vec<&str> = entry.outputs.iter().map(|spec| spec.port.as_str()).collect();
        let Some(port) = &reference.port else {
            return found(Port::from(outputs.first().copied().unwrap_or(SIDE_PORTS[0])));
        };
        if outputs.contains(&port.as_str()) || SIDE_PORTS.contains(&port.as_str()) {
            return found(port.clone());
        }
        let message = format!("`{}` ({}) has no output `{port}`", reference.stage, entry.name);
        let diagnostic = Diagnostic::new("stage/unknown-output", message, reference.span)
            .nearest(port.as_str(), outputs.iter().copied().chain(SIDE_PORTS));
        let all = outputs.iter().copied().chain(SIDE_PORTS).collect::<Vec<_>>().join(", ");
        self.diagnostics.push(diagnostic.help(format!("it gives {all}")));
        None
    }

    fn unknown_stage(&mut self, name: &str, span: Span) {
        let diagnostic = Diagnostic::new("stage/unknown-stage", format!("there is no stage `{name}`"), span)
            .nearest(name, self.ops.keys().copied().collect::<BTreeSet<_>>());
        self.diagnostics.push(diagnostic);
    }

    /// Reports each cycle once, and marks its stages as not sound. Depth-first, without recursion.
    fn cycles(&mut self, stages: &mut [StageDef]) {
        let index: HashMap<&str, usize> =
            stages.iter().enumerate().map(|(at, stage)| (stage.id.as_str(), at)).collect();
        let edges: Vec<Vec<(usize, Span)>> = stages
            .iter()
            .map(|stage| {
                let inputs =
                    stage.inputs.iter().flat_map(|(_, refs)| refs).map(|input| (input.stage.as_str(), input.span));
                let after = stage.after.iter().map(|after| (after.value.as_str(), after.span));
                inputs.chain(after).filter_map(|(name, span)| Some((*index.get(name)?, span))).collect()
            })
            .collect();
        let mut state = vec![Visit::New; stages.len()];
        let mut broken = Vec::new();
        for root in 0..stages.len() {
            if state[root] != Visit::New {
                continue;
            }
            let mut path: Vec<(usize, usize)> = vec![(root, 0)];
            state[root] = Visit::OnPath;
            while let Some((at, next)) = path.last_mut() {
                let Some((to, span)) = edges[*at].get(*next).copied() else {
                    state[*at] = Visit::Done;
                    path.pop();
                    continue;
                };
                *next += 1;
                match state[to] {
                    Visit::New => {
                        state[to] = Visit::OnPath;
                        path.push((to, 0));
                    }
                    Visit::OnPath => {
                        let start = path.iter().position(|(at, _)| *at == to).unwrap_or(0);
                        // Each edge points to what is needed: reversed, it is the order of running.
                        let members: Vec<usize> = path[start..].iter().rev().map(|(at, _)| *at).collect();
                        broken.push((members, span));
                    }
                    Visit::Done => {}
                }
            }
        }
        for (members, span) in broken {
            let mut names: Vec<&str> = members.iter().map(|at| stages[*at].id.as_str()).collect();
            names.push(names[0]);
            let message = match members.len() {
                1 => format!("stage `{}` needs itself", names[0]),
                _ => format!("stages wait for each other: {}", names.join(" → ")),
            };
            let help = "let a stage of the circle read something else, or drop its `after`";
            let diagnostic = Diagnostic::new("stage/cycle", message, span).label("this closes the circle");
            self.diagnostics.push(diagnostic.help(help));
            members.into_iter().for_each(|at| stages[at].sound = false);
        }
    }

    fn publish(&mut self, pipeline: &Pipeline) {
        let mut taken: HashMap<PathBuf, Span> = HashMap::new();
        if let Some(own) = pipeline.source.path.file_name() {
            taken.insert(PathBuf::from(own), Span::default());
        }
        for publish in &pipeline.publish {
            if let Target::Output { stage, port } = &publish.target {
                self.resolve(&Ref { stage: stage.clone(), port: port.clone(), span: publish.span });
            }
            for path in &publish.paths {
                match inside(&path.value) {
                    Err(message) => {
                        let help = "publish below the file's folder: `out/model.gguf`";
                        self.diagnostics.push(Diagnostic::new("publish/path", message, path.span).help(help));
                    }
                    Ok(clean) if clean.starts_with(crate::home::FOLDER) => {
                        let message = format!("`{}` is where LLMflow keeps its own state", path.value);
                        let help = "publish beside it: `out/model.gguf`";
                        self.diagnostics.push(Diagnostic::new("publish/path", message, path.span).help(help));
                    }
                    Ok(clean) => {
                        if let Some(first) = taken.insert(clean, path.span) {
                            let message = format!("`{}` is written twice", path.value);
                            let diagnostic = Diagnostic::new("publish/same-path", message, path.span);
                            self.diagnostics.push(match first == Span::default() {
                                true => diagnostic.label("this is the pipeline file"),
                                false => diagnostic.also(first, "the first time"),
                            });
                        }
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    New,
    OnPath,
    Done,
}

/// The path without `.` and `..`, if it stays inside the folder and names something in it.
fn inside(path: &str) -> Result<PathBuf, String> {
    if path.contains("://") {
        return Err(format!("`{path}`: publishing to a remote store is not supported yet"));
    }
    if path.starts_with(['/', '~', '\\']) || path.contains('\0') {
        return Err(format!("`{path}` is not relative to the pipeline file"));
    }
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        let stays = match part {
            Component::Normal(name) => {
                clean.push(name);
                true
            }
            Component::CurDir => true,
            Component::ParentDir => clean.pop(),
            Component::RootDir | Component::Prefix(_) => false,
        };
        if !stays {
            return Err(format!("`{path}` leaves the pipeline file's folder"));
        }
    }
    if clean.as_os_str().is_empty() { Err(format!("`{path}` names the folder itself")) } else { Ok(clean) }
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn a_published_path_stays_inside_the_files_folder() {
        assert_eq!(inside("out/./a/../m.gguf").unwrap().to_str(), Some("out/m.gguf"));
        assert_eq!(inside("out/model/").unwrap().to_str(), Some("out/model"));
        for path in ["/etc/x", "../x", "a/../../x", ".", "a/..", "", "~/x", "s3://b/k", "\\x"] {
            assert!(inside(path).is_err(), "{path}");
        }
    }
}
