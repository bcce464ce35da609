//! Settles one stage from what is known now: its params without `auto`, its needs, its key.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use llmflow_contract::{
    Digest, Entry, Failure, Known, Locks, Machine, MetricSpec, Numerics, ParamType, Port, StagePlan,
};
use serde_json::Value;

use super::{
    check,
    key::{self, Component},
    missing_input,
    outputs::Outputs,
    sources::{Sourced, Sources},
};
use crate::{
    pipeline::{Diagnostic, StageDef},
    store::KeyRecord,
};

/// What a stage is, as far as its inputs are known.
#[derive(Clone, Debug)]
pub struct Settled {
    /// As JSON text: a plan of a million stages holds them.
    params: Box<str>,
    pub plan: Arc<StagePlan>,
    pub seed: u64,
    /// Once every input's digest is known.
    pub key: Option<Digest>,
    /// None: it reads nothing from outside.
    sourced: Option<Arc<Sourced>>,
    /// Whether a param has another value once a metric of another stage is known.
    is_open: bool,
}

/// The code of a metric that is no value of the param it fills.
pub const UNFIT: &str = "param/metric";

/// What becomes of params whose values are metrics of other stages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fills {
    /// They have their values, as far as these are known.
    Known,
    /// They have none.
    Open,
}

/// What all stages of a plan are settled with.
pub struct Scope<'a> {
    pub machine: &'a Machine,
    /// The pipeline file's folder, absolute.
    pub base: &'a Path,
    /// The pipeline's; a stage may have its own.
    pub seed: u64,
    pub sources: &'a Sources<'a>,
    pub outputs: &'a Outputs,
    /// What remote sources were found to be.
    pub locks: &'a Arc<Locks>,
    /// Of a rehearsal.
    pub limit: Option<u64>,
}

impl Settled {
    /// Every param with its value.
    pub fn params(&self) -> Value {
        serde_json::from_str(&self.params).unwrap_or_default() // its own text
    }

    /// The parts of the key, once every input's digest is known.
    pub fn components(&self, def: &StageDef, entry: &Entry, outputs: &Outputs) -> Option<Vec<Component>> {
        let inputs = outputs.reading(def).filter(|_| !self.is_open)?;
        let params = self.params();
        let (sources, plan, seed) = (contents_of(&self.sourced), &self.plan, self.seed);
        Some(key::components(&key::Subject { entry, params: &params, inputs: &inputs, sources, plan, seed }))
    }

    /// The parts of the key, what is not known yet taken from those of an earlier one.
    pub fn assumed(&self, def: &StageDef, entry: &Entry, outputs: &Outputs, before: &[Component]) -> Vec<Component> {
        let mut params = self.params();
        let open = def.shared.fills.iter().filter(|fill| outputs.record(fill.read.index as usize).is_none());
        for info in open.filter_map(|fill| entry.param(&fill.param)) {
            let part = before.iter().find(|part| part.part.strip_prefix("with.") == Some(&info.name));
            let value = part.and_then(|part| serde_json::from_str(&part.value).ok());
            params[&info.name] = value.or_else(|| info.default.clone()).unwrap_or_default();
        }
        let inputs = outputs.reading_as(def, before);
        let (sources, plan, seed) = (contents_of(&self.sourced), &self.plan, self.seed);
        key::components(&key::Subject { entry, params: &params, inputs: &inputs, sources, plan, seed })
    }

    /// A stage that keeps the result it has, whatever became of what it was made from.
    pub fn frozen(def: &StageDef, entry: &Entry, record: &KeyRecord, seed: u64) -> Self {
        let declared: Vec<Port> = match entry.outputs_by_name {
            true => entry.named_outputs(&def.with()).unwrap_or_default(),
            false => entry.outputs.iter().map(|spec| spec.port.clone()).collect(),
        };
        let others = record.outputs.keys().filter(|port| !declared.contains(port));
        let outputs = declared.iter().chain(others).filter_map(|port| {
            let (kind, facts) = record.facts.get(port)?.clone();
            Some((port.clone(), kind, facts))
        });
        let mut plan = StagePlan::new(entry.inputs.clone(), outputs.collect());
        plan.metrics = record.metrics.keys().map(|name| MetricSpec::new(name, "")).collect();
        let params = def.with().to_string().into_boxed_str();
        Self { params, plan: Arc::new(plan), seed, key: None, sourced: None, is_open: false }
    }

    /// The files that it reads from outside, with the content that is in its key.
    pub fn files(&self) -> &[(PathBuf, Digest)] {
        self.sourced.as_ref().map(|sourced| sourced.files.as_slice()).unwrap_or_default()
    }

    /// The keys whose results serve, its own first; none while that is not known.
    pub fn serving(&self, def: &StageDef, entry: &Entry, outputs: &Outputs, is_exact: bool) -> Vec<Digest> {
        let mut keys: Vec<Digest> = self.key.into_iter().collect();
        if !keys.is_empty() && !is_exact && matches!(self.plan.numerics, Numerics::Seeded { .. }) {
            let parts = self.components(def, entry, outputs);
            keys.extend(parts.map(|parts| key::stand_ins(&parts, &self.plan.numerics)).unwrap_or_default());
        }
        keys
    }

