//! Decides what will run, in which order, and why.
//!
//! Owns: the stage graph, port kind checks, stage keys, the reason a stage is stale.
//! Must not know: how a stage runs, where artifacts lie, how anything is printed.
//! Start at [`Plan::build`]; [`key`] explains what makes two stages the same.

pub mod key;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use llmflow_contract::{
    Digest, Entry, Facts, Failure, Kind, Known, KnownInput, Machine, Port, Registry, Source, StageId, StagePlan, Use,
};
use petgraph::{graph::DiGraph, visit::Topo};
use serde_json::Value;

pub use key::Component;
pub use view::{Change, PlanView, StageView, Will};

use crate::{
    event::Finished,
    lineage::Lineage,
    pipeline::{Diagnostic, Diagnostics, Overrides, Pipeline, SourceFile, StageDef},
    store::{KeyRecord, Store},
};

/// A pipeline whose stages are settled, in an order that runs.
pub struct Plan {
    pub pipeline: Pipeline,
    /// In topological order, the file's order among equals.
    pub stages: Vec<Planned>,
    pub machine: Machine,
    /// The pipeline file's folder, absolute: relative paths start here.
    pub base: PathBuf,
}

/// One stage of a plan.
pub struct Planned {
    pub def: StageDef,
    pub entry: Entry,
    pub settled: Settled,
    /// Indices of stages whose data or order it waits for.
    pub needs: Vec<usize>,
    pub standing: Standing,
    /// Its last success: for changes and times.
    pub last: Option<LastSuccess>,
}

/// What a stage is, as far as its inputs are known.
#[derive(Clone)]
pub struct Settled {
    pub params: Value,
    pub plan: StagePlan,
    pub seed: u64,
    /// The key and its parts, once every input's digest is known.
    pub key: Option<(Digest, Vec<Component>)>,
    /// Digests by port, once known.
    pub inputs: Vec<(Port, Vec<Digest>)>,
}

/// Whether a stage has its result already.
#[derive(Clone)]
pub enum Standing {
    /// A record with this key stands. Nothing will run.
    Cached(Box<KeyRecord>),
    /// The key is known and has no record.
    Run,
    /// An input's digest is not known yet.
    Waits,
}

/// The last time a stage of this pipeline succeeded.
#[derive(Clone, Debug)]
pub struct LastSuccess {
    pub components: Vec<Component>,
    pub seconds: f64,
}

/// What is known of every output so far.
#[derive(Default)]
pub struct Outputs(HashMap<(StageId, Port), (Kind, Facts, Option<Digest>)>);

impl Outputs {
    /// What a finished stage gave.
    pub fn learn(&mut self, stage: &StageId, record: &KeyRecord) {
        for (port, digest) in record.outputs.iter().chain(&record.side) {
            let (kind, facts) = record.facts.get(port).cloned().unwrap_or((Kind::new(port.as_str()), Facts::default()));
            self.0.insert((stage.clone(), port.clone()), (kind, facts, Some(*digest)));
        }
    }

    /// What a stage is going to give.
    fn expect(&mut self, stage: &StageId, plan: &StagePlan, eval: bool) {
        for (port, kind, facts) in &plan.outputs {
            let mut facts = facts.clone();
            if eval && kind.is_dataset() {
                facts.used_for = Some(Use::Eval);
            }
            self.0.insert((stage.clone(), port.clone()), (kind.clone(), facts, None));
        }
        for side in ["report", "trace"] {
            let key = (stage.clone(), Port::from(side));
            self.0.entry(key).or_insert((Kind::of(side), Facts::default(), None));
        }
    }

    fn known(&self, def: &StageDef, machine: &Machine, base: &Path) -> Known {
        let inputs = def.inputs.iter().map(|(port, refs)| {
            let found = refs.iter().filter_map(|input| {
                let (kind, facts, digest) = self.0.get(&(input.stage.clone(), input.port.clone()))?.clone();
                Some(KnownInput { stage: input.stage.clone(), kind, facts, digest })
            });
            (port.clone(), found.collect::<Vec<_>>())
        });
        Known { inputs: inputs.collect::<BTreeMap<_, _>>(), machine: machine.clone(), base: base.to_owned() }
    }
}

