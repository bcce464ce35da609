//! What the engine learns of a stage before anything runs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Facts, Inputs, Kind, Locked, Locks, Machine, Needs, Operator, Outputs, Port, PortSpec, Remote, StageId,
};

/// What is known when a stage is planned, and again when it is ready.
#[derive(Clone, Debug)]
pub struct Known {
    pub inputs: BTreeMap<Port, Vec<KnownInput>>,
    pub machine: Machine,
    /// The pipeline file's folder: relative paths start here.
    pub base: PathBuf,
    /// What remote sources were found to be.
    pub locks: Arc<Locks>,
}

/// One artifact to come: its kind is certain, its facts and digest when the stage before has run.
#[derive(Clone, Debug)]
pub struct KnownInput {
    pub stage: StageId,
    /// The name it goes by where the pipeline gives its port a map, `in: {data: {code: a, talk: b}}`, for operators that tell
    /// inputs apart by name.
    pub label: Option<String>,
    pub kind: Kind,
    pub facts: Facts,
    pub digest: Option<Digest>,
}

impl Known {
    /// The first artifact of a port.
    pub fn input(&self, port: &str) -> Option<&KnownInput> {
        self.inputs.get(port)?.first()
    }
    pub fn facts(&self, port: &str) -> Facts {
        self.input(port).map(|input| input.facts.clone()).unwrap_or_default()
    }
    /// The rows of a port together, if all are known.
    pub fn rows(&self, port: &str) -> Option<u64> {
        self.inputs.get(port)?.iter().map(|input| input.facts.rows).sum()
    }
    /// What a remote source was found to be. None: `check` asks no network, and the source is in no lock yet.
    pub fn locked(&self, remote: &Remote) -> Option<&Locked> {
        self.locks.get(&remote.source).filter(|locked| locked.selected.contains(&remote.select))
    }
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }
}

/// A metric that a stage reports, so that a gate on an unknown one is an error at `check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricSpec {
    pub name: String,
    pub doc: String,
}

impl MetricSpec {
    pub fn new(name: impl Into<String>, doc: impl Into<String>) -> Self {
        Self { name: name.into(), doc: doc.into() }
    }
}

/// Something read from outside the pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A local file (a folder: every file in it, by name): enters the key by its content, and by `name` where the output shows it.
    File { param: String, path: PathBuf, name: Option<String> },
    /// Something remote, fixed by a digest or a revision.
    Pinned { param: String, pin: String },
}

/// Whether equal keys give equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numerics {
    /// On every machine.
    Exact,
    /// On machines that compute on such a device, in numbers of this type: `f32`.
    Seeded { device: Device, dtype: String },
    /// Never promised.
    Stochastic,
}

/// What a stage computes on, as far as it shows in its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    Cpu,
    Cuda,
}

impl Device {
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Cuda];

    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl Numerics {
    /// The numerics class as a key names it: `cpu/f32`. None where all machines give the same.
    pub fn class(&self) -> Option<String> {
        match self {
            Self::Exact => None,
            Self::Seeded { device, dtype } => Some(format!("{}/{dtype}", device.name())),
            Self::Stochastic => Some("stochastic".into()),
        }
    }

    /// The classes whose results serve where there is none of this one.
    pub fn stand_ins(&self) -> Vec<Self> {
        let Self::Seeded { device: own, dtype } = self else { return Vec::new() };
        let others = Device::ALL.into_iter().filter(|device| device != own);
        others.map(|device| Self::Seeded { device, dtype: dtype.clone() }).collect()
    }
}

/// All that the planner must know of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StagePlan {
    pub inputs: Vec<PortSpec>,
    /// Port, kind and the facts already certain, main output first.
    pub outputs: Vec<(Port, Kind, Facts)>,
    pub metrics: Vec<MetricSpec>,
    pub sources: Vec<Source>,
    pub needs: Needs,
    /// Is the seed in the key?
    pub seeded: bool,
    pub numerics: Numerics,
    /// Do the bytes up to a step depend on no param of role horizon? Then a state saved by a stage that goes less far serves
    /// one that goes further.
    pub extends: bool,
    /// Inputs whose rows become rows of the outputs: the `eval` mark follows these alone.
    pub rows_from: Vec<Port>,
    /// Inputs that a model learns from: the graph refuses rows marked `eval` here.
    pub trains_on: Vec<Port>,
}

impl StagePlan {
    /// A plan of these ports: exact, unseeded, no sources, modest needs.
    pub fn new(inputs: Vec<PortSpec>, outputs: Vec<(Port, Kind, Facts)>) -> Self {
        Self {
            inputs,
            outputs,
            metrics: Vec::new(),
            sources: Vec::new(),
            needs: Needs::default(),
            seeded: false,
            numerics: Numerics::Exact,
            extends: false,
            rows_from: Vec::new(),
            trains_on: Vec::new(),
        }
    }

    /// The plan that an operator's types imply: its declared ports.
    pub fn derived<O: Operator>() -> Self {
        let outputs = O::Outputs::specs().into_iter().map(|spec| {
            let kind = spec.accepts.to_string();
            let first = kind.split(" | ").next().unwrap_or_default().to_owned();
            (spec.port, Kind::new(first), Facts::default())
        });
        Self::new(O::Inputs::specs(), outputs.collect())
    }

    /// Sets the kind and facts of one output.
    pub fn output(mut self, port: &str, kind: Kind, facts: Facts) -> Self {
        for output in &mut self.outputs {
            if output.0.as_str() == port {
                (output.1, output.2) = (kind.clone(), facts.clone());
            }
        }
        self
    }
    pub fn metric(mut self, name: impl Into<String>, doc: impl Into<String>) -> Self {
        self.metrics.push(MetricSpec::new(name, doc));
        self
    }
    pub fn source(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }
    pub fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }
    pub fn seeded(mut self) -> Self {
        self.seeded = true;
        self
    }
    pub fn numerics(mut self, numerics: Numerics) -> Self {
        self.numerics = numerics;
        self
    }
    pub fn extends(mut self, extends: bool) -> Self {
        self.extends = extends;
        self
    }
    pub fn rows_from(mut self, ports: &[&str]) -> Self {
        self.rows_from = ports.iter().map(|port| Port::from(*port)).collect();
        self
    }
    pub fn trains_on(mut self, ports: &[&str]) -> Self {
        self.trains_on = ports.iter().map(|port| Port::from(*port)).collect();
        self
    }
}
