//! Decides what will run, in which order, and why.
//!
//! Owns: the stage graph, port kind checks, stage keys, the reason a stage is stale.
//! Must not know: how a stage runs, where artifacts lie, how anything is printed.
//! Start at [`Plan::build`]; [`key`] explains what makes two stages the same.

mod build;
mod check;
mod forecast;
mod frozen;
pub mod key;
mod order;
mod outputs;
mod select;
mod settle;
mod sources;
mod view;
mod waiting;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
};

use llmflow_contract::{Arity, Digest, Entry, Failure, Gpus, Locks, Machine, Use};

pub use build::{Ground, PlanError};
pub use forecast::{Forecast, Rates};
pub use key::Component;
pub use outputs::{Outputs, Read, Reading};
pub use select::Selection;
pub use settle::Settled;
pub use sources::files_of;
pub use view::{Change, PlanView, StageView, Will};

use crate::{
    event::{Effort, Finished},
    pipeline::{Demand, Pipeline, StageDef},
    store::{KeyRecord, Vouched},
};

/// A pipeline whose stages are settled as far as their inputs are known.
pub struct Plan {
    pub pipeline: Pipeline,
    /// In the file's order: stages name each other by their position here.
    pub stages: Vec<Planned>,
    /// Positions in an order that runs, the file's among equals.
    pub order: Vec<u32>,
    pub machine: Machine,
    /// The pipeline file's folder, absolute: relative paths start here.
    pub base: PathBuf,
    pub outputs: Outputs,
    /// What remote sources were found to be.
    pub locks: Arc<Locks>,
    /// Whether stages must leave the network alone.
    pub is_offline: bool,
    /// Records that had to be looked up in a local store, because no earlier look at them counts.
    pub found_anew: usize,
    /// How often anything had been taken away from the store before it was looked at.
    pub removals: Option<u64>,
    /// How fast operators went, if there are stages that never ran.
    pub rates: Rates,
}

/// One stage of a plan.
pub struct Planned {
    pub def: StageDef,
    pub entry: Arc<Entry>,
    pub settled: Settled,
    /// Positions of the stages it waits for: data, `when`, `after`.
    pub needs: Box<[u32]>,
    pub standing: Standing,
    /// Asked to run although its result may be there.
    pub forced: bool,
    /// Its last success, if it has no result now: for changes and times.
    pub last: Option<Box<LastSuccess>>,
    /// How its last try ended, if it never succeeded and was tried.
    pub tried: Option<Tried>,
}

/// How a try ended that came to no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    Failed,
    Interrupted,
}

impl Tried {
    /// Of a stage with this status in the history.
    pub fn of(status: &str) -> Self {
        if status == "failed" { Self::Failed } else { Self::Interrupted }
    }
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why a stage that `--only` or `--from` leaves out is skipped.
pub(crate) const NOT_ASKED_FOR: &str = "not asked for";

/// Whether a stage has its result already.
#[derive(Clone, Debug)]
pub enum Standing {
    /// A record with this key stands. Nothing will run.
    Cached(Arc<KeyRecord>),
    /// The key is known and has no record, or the stage is to run whatever there is: why.
    Run(Option<Cow<'static, str>>),
    /// An input's digest is not known yet.
    Waits,
    /// Its `when` reads metrics that are not known yet.
    Gate,
    /// It will not run.
    Skipped { because: String },
}

impl Standing {
    /// Is it a stage that nobody asked for (`--only`, `--from`)?
    pub fn is_left_out(&self) -> bool {
        matches!(self, Self::Skipped { because } if because == NOT_ASKED_FOR)
    }
}

/// The last time a stage of this pipeline succeeded.
#[derive(Clone, Debug)]
pub struct LastSuccess {
    pub components: Vec<Component>,
    pub seconds: f64,
    pub effort: Option<Effort>,
}

impl Planned {
    /// Is the stage to run although a result may be there?
    pub fn is_forced(&self) -> bool {
        self.forced || !self.def.shared.is_cached
    }
    /// Whether nothing will be done for it.
    pub fn is_settled(&self) -> bool {
        matches!(self.standing, Standing::Cached(_) | Standing::Skipped { .. })
    }
    /// What it asks for: a number in `resources` is a demand, `auto` what its operator will need.
    pub fn memory_bytes(&self) -> u64 {
        match self.def.resources().memory_bytes {
            Demand::Exactly(bytes) => bytes,
            Demand::Auto => self.settled.plan.needs.memory_bytes,
        }
    }
    /// What it asks for: a number in `resources` is a demand, `auto` what its operator can use here.
    pub fn gpus(&self) -> Gpus {
        let needs = self.settled.plan.needs.gpus;
        match self.def.resources().gpus {
            Demand::Exactly(count) => Gpus { min: count, max: count, ..needs },
            Demand::Auto => needs,
        }
    }