impl Plan {
    /// Checks the whole file and says what will run.
    ///
    /// # Errors
    /// Every mistake in the file at once.
    pub async fn build(
        source: SourceFile,
        overrides: &Overrides,
        registry: &Registry,
        store: &Store,
        lineage: Option<&Lineage>,
        machine: Machine,
    ) -> Result<Self, PlanError> {
        let loaded = crate::pipeline::load(source, overrides, registry);
        let (pipeline, mut diagnostics) = (loaded.pipeline, loaded.diagnostics);
        let order = topological(&loaded.stages);
        let base = absolute(pipeline.source.base());
        let mut outputs = Outputs::default();
        let mut stages: Vec<Planned> = Vec::new();
        let mut index = HashMap::new();
        let mut defs: Vec<Option<StageDef>> = loaded.stages.into_iter().map(Some).collect();
        for position in order {
            let Some(def) = defs[position].take() else { continue };
            let Some(entry) = registry.find(&def.shared.op).filter(|_| def.sound).cloned() else { continue };
            let wanted = wanted_stages(&def);
            if wanted.iter().any(|stage| !index.contains_key(stage)) {
                continue; // what it needs is unsound and already reported
            }
            let settled = match settle(&def, &entry, &outputs, &machine, &pipeline, &base) {
                Ok(settled) => settled,
                Err(found) => {
                    found.into_iter().for_each(|diagnostic| diagnostics.push(diagnostic));
                    continue;
                }
            };
            check_metrics(&def, &settled.plan, &mut diagnostics);
            let standing = match &settled.key {
                Some((key, _)) => {
                    store.key_record(key).await?.map_or(Standing::Run, |record| Standing::Cached(Box::new(record)))
                }
                None => Standing::Waits,
            };
            match &standing {
                Standing::Cached(record) => outputs.learn(&def.id, record),
                _ => outputs.expect(&def.id, &settled.plan, takes_eval_rows(&def, &settled.plan, &outputs)),
            }
            let needs = wanted.iter().map(|stage| index[stage]).collect();
            index.insert(def.id.clone(), stages.len());
            stages.push(Planned { def, entry, settled, needs, standing, last: None });
        }
        check_published(&pipeline, &stages, &mut diagnostics);
        if !diagnostics.is_empty() {
            return Err(PlanError::Bad(diagnostics));
        }
        let mut plan = Self { pipeline, stages, machine, base };
        if let Some(lineage) = lineage {
            plan.recall(lineage).await?;
        }
        Ok(plan)
    }

    /// Looks up the last success of every stage that has no result now.
    async fn recall(&mut self, lineage: &Lineage) -> Result<(), Failure> {
        let open = |stage: &&Planned| !matches!(stage.standing, Standing::Cached(_));
        let wanted: Vec<&StageId> = self.stages.iter().filter(open).map(|stage| &stage.def.id).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut found = lineage.last_successes(&self.pipeline.name, &wanted).await?;
        for stage in &mut self.stages {
            stage.last = found.remove(&stage.def.id);
        }
        Ok(())
    }

    /// Is there anything that has no result yet?
    pub fn has_work(&self) -> bool {
        self.stages.iter().any(|stage| !matches!(stage.standing, Standing::Cached(_)))
    }

    /// The plan for readers.
    pub fn view(&self) -> PlanView {
        PlanView { stages: self.stages.iter().map(|stage| self.stage_view(stage)).collect() }
    }

    fn stage_view(&self, stage: &Planned) -> StageView {
        let will = match (&stage.standing, &stage.settled.key) {
            (Standing::Cached(record), _) => Will::Cached { key: record.key, finished: finished(record) },
            (Standing::Run, Some((key, parts))) => Will::Run { key: *key, because: self.reasons(stage, parts) },
            _ => Will::Waits { on: self.unfinished_inputs(stage) },
        };
        StageView {
            stage: stage.def.id.clone(),
            operator: stage.entry.name.to_owned(),
            version: stage.entry.version,
            needs: stage.needs.iter().map(|need| self.stages[*need].def.id.clone()).collect(),
            will,
            seconds: stage.last.as_ref().map(|last| last.seconds),
            memory_bytes: stage.settled.plan.needs.memory_bytes,
            disk_bytes: stage.settled.plan.needs.disk_bytes,
        }
    }

    /// The parts of a key that differ from the stage's last success, with where each value comes from.
    pub fn reasons(&self, stage: &Planned, parts: &[Component]) -> Vec<Change> {
        let Some(last) = &stage.last else { return Vec::new() };
        let mut changes = key::changes(&last.components, parts);
        for change in &mut changes {
            let Some(name) = change.part.strip_prefix("with.") else { continue };
            change.origin = stage.def.origin_of(name).map(|origin| origin.describe(&self.pipeline.source));
            // A param at its default is no part of a key, but it has a value.
            let param = stage.entry.params.iter().find(|param| param.name == name);
            let default = param.and_then(|param| param.default.as_ref()).filter(|value| !value.is_null());
            let default = default.map(Value::to_string);
            change.before = change.before.take().or_else(|| default.clone());
            change.now = change.now.take().or(default);
        }
        changes
    }

