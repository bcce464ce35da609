//! What is known of every stage's outputs so far.

use std::{path::Path, sync::Arc};

use llmflow_contract::{
    Digest, Facts, Kind, KindSet, Known, KnownInput, Locks, Machine, Port, PortSpec, StagePlan, Use,
};

use crate::{
    pipeline::{InputRef, StageDef},
    store::KeyRecord,
};

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
    /// It is skipped: nothing comes.
    Absent,
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
    pub fn skip(&mut self, stage: usize) {
        self.0[stage] = Given::Absent;
    }
    pub fn is_absent(&self, stage: usize) -> bool {
        matches!(self.0[stage], Given::Absent)
    }
    /// The record of a stage that has its result.
    pub fn record(&self, stage: usize) -> Option<&KeyRecord> {
        match &self.0[stage] {
            Given::Made(record) => Some(record),
            _ => None,
        }
    }

    /// Kind, facts and, once it is made, digest of an output.
    pub fn find(&self, input: &InputRef) -> Option<(Kind, Facts, Option<Digest>)> {
        let port = &input.port;
        match &self.0[input.index as usize] {
            Given::Unknown | Given::Declared(_) | Given::Absent => None,
            Given::Made(record) => {
                let digest = record.outputs.get(port).or_else(|| record.side.get(port))?;
                let (kind, facts) = record.facts.get(port).cloned().unwrap_or_else(|| side(port));
                Some((kind, facts, Some(*digest)))
            }
            Given::Expected { plan, is_eval } => {
                let found = plan.outputs.iter().find(|(name, ..)| name == port);
                let (kind, mut facts) =
                    found.map_or_else(|| side(port), |(_, kind, facts)| (kind.clone(), facts.clone()));
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
            Given::Unknown | Given::Declared(_) | Given::Absent => false,
            _ => self.find(input).is_some_and(|(_, facts, _)| facts.used_for == Some(Use::Eval)),
        }
    }

    /// What an operator's `plan` is told of its inputs; those of skipped stages are not there.
    pub fn known(&self, def: &StageDef, machine: &Machine, base: &Path, locks: &Arc<Locks>) -> Known {
        let inputs = def.inputs.iter().filter_map(|(port, refs)| {
            let found: Vec<KnownInput> = refs
                .iter()
                .filter_map(|input| {
                    let (kind, facts, digest) = self.find(input)?;
                    Some(KnownInput { stage: input.stage.clone(), kind, facts, digest })
                })
                .collect();
            (!found.is_empty()).then(|| (port.clone(), found))
        });
        Known { inputs: inputs.collect(), machine: machine.clone(), base: base.to_owned(), locks: locks.clone() }
    }

    /// Digests of what a stage reads, by port; None while one is not made yet.
    pub fn digests(&self, def: &StageDef) -> Option<Vec<(Port, Vec<Digest>)>> {
        let mut ports = Vec::with_capacity(def.inputs.len());
        for (port, refs) in def.inputs.iter() {
            let mut digests = Vec::with_capacity(refs.len());
            for input in refs.iter() {
                match &self.0[input.index as usize] {
                    Given::Absent => {}
                    Given::Made(record) => {
                        digests.push(*record.outputs.get(&input.port).or_else(|| record.side.get(&input.port))?);
                    }
                    Given::Unknown | Given::Declared(_) | Given::Expected { .. } => return None,
                }
            }
            if !digests.is_empty() {
                ports.push((port.clone(), digests));
            }
        }
        Some(ports)
    }
}

/// Ports that no plan names are the ones every stage has: `report` and `trace`, whose kind is their name.
fn side(port: &Port) -> (Kind, Facts) {
    (Kind::new(port.as_str()), Facts::default())
}