    /// A required input that will not come, because its stage is skipped.
    fn missing_input(&self, outputs: &Outputs) -> Option<usize> {
        missing_input(&self.def, &self.entry, outputs)
    }
}

fn missing_input(def: &StageDef, entry: &Entry, outputs: &Outputs) -> Option<usize> {
    let mut fills = def.shared.fills.iter().map(|fill| fill.read.index as usize);
    if let Some(missing) = fills.find(|index| outputs.is_absent(*index)) {
        return Some(missing);
    }
    def.inputs.iter().find_map(|(port, refs)| {
        let spec = entry.inputs.iter().find(|spec| spec.port == *port);
        if spec.is_some_and(|spec| spec.arity == Arity::Optional) {
            return None;
        }
        let absent = |input: &&crate::pipeline::InputRef| outputs.is_absent(input.index as usize);
        let is_empty = refs.iter().all(|input| outputs.is_absent(input.index as usize));
        refs.iter().find(absent).filter(|_| is_empty).map(|input| input.index as usize)
    })
}

impl Plan {
    /// Is there anything that has no result yet?
    pub fn has_work(&self) -> bool {
        self.stages.iter().any(|stage| !stage.is_settled())
    }

    /// Does a stage that has no result yet ask for GPUs?
    pub fn wants_gpus(&self) -> bool {
        self.stages.iter().any(|stage| !stage.is_settled() && stage.gpus().max > 0)
    }

    /// How many GPUs stages that have no result yet do not run without, all of them together.
    pub fn asked_gpus(&self) -> u32 {
        let asked = self.stages.iter().filter(|stage| !stage.is_settled()).map(|stage| stage.gpus().min);
        asked.fold(0, u32::saturating_add)
    }

    /// The records of all stages that have their result by now.
    pub fn records(&self) -> impl Iterator<Item = &KeyRecord> {
        (0..self.stages.len()).filter_map(|index| self.outputs.record(index))
    }

    /// The parts of the key of a stage's result, or of the one it is going to have.
    pub fn told_components(&self, index: usize) -> Option<Vec<Component>> {
        match &self.stages[index].standing {
            Standing::Cached(record) if self.stages[index].settled.key != Some(record.key) => {
                Some(record.components.clone())
            }
            _ => self.components(index),
        }
    }

    /// How the key that a frozen stage would have differs from that of the result it keeps; none where its own is not known.
    pub fn outgrown(&self, index: usize) -> Option<Vec<Change>> {
        let stage = &self.stages[index];
        let Standing::Cached(record) = &stage.standing else { return None };
        let parts = stage.settled.key.filter(|_| stage.def.shared.is_frozen).and_then(|_| self.components(index))?;
        Some(self.differences(stage, &record.components, &parts))
    }

    /// The device that a stage's result was computed on, where this run would take another.
    fn other_device(&self, index: usize) -> Option<String> {
        let settled = &self.stages[index].settled;
        let Standing::Cached(record) = &self.stages[index].standing else { return None };
        match settled.key {
            Some(key) if key != record.key => key::other_device(&record.components, &settled.plan.numerics),
            _ => None,
        }
    }

    /// The parts of a stage's key, once every input's digest is known.
    pub fn components(&self, index: usize) -> Option<Vec<Component>> {
        let stage = &self.stages[index];
        stage.settled.components(&stage.def, &stage.entry, &self.outputs)
    }

    /// The keys whose results serve a stage, its own first; none while that is not known.
    pub fn serving(&self, index: usize, is_exact: bool) -> Vec<Digest> {
        let stage = &self.stages[index];
        stage.settled.serving(&stage.def, &stage.entry, &self.outputs, is_exact)
    }

