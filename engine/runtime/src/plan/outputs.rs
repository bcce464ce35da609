//! What is known of every stage's outputs so far.

use std::{path::Path, sync::Arc};

use llmflow_contract::{
    Digest, Facts, Kind, KindSet, Known, KnownInput, Locks, Machine, Port, PortSpec, StagePlan, Use,
};
use serde::{Deserialize, Serialize};

use super::key::{self, Component};
use crate::{
    pipeline::{InputRef, StageDef},
    store::KeyRecord,
};

/// One artifact that a port reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    pub digest: Digest,
    /// The name it goes by where the file gives the port a map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// What a stage reads, by port.
pub type Reading = Vec<(Port, Vec<Read>)>;

/// Outputs by the position of their stage.
#[derive(Clone, Debug, Default)]
pub struct Outputs(Vec<Given>);

#[derive(Clone, Debug, Default)]
enum Given {
    /// Not planned yet.
    #[default]
    Unknown,
    /// Its stage is reported: what its operator gives, as far as that is always so.
    Declared(Box<[PortSpec]>),
    /// What a stage is going to give.
    Expected { plan: Arc<StagePlan>, is_eval: bool },
    /// What it gave.
    Made(Arc<KeyRecord>),
    /// It is skipped: nothing comes of what it was going to give.
    Absent(Arc<StagePlan>),
}

impl Outputs {
    pub fn of(stages: usize) -> Self {
        Self(vec![Given::Unknown; stages])
    }
    /// What a finished stage gave.
    pub fn learn(&mut self, stage: usize, record: Arc<KeyRecord>) {
        self.0[stage] = Given::Made(record);
    }
    /// What a stage is going to give; `is_eval`: its rows may never reach training.
    pub fn expect(&mut self, stage: usize, plan: Arc<StagePlan>, is_eval: bool) {
        self.0[stage] = Given::Expected { plan, is_eval };
    }
    /// A stage that cannot be planned, and is reported.
    pub fn declare(&mut self, stage: usize, outputs: &[PortSpec]) {
        self.0[stage] = Given::Declared(outputs.into());
    }
    /// The kinds that an output of a reported stage may have.
    pub fn declared(&self, input: &InputRef) -> Option<&KindSet> {
        let Given::Declared(outputs) = &self.0[input.index as usize] else { return None };
        outputs.iter().find(|spec| spec.port == input.port).map(|spec| &spec.accepts)
    }
    pub fn is_reported(&self, stage: usize) -> bool {
        matches!(self.0[stage], Given::Declared(_) | Given::Unknown)
    }
    /// A stage that gives nothing of its plan.
    pub fn skip(&mut self, stage: usize, plan: Arc<StagePlan>) {
        self.0[stage] = Given::Absent(plan);
    }
    pub fn is_absent(&self, stage: usize) -> bool {
        matches!(self.0[stage], Given::Absent(_))
    }
    /// The record of a stage that has its result.
    pub fn record(&self, stage: usize) -> Option<&KeyRecord> {
        match &self.0[stage] {
            Given::Made(record) => Some(record),
            _ => None,
        }
    }

    /// Kind, facts and, once it is made, digest of an output. One that will not come has the kind it would have had.
    pub fn find(&self, input: &InputRef) -> Option<(Kind, Facts, Option<Digest>)> {
        let port = &input.port;
        match &self.0[input.index as usize] {
            Given::Unknown | Given::Declared(_) => None,
            Given::Absent(plan) => Some(planned(plan, port)).map(|(kind, facts)| (kind, facts, None)),
            Given::Made(record) => {
                let digest = record.outputs.get(port).or_else(|| record.side.get(port))?;
                let (kind, facts) = record.facts.get(port).cloned().unwrap_or_else(|| side(port));
                Some((kind, facts, Some(*digest)))
            }
            Given::Expected { plan, is_eval } => {
                let (kind, mut facts) = planned(plan, port);
                if *is_eval && kind.is_dataset() {
                    facts.used_for = Some(Use::Eval);
                }
                Some((kind, facts, None))
            }
        }
    }

