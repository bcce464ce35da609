//! Checks that only a plan can make: kinds across edges, rows that may never reach training, metrics that gates name,
//! files that publishing would destroy.

use std::{collections::HashMap, path::Path};

use llmflow_contract::{Arity, Entry, Kind, Port, PortSpec, Source, StageId, StagePlan};
use llmflow_dataset::RowFile;

use super::{Planned, outputs::Outputs};
use crate::pipeline::{Diagnostic, Diagnostics, Pipeline, StageDef, Target, is_remote};

/// Every input has a kind that its port takes.
pub fn kinds(def: &StageDef, specs: &[PortSpec], outputs: &Outputs) -> Result<(), Vec<Diagnostic>> {
    let mut found = Vec::new();
    for (port, refs) in def.inputs.iter() {
        let Some(spec) = specs.iter().find(|spec| &spec.port == port) else { continue };
        for input in refs.iter() {
            let wrong = match outputs.find(input) {
                Some((kind, ..)) => (!spec.accepts.accepts(&kind)).then_some(kind),
                None => {
                    let gives = outputs.declared(input).filter(|gives| !spec.accepts.may_meet(gives));
                    gives.map(|gives| Kind::new(gives.to_string()))
                }
            };
            if let Some(kind) = wrong {
                let (to, from) = (format!("{}.{port}", def.id), format!("{}.{}", input.stage, input.port));
                found.push(Diagnostic::kind_mismatch(&to, &spec.accepts, &from, &kind, input.span));
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Rows marked `eval` may never reach training.
pub fn training(def: &StageDef, plan: &StagePlan, outputs: &Outputs) -> Result<(), Vec<Diagnostic>> {
    let mut found = Vec::new();
    for (port, refs) in def.inputs.iter().filter(|(port, _)| plan.trains_on.contains(port)) {
        for input in refs.iter().filter(|input| outputs.is_eval(input)) {
            let (to, from) = (format!("{}.{port}", def.id), format!("{}.{}", input.stage, input.port));
            found.push(Diagnostic::eval_in_training(&to, &from, input.span));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// The metrics that a stage's `require` names, and those of others that its `when` names, exist.
pub fn metrics(stage: &Planned, stages: &[Option<Planned>], diagnostics: &mut Diagnostics) {
    let def = &stage.def;
    required(def, &stage.settled.plan).into_iter().for_each(|diagnostic| diagnostics.push(diagnostic));
    let of_when = def.when.iter().flat_map(|when| when.reads.iter().map(|read| (read, when.span)));
    for (read, span) in of_when.chain(def.shared.fills.iter().map(|fill| (&fill.read, fill.span))) {
        let Some(Some(other)) = stages.get(read.index as usize) else { continue };
        let plan = &other.settled.plan;
        if !has(plan, &read.metric) {
            diagnostics.push(Diagnostic::unknown_metric(&read.stage, &read.metric, &plan.metrics, span));
        }
    }
}

/// Rows are published in a form that exists.
pub fn published_rows(pipeline: &Pipeline, stages: &[Planned], diagnostics: &mut Diagnostics) {
    let by_stage: HashMap<&StageId, &Planned> = match pipeline.publish.is_empty() {
        true => return,
        false => stages.iter().map(|planned| (&planned.def.id, planned)).collect(),
    };
    for item in &pipeline.publish {
        let Target::Output { stage, port } = &item.target else { continue };
        let Some(planned) = by_stage.get(stage) else { continue };
        let mut outputs = planned.settled.plan.outputs.iter();
        let output = match port {
            Some(port) => outputs.find(|(name, ..)| name == port),
            None => outputs.next(),
        };
        let Some((_, kind, _)) = output else { continue };
        for path in &item.paths {
            let at = Path::new(&path.value);
            if RowFile::is_other(kind, at) {
                let message = format!("`{}`: rows are published as JSONL or Parquet, as the ending says", path.value);
                let help = format!("publish: {{{stage}: {}}}", at.with_extension("jsonl").display());
                diagnostics.push(Diagnostic::new("publish/rows", message, path.span).help(help));
            }
        }
    }
}

/// The metrics that a stage's `require` names and that it does not report.
fn required(def: &StageDef, plan: &StagePlan) -> Vec<Diagnostic> {
    let names =
        def.shared.require.iter().flat_map(|require| require.expr.names().into_iter().map(|name| (name, require.span)));
    let unknown = names.filter(|(name, _)| !has(plan, name));
    unknown.map(|(name, span)| Diagnostic::unknown_metric(&def.id, name, &plan.metrics, span)).collect()
}

fn has(plan: &StagePlan, name: &str) -> bool {
    plan.metrics.iter().any(|metric| metric.name == name)
}

/// What can be said of a stage although one that it reads is reported, and cannot be planned.
pub fn beside_reported(
    def: &StageDef,
    entry: &Entry,
    outputs: &Outputs,
    plan: impl FnOnce() -> Option<StagePlan>,
) -> Vec<Diagnostic> {
    let mut found = kinds(def, &entry.inputs, outputs).err().unwrap_or_default();
    // Whether an optional input is there decides about metrics.
    let is_open = |port: &Port| entry.inputs.iter().any(|spec| spec.port == *port && spec.arity == Arity::Optional);
    let reads = def.inputs.iter().filter(|(port, _)| is_open(port)).flat_map(|(_, refs)| refs.iter());
    if !reads.into_iter().any(|input| outputs.is_reported(input.index as usize)) {
        found.extend(plan().map(|plan| required(def, &plan)).unwrap_or_default());
    }
    found
}

/// Nothing is published over what a stage reads.
pub fn published(pipeline: &Pipeline, stages: &[Planned], base: &Path, diagnostics: &mut Diagnostics) {
    for path in pipeline.publish.iter().flat_map(|item| &item.paths).filter(|path| !is_remote(&path.value)) {
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