    /// The parts of a key that differ from the stage's last success, with where each value comes from.
    pub fn reasons(&self, stage: &Planned, parts: &[Component]) -> Vec<Change> {
        stage.last.as_ref().map(|last| self.differences(stage, &last.components, parts)).unwrap_or_default()
    }

    fn differences(&self, stage: &Planned, before: &[Component], now: &[Component]) -> Vec<Change> {
        let mut changes = key::changes(before, now);
        for change in &mut changes {
            key::fill_default(change, &stage.entry);
            let Some(name) = change.part.strip_prefix("with.") else { continue };
            let (before, now) =
                (change.before.as_deref().unwrap_or_default(), change.now.as_deref().unwrap_or_default());
            change.origin = stage.def.told_origin_of_change(name, before, now, &self.pipeline.source);
        }
        changes
    }

    /// Settles a stage again, now that what it reads is known.
    ///
    /// # Errors
    /// What is wrong with it: class `input`.
    pub fn settle_ready(&mut self, index: usize, vouched: &Vouched) -> Result<(), Failure> {
        let stage = &self.stages[index];
        let sources = sources::Sources::new(vouched);
        let scope = settle::Scope {
            machine: &self.machine,
            base: &self.base,
            seed: self.pipeline.seed,
            sources: &sources,
            outputs: &self.outputs,
            locks: &self.locks,
            limit: self.pipeline.overrides.limit,
        };
        let mut settled = scope.settle(&stage.def, &stage.entry, settle::Fills::Known).map_err(|found| {
            let Some(first) = found.into_iter().next() else {
                return Failure::bug("a stage was refused for no reason");
            };
            let mut failure = Failure::input("plan/refused", first.message);
            failure.help = first.help;
            failure.at = first.span.map(|span| self.pipeline.source.place(span));
            failure
        })?;
        settled.share(&stage.settled);
        self.stages[index].settled = settled;
        Ok(())
    }

    /// Do rows that may never reach training go into this stage's outputs?
    pub fn marks_eval(&self, index: usize) -> bool {
        let stage = &self.stages[index];
        let plan = &stage.settled.plan;
        let is_own = plan.outputs.iter().any(|(_, _, facts)| facts.used_for == Some(Use::Eval));
        is_own || build::takes_eval_rows(&stage.def, plan, &self.outputs)
    }

    /// What is expected of a stage, should it run.
    pub fn forecast(&self, index: usize) -> Forecast {
        Forecast::of(&self.stages[index], &self.rates)
    }

    /// Does a stage's `when` hold, and on which values? None while a metric that it reads is not known.
    pub fn when_holds(&self, index: usize) -> Option<Result<(), String>> {
        let when = self.stages[index].def.when.as_ref()?;
        build::evaluate(when, &self.outputs)
    }

    /// A required input of a stage that will not come: the stage that was to give it.
    pub fn missing_input(&self, index: usize) -> Option<usize> {
        self.stages[index].missing_input(&self.outputs)
    }
}

impl Plan {
    /// The first `require` of a stage that its result does not meet, and why. A rehearsal is judged by none: it goes through
    /// every stage.
    pub(crate) fn refusal(&self, stage: &Planned, record: &KeyRecord) -> Option<(String, String)> {
        unmet(stage, record).filter(|_| self.pipeline.overrides.limit.is_none())
    }
}

/// The first `require` of a stage that its result does not meet, and why.
pub(crate) fn unmet(stage: &Planned, record: &KeyRecord) -> Option<(String, String)> {
    let value = |name: &str| record.metrics.get(name).copied();
    stage.def.shared.require.iter().find_map(|require| match require.expr.evaluate(&value) {
        Ok(true) => None,
        Ok(false) => Some((require.expr.text().to_owned(), require.expr.explain(&value))),
        Err(why) => Some((require.expr.text().to_owned(), why)),
    })
}

/// A record as an event shows it.
pub fn finished(record: &KeyRecord) -> Finished {
    Finished {
        key: Some(record.key),
        outputs: record.outputs.iter().chain(&record.side).map(|(port, digest)| (port.clone(), *digest)).collect(),
        metrics: record.metrics.clone(),
        summary: record.summary.clone(),
        seconds: record.seconds,
        effort: record.effort,
    }
}

/// The folder of a pipeline file, absolute; a folder that is not there stays as it is and fails where it is read.
pub fn absolute(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}