    /// Shares the plan and the sources of another where they are equal: those of siblings of a matrix nearly always are.
    pub fn share(&mut self, other: &Self) {
        if !Arc::ptr_eq(&self.plan, &other.plan) && self.plan == other.plan {
            self.plan = Arc::clone(&other.plan);
        }
        if self.sourced == other.sourced {
            self.sourced.clone_from(&other.sourced);
        }
    }
}

fn contents_of(sourced: &Option<Arc<Sourced>>) -> &[(String, String)] {
    sourced.as_ref().map(|sourced| sourced.contents.as_slice()).unwrap_or_default()
}

impl Scope<'_> {
    /// The params of a rehearsal: each that bounds how much is done, lowered.
    fn limited(&self, mut with: Value, entry: &Entry) -> Value {
        if let Some(limit) = self.limit {
            for param in entry.params.iter().filter(|param| param.limits) {
                let given = with[&param.name].as_u64().unwrap_or(u64::MAX);
                with[&param.name] = given.min(limit).into();
            }
        }
        with
    }

    fn known(&self, def: &StageDef, entry: &Entry) -> Known {
        let is_skipped = missing_input(def, entry, self.outputs).is_some();
        self.outputs.known(def, is_skipped, self.machine, self.base, self.locks)
    }

    /// The plan of a stage of which too little is known to settle it, if its operator can tell one.
    pub fn sketch(&self, def: &StageDef, entry: &Entry) -> Option<StagePlan> {
        let known = self.known(def, entry);
        let mut with = def.with();
        self.fill(def, entry, Fills::Known, &mut with).ok()?;
        entry.plan(self.limited(with, entry), &known).ok().map(|(_, plan)| plan)
    }

    /// Puts metrics of other stages in their places. Says whether one is not known yet: what is planned meanwhile is planned
    /// with the param's default, or the least it may be.
    fn fill(&self, def: &StageDef, entry: &Entry, fills: Fills, with: &mut Value) -> Result<bool, Diagnostic> {
        let mut is_open = false;
        for fill in &def.shared.fills {
            let Some(info) = entry.param(&fill.param) else { continue };
            let record = self.outputs.record(fill.read.index as usize).filter(|_| fills == Fills::Known);
            let Some(record) = record else {
                is_open = true;
                with[&info.name] = match &info.default {
                    Some(default) => default.clone(),
                    None => (info.min.unwrap_or(1.0).ceil() as i64 + i64::from(info.above_min)).into(),
                };
                continue;
            };
            let refused = |what: String| {
                let message = format!("`{}.{}` is `{}`, {what}", def.id, info.name, fill.read.name);
                Diagnostic::new(UNFIT, message, fill.span)
                    .help("set the param to a number, or gate the stage: `when: \"STAGE.METRIC > 0\"`")
            };
            let value = record.metrics.get(&fill.read.metric).copied();
            let Some(value) = value.filter(|value| value.is_finite()) else {
                return Err(refused("which is no number".into()));
            };
            let is_whole = value.fract() == 0.0 && value.abs() < 2f64.powi(53);
            if info.kind == ParamType::Integer && !is_whole {
                return Err(refused(format!("which is {value}, no whole number")));
            }
            let below = info.min.is_some_and(|min| value < min || info.above_min && value == min);
            if below || info.max.is_some_and(|max| value > max) {
                return Err(refused(format!("which is {value}, out of the param's range")));
            }
            with[&info.name] =
                if is_whole && info.kind != ParamType::Number { (value as i64).into() } else { value.into() };
        }
        Ok(is_open)
    }

    /// # Errors
    /// What is wrong with the stage, at its places in the file.
    pub fn settle(&self, def: &StageDef, entry: &Entry, fills: Fills) -> Result<Settled, Vec<Diagnostic>> {
        let failed = |failure: Failure| vec![Diagnostic::from_failure(&failure, def)];
        let known = self.known(def, entry);
        check::kinds(def, &entry.inputs, self.outputs)?;
        let mut with = def.with();
        let is_open = self.fill(def, entry, fills, &mut with).map_err(|diagnostic| vec![diagnostic])?;
        let (params, plan) = entry.plan(self.limited(with, entry), &known).map_err(failed)?;
        check::kinds(def, &plan.inputs, self.outputs)?;
        check::training(def, &plan, self.outputs)?;
        let sourced = self.sources.read(&plan.sources).map_err(failed)?;
        let seed = def.seed().unwrap_or(self.seed);
        let key = self.outputs.reading(def).filter(|_| !is_open).map(|inputs| {
            let (inputs, sources) = (&inputs, contents_of(&sourced));
            key::digest(&key::components(&key::Subject { entry, params: &params, inputs, sources, plan: &plan, seed }))
        });
        let params = params.to_string().into_boxed_str();
        Ok(Settled { params, plan: Arc::new(plan), seed, key, sourced, is_open })
    }
}
