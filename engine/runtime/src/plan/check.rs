//! Checks that only a plan can make: kinds across edges, rows that may never reach training, metrics that gates name,
//! files that publishing would destroy.

use llmflow_contract::{PortSpec, Source, StagePlan};

use super::{Planned, outputs::Outputs};
use crate::pipeline::{Diagnostic, Diagnostics, Pipeline, StageDef, is_remote};

/// Every input has a kind that its port takes.
pub fn kinds(def: &StageDef, specs: &[PortSpec], outputs: &Outputs) -> Result<(), Vec<Diagnostic>> {
    let mut found = Vec::new();
    for (port, refs) in def.inputs.iter() {
        let Some(spec) = specs.iter().find(|spec| &spec.port == port) else { continue };
        for input in refs.iter() {
            let Some((kind, ..)) = outputs.find(input) else { continue };
            if !spec.accepts.accepts(&kind) {
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
    let has = |plan: &StagePlan, name: &str| plan.metrics.iter().any(|metric| metric.name == name);
    for require in &def.shared.require {
        let plan = &stage.settled.plan;
        for name in require.expr.names().into_iter().filter(|name| !has(plan, name)) {
            diagnostics.push(Diagnostic::unknown_metric(&def.id, name, &plan.metrics, require.span));
        }
    }
    let Some(when) = &def.when else { return };
    for read in &when.reads {
        let Some(Some(other)) = stages.get(read.index as usize) else { continue };
        let plan = &other.settled.plan;
        if !has(plan, &read.metric) {
            diagnostics.push(Diagnostic::unknown_metric(&read.stage, &read.metric, &plan.metrics, when.span));
        }
    }
}

/// Nothing is published over what a stage reads.
pub fn published(pipeline: &Pipeline, stages: &[Planned], base: &std::path::Path, diagnostics: &mut Diagnostics) {
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
