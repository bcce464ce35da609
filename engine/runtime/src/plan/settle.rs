//! Settles one stage from what is known now: its params without `auto`, its needs, its key.

use std::{path::Path, sync::Arc};

use llmflow_contract::{Digest, Entry, Failure, Locks, Machine, StagePlan};
use serde_json::Value;

use super::{
    check,
    key::{self, Component},
    outputs::Outputs,
    sources::Sources,
};
use crate::pipeline::{Diagnostic, StageDef};

/// What a stage is, as far as its inputs are known.
#[derive(Clone, Debug)]
pub struct Settled {
    /// As JSON text: a plan of a million stages holds them.
    params: Box<str>,
    pub plan: Arc<StagePlan>,
    pub seed: u64,
    /// Once every input's digest is known.
    pub key: Option<Digest>,
    sources: Arc<[(String, String)]>,
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
        let inputs = outputs.digests(def)?;
        let (params, sources) = (self.params(), &self.sources);
        let (plan, seed) = (&self.plan, self.seed);
        Some(key::components(&key::Subject { entry, params: &params, inputs: &inputs, sources, plan, seed }))
    }

    /// Shares a plan that equals another: siblings of a matrix nearly always do.
    pub fn share(&mut self, other: &Arc<StagePlan>) {
        if *self.plan == **other {
            self.plan = Arc::clone(other);
        }
    }
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

    /// # Errors
    /// What is wrong with the stage, at its places in the file.
    pub fn settle(&self, def: &StageDef, entry: &Entry) -> Result<Settled, Vec<Diagnostic>> {
        let failed = |failure: Failure| vec![Diagnostic::from_failure(&failure, def)];
        let known = self.outputs.known(def, self.machine, self.base, self.locks);
        check::kinds(def, &entry.inputs, self.outputs)?;
        let (params, plan) = entry.plan(self.limited(def.with(), entry), &known).map_err(failed)?;
        check::kinds(def, &plan.inputs, self.outputs)?;
        check::training(def, &plan, self.outputs)?;
        let sources = self.sources.contents(&plan.sources).map_err(failed)?;
        let seed = def.seed().unwrap_or(self.seed);
        let key = self.outputs.digests(def).map(|inputs| {
            let (inputs, sources) = (&inputs, &sources);
            key::digest(&key::components(&key::Subject { entry, params: &params, inputs, sources, plan: &plan, seed }))
        });
        let params = params.to_string().into_boxed_str();
        Ok(Settled { params, plan: Arc::new(plan), seed, key, sources: sources.into() })
    }
}