    fn unfinished_inputs(&self, stage: &Planned) -> Vec<StageId> {
        stage
            .needs
            .iter()
            .filter(|need| !matches!(self.stages[**need].standing, Standing::Cached(_)))
            .map(|need| self.stages[*need].def.id.clone())
            .collect()
    }

    /// Settles a stage again, now that what it reads is known.
    pub fn settle_ready(&self, index: usize, outputs: &Outputs) -> Result<Settled, Failure> {
        let stage = &self.stages[index];
        settle(&stage.def, &stage.entry, outputs, &self.machine, &self.pipeline, &self.base).map_err(|found| {
            let first = found.into_iter().next();
            let message = first.as_ref().map(|found| found.message.clone()).unwrap_or_default();
            let mut failure = Failure::input("plan/refused", message);
            failure.help = first.and_then(|found| found.help);
            failure
        })
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{0}")]
    Bad(Diagnostics),
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// A record as an event shows it.
pub fn finished(record: &KeyRecord) -> Finished {
    Finished {
        key: Some(record.key),
        outputs: record.outputs.iter().chain(&record.side).map(|(port, digest)| (port.clone(), *digest)).collect(),
        metrics: record.metrics.clone(),
        summary: record.summary.clone(),
        seconds: record.seconds,
    }
}

/// Stages that this one waits for, data first, without doubles.
fn wanted_stages(def: &StageDef) -> Vec<StageId> {
    let data = def.inputs.iter().flat_map(|(_, refs)| refs.iter().map(|input| &input.stage));
    let mut wanted: Vec<StageId> = Vec::new();
    for stage in data.chain(def.after.iter().map(|after| &after.stage)) {
        if !wanted.contains(stage) {
            wanted.push(stage.clone());
        }
    }
    wanted
}

/// Positions of the stages in an order that runs.
fn topological(defs: &[StageDef]) -> Vec<usize> {
    let mut graph = DiGraph::<usize, ()>::new();
    // Topo takes the last added first among equals: added backwards, stages keep the file's order.
    let nodes: HashMap<&StageId, _> =
        defs.iter().enumerate().rev().map(|(position, def)| (&def.id, graph.add_node(position))).collect();
    for def in defs {
        for wanted in wanted_stages(def) {
            if let (Some(from), Some(to)) = (nodes.get(&wanted), nodes.get(&def.id)) {
                graph.add_edge(*from, *to, ());
            }
        }
    }
    let mut walk = Topo::new(&graph);
    std::iter::from_fn(|| walk.next(&graph)).map(|node| graph[node]).collect()
}

fn takes_eval_rows(def: &StageDef, plan: &StagePlan, outputs: &Outputs) -> bool {
    def.inputs.iter().filter(|(port, _)| plan.rows_from.contains(port)).flat_map(|(_, refs)| refs.iter()).any(|input| {
        let found = outputs.0.get(&(input.stage.clone(), input.port.clone()));
        found.is_some_and(|(_, facts, _)| facts.used_for == Some(Use::Eval))
    })
}

/// Plans one stage from what is known now.
fn settle(
    def: &StageDef,
    entry: &Entry,
    outputs: &Outputs,
    machine: &Machine,
    pipeline: &Pipeline,
    base: &Path,
) -> Result<Settled, Vec<Diagnostic>> {
    let known = outputs.known(def, machine, base);
    let failed = |failure: Failure| vec![Diagnostic::from_failure(&failure, def)];
    check_kinds(def, &entry.inputs, outputs)?;
    let (params, plan) = entry.plan(def.with(), &known).map_err(failed)?;
    check_kinds(def, &plan.inputs, outputs)?;
    check_training(def, &plan, outputs)?;
    let sources = source_contents(&plan.sources).map_err(failed)?;
    let inputs: Option<Vec<(Port, Vec<Digest>)>> = def
        .inputs
        .iter()
        .map(|(port, _)| {
            let digests: Option<Vec<Digest>> = known.inputs.get(port)?.iter().map(|input| input.digest).collect();
            Some((port.clone(), digests?))
        })
        .collect();
    let seed = def.seed().unwrap_or(pipeline.seed);
    let key = inputs.as_ref().map(|inputs| {
        let subject = key::Subject { entry, params: &params, inputs, sources: &sources, plan: &plan, seed };
        let parts = key::components(&subject);
        (key::digest(&parts), parts)
    });
    Ok(Settled { params, plan, seed, key, inputs: inputs.unwrap_or_default() })
}

fn check_kinds(def: &StageDef, specs: &[llmflow_contract::PortSpec], outputs: &Outputs) -> Result<(), Vec<Diagnostic>> {
    let mut found = Vec::new();
    for (port, refs) in def.inputs.iter() {
        let Some(spec) = specs.iter().find(|spec| &spec.port == port) else { continue };
        for input in refs.iter() {
            let Some((kind, ..)) = outputs.0.get(&(input.stage.clone(), input.port.clone())) else { continue };
            if !spec.accepts.accepts(kind) {
                let (to, from) = (format!("{}.{port}", def.id), format!("{}.{}", input.stage, input.port));
                found.push(Diagnostic::kind_mismatch(&to, &spec.accepts, &from, kind, input.span));
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Rows marked `eval` may never reach training.
fn check_training(def: &StageDef, plan: &StagePlan, outputs: &Outputs) -> Result<(), Vec<Diagnostic>> {
    let mut found = Vec::new();
    for (port, refs) in def.inputs.iter().filter(|(port, _)| plan.trains_on.contains(port)) {
        for input in refs.iter() {
            let facts = outputs.0.get(&(input.stage.clone(), input.port.clone())).map(|(_, facts, _)| facts);
            if facts.is_some_and(|facts| facts.used_for == Some(Use::Eval)) {
                let (to, from) = (format!("{}.{port}", def.id), format!("{}.{}", input.stage, input.port));
                found.push(Diagnostic::eval_in_training(&to, &from, input.span));
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn check_metrics(def: &StageDef, plan: &StagePlan, diagnostics: &mut Diagnostics) {
    for require in &def.shared.require {
        for name in require.expr.names() {
            if !plan.metrics.iter().any(|metric| metric.name == name) {
                diagnostics.push(Diagnostic::unknown_metric(&def.id, name, &plan.metrics, require.span));
            }
        }
    }
}

/// Nothing is published over what a stage reads.
fn check_published(pipeline: &Pipeline, stages: &[Planned], diagnostics: &mut Diagnostics) {
    let base = absolute(pipeline.source.base());
    for path in pipeline.publish.iter().flat_map(|item| &item.paths) {
        let Ok(target) = base.join(&path.value).canonicalize() else { continue }; // nothing is there
        let reads = |stage: &&Planned| {
            stage.settled.plan.sources.iter().any(|source| match source {
                Source::File { path, .. } => path.canonicalize().is_ok_and(|file| file.starts_with(&target)),
                Source::Pinned { .. } => false,
            })
        };
        if let Some(stage) = stages.iter().find(reads) {
            let message = format!("`{}` would be overwritten, and `{}` reads it", path.value, stage.def.id);
            let help = "publish to another path, such as `out/`";
            diagnostics.push(Diagnostic::new("publish/source", message, path.span).help(help));
        }
    }
}

/// The content of what is read from outside, by param.
fn source_contents(sources: &[Source]) -> Result<Vec<(String, String)>, Failure> {
    let mut contents: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in sources {
        match source {
            Source::Pinned { param, pin } => contents.entry(param).or_default().push(pin.clone()),
            Source::File { param, path, name } => {
                let list = contents.entry(param).or_default();
                for (inner, file) in files_of(path)? {
                    let (digest, _) =
                        Digest::of_file(&file).map_err(|error| Failure::io("reading", &file, &error).param(param))?;
                    let name = inner.or_else(|| name.clone());
                    list.push(name.map_or_else(|| digest.hex(), |name| format!("{name}={}", digest.hex())));
                }
            }
        }
    }
    Ok(contents.into_iter().map(|(param, list)| (param.to_owned(), list.join(" "))).collect())
}

/// A file, or every file directly in a folder with its name.
fn files_of(path: &Path) -> Result<Vec<(Option<String>, std::path::PathBuf)>, Failure> {
    if !path.is_dir() {
        return Ok(vec![(None, path.to_owned())]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| Failure::io("listing", path, &error))? {
        let file = entry.map_err(|error| Failure::io("listing", path, &error))?.path();
        if file.is_file() {
            files.push((file.file_name().map(|name| name.to_string_lossy().into_owned()), file));
        }
    }
    files.sort();
    Ok(files)
}

/// The folder of a pipeline file, absolute; a folder that is not there stays as it is and fails where it is read.
pub fn absolute(folder: &Path) -> std::path::PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}