    /// Is this output marked as rows that may never reach training?
    pub fn is_eval(&self, input: &InputRef) -> bool {
        match &self.0[input.index as usize] {
            Given::Unknown | Given::Declared(_) | Given::Absent(_) => false,
            _ => self.find(input).is_some_and(|(_, facts, _)| facts.used_for == Some(Use::Eval)),
        }
    }

    /// What an operator's `plan` is told of its inputs. Those of skipped stages are not there, unless the stage `is_skipped`
    /// for them: then nothing of its plan will be done, and all of it is checked.
    pub fn known(&self, def: &StageDef, is_skipped: bool, machine: &Machine, base: &Path, locks: &Arc<Locks>) -> Known {
        let inputs = def.inputs.iter().filter_map(|(port, refs)| {
            let found: Vec<KnownInput> = refs
                .iter()
                .filter(|input| is_skipped || !self.is_absent(input.index as usize))
                .filter_map(|input| {
                    let (kind, facts, digest) = self.find(input)?;
                    let label = input.label.as_deref().map(str::to_owned);
                    Some(KnownInput { stage: input.stage.clone(), label, kind, facts, digest })
                })
                .collect();
            (!found.is_empty()).then(|| (port.clone(), found))
        });
        Known { inputs: inputs.collect(), machine: machine.clone(), base: base.to_owned(), locks: locks.clone() }
    }

    /// What a stage reads; None while one of it is not made yet.
    pub fn reading(&self, def: &StageDef) -> Option<Reading> {
        let mut ports = Vec::with_capacity(def.inputs.len());
        for (port, refs) in def.inputs.iter() {
            let reads = self.reads(refs)?;
            if !reads.is_empty() {
                ports.push((port.clone(), reads));
            }
        }
        Some(ports)
    }

    /// What one port reads; None while one of it is not made yet.
    fn reads(&self, refs: &[InputRef]) -> Option<Vec<Read>> {
        let mut reads = Vec::with_capacity(refs.len());
        for input in refs {
            match &self.0[input.index as usize] {
                Given::Absent(_) => {}
                Given::Made(record) => {
                    let digest = *record.outputs.get(&input.port).or_else(|| record.side.get(&input.port))?;
                    reads.push(Read { digest, label: input.label.as_deref().map(str::to_owned) });
                }
                Given::Unknown | Given::Declared(_) | Given::Expected { .. } => return None,
            }
        }
        Some(reads)
    }

    /// What a stage reads; of ports that are not made yet what the parts of an earlier key name.
    pub fn reading_as(&self, def: &StageDef, before: &[Component]) -> Reading {
        let mut ports = Vec::with_capacity(def.inputs.len());
        for (port, refs) in def.inputs.iter() {
            let reads = self.reads(refs).unwrap_or_else(|| {
                let labelled = refs.chunk_by(|a, b| a.label == b.label).map(|refs| refs[0].label.as_deref());
                let read = |label: Option<&str>| {
                    let label_of = label.map(str::to_owned);
                    let digests = key::digests_at(before, port, label).into_iter();
                    digests.map(move |digest| Read { digest, label: label_of.clone() })
                };
                labelled.flat_map(read).collect()
            });
            if !reads.is_empty() {
                ports.push((port.clone(), reads));
            }
        }
        ports
    }
}

/// What a plan says of an output.
fn planned(plan: &StagePlan, port: &Port) -> (Kind, Facts) {
    let found = plan.outputs.iter().find(|(name, ..)| name == port);
    found.map_or_else(|| side(port), |(_, kind, facts)| (kind.clone(), facts.clone()))
}

/// Ports that no plan names are the ones every stage has: `report` and `trace`, whose kind is their name.
fn side(port: &Port) -> (Kind, Facts) {
    (Kind::new(port.as_str()), Facts::default())
}
