//! Building a plan: stages are settled wave by wave, each wave on all cores.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::FutureExt;
use llmflow_contract::{Digest, Entry, Failure, Locks, Machine, Registry, StageId, StagePlan};
use rayon::prelude::*;

use super::{
    Plan, Planned, Rates, Standing, absolute, check, frozen, missing_input,
    order::{Order, order},
    outputs::Outputs,
    select::{Chosen, Selection},
    settle::{self, Fills, Scope, Settled},
    sources::Sources,
};
use crate::{
    lineage::Lineage,
    pipeline::{Diagnostic, Diagnostics, Loaded, Pipeline, StageDef, When},
    remote::Remotes,
    store::{KeyRecord, Stood, Store},
};

/// Stages of a wave that are settled at once: the first of a matrix hold a plan each until they are put together, all others
/// share that from the start.
const AT_ONCE: usize = 1024;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{0}")]
    Bad(Diagnostics),
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// One stage, as far as a wave has come with it.
enum Step {
    /// It, or something it needs, is unsound and reported.
    Broken(Vec<Diagnostic>),
    Settled(Settled, Standing),
}

/// What a plan is made from, besides the file.
pub struct Ground<'a> {
    pub registry: &'a Registry,
    pub store: &'a Store,
    /// What stood there at the last look.
    pub stood: &'a mut Stood,
    /// For times and reasons; a check has none.
    pub lineage: Option<&'a Lineage>,
    pub machine: Machine,
}

impl Plan {
    /// Checks the whole file and says what will run.
    ///
    /// # Errors
    /// Every mistake in the file at once.
    pub async fn build(
        loaded: Loaded,
        selection: &Selection,
        ground: Ground<'_>,
        remotes: &mut Remotes,
    ) -> Result<Self, PlanError> {
        let Ground { registry, store, stood, lineage, machine } = ground;
        let Loaded { pipeline, stages: defs, mut diagnostics } = loaded;
        let order = order(&defs);
        let chosen = match selection.choose(&defs, &order.needs, &order.topological) {
            Ok(chosen) => chosen,
            Err(found) => {
                found.into_iter().for_each(|diagnostic| diagnostics.push(diagnostic));
                return Err(PlanError::Bad(diagnostics));
            }
        };
        remotes.resolve(&defs, registry, &mut diagnostics).await?;
        let locks = remotes.locks();
        let sources = Sources::new(store.vouched());
        let base = absolute(pipeline.source.base());
        let removals = store.removals();
        let frozen = frozen::records(&defs, &pipeline, store, lineage).await?;
        let site = Site {
            pipeline: &pipeline,
            store,
            machine: &machine,
            base: &base,
            sources: &sources,
            locks: &locks,
            frozen,
            stood: stood.wait(store),
            found_anew: AtomicUsize::new(0),
        };
        let (stages, outputs) = site.plan(defs, &order, &chosen, registry, &mut diagnostics).await?;
        let stages: Option<Vec<Planned>> = stages.into_iter().collect();
        let stages = stages.unwrap_or_default(); // one that is not there was reported
        check::published(&pipeline, &stages, &base, &mut diagnostics);
        check::published_rows(&pipeline, &stages, &mut diagnostics);
        if !diagnostics.is_empty() {
            return Err(PlanError::Bad(diagnostics));
        }
        let found_anew = site.found_anew.load(Ordering::Relaxed);
        let mut plan = Self {
            pipeline,
            stages,
            order: order.topological,
            machine,
            base,
            outputs,
            locks,
            is_offline: remotes.is_offline(),
            found_anew,
            removals,
            rates: Rates::default(),
        };
        if let Some(lineage) = lineage {
            plan.recall(lineage).await?;
        }
        Ok(plan)
    }

    /// Looks up the last success of every stage that has no result now.
    async fn recall(&mut self, lineage: &Lineage) -> Result<(), Failure> {
        let wanted: Vec<&StageId> =
            self.stages.iter().filter(|stage| !stage.is_settled()).map(|stage| &stage.def.id).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut found = lineage.last_successes(&self.pipeline.name, self.pipeline.overrides.limit, &wanted).await?;
        for stage in &mut self.stages {
            stage.last = found.remove(&stage.def.id).map(Box::new);
        }
        let new: Vec<&StageId> = self
            .stages
            .iter()
            .filter(|stage| !stage.is_settled() && stage.last.is_none())
            .map(|stage| &stage.def.id)
            .collect();
        if !new.is_empty() {
            self.rates = lineage.rates().await?;
            let mut tried = lineage.last_tries(&self.pipeline.name, self.pipeline.overrides.limit, &new).await?;
            for stage in &mut self.stages {
                stage.tried = tried.remove(&stage.def.id);
            }
        }
        Ok(())
    }
}

/// Where a plan is made.
struct Site<'a> {
    pipeline: &'a Pipeline,
    store: &'a Store,
    machine: &'a Machine,
    base: &'a Path,
    sources: &'a Sources<'a>,
    locks: &'a Arc<Locks>,
    /// Results of frozen stages.
    frozen: HashMap<StageId, Arc<KeyRecord>>,
    /// Records that need no look, by key.
    stood: HashMap<Digest, Arc<KeyRecord>>,
    /// Records that were looked up.
    found_anew: AtomicUsize,
}

impl Site<'_> {
    async fn plan(
        &self,
        defs: Vec<StageDef>,
        order: &Order,
        chosen: &Chosen,
        registry: &Registry,
        diagnostics: &mut Diagnostics,
    ) -> Result<(Vec<Option<Planned>>, Outputs), Failure> {
        let mut entries: HashMap<String, Arc<Entry>> = HashMap::new();
        for def in &defs {
            if !entries.contains_key(&def.shared.op)
                && let Some(entry) = registry.find(&def.shared.op)
            {
                entries.insert(def.shared.op.clone(), Arc::new(entry.clone()));
            }
        }
        let mut outputs = Outputs::of(defs.len());
        let mut siblings: HashMap<usize, Settled> = HashMap::new(); // by where what they have in common lies
        let group_of = |def: &StageDef| Arc::as_ptr(&def.shared).addr();
        let mut stages: Vec<Option<Planned>> = (0..defs.len()).map(|_| None).collect();
        let mut defs: Vec<Option<StageDef>> = defs.into_iter().map(Some).collect();
        for wave in order.waves.iter().flat_map(|wave| wave.chunks(AT_ONCE)) {
            let steps: Vec<Result<Step, Failure>> = wave
                .par_iter()
                .map(|index| {
                    let index = *index as usize;
                    let def = defs[index].as_ref().filter(|def| def.sound);
                    let entry = def.and_then(|def| entries.get(&def.shared.op));
                    let is_whole = order.needs[index].iter().all(|need| stages[*need as usize].is_some());
                    match (def, entry) {
                        (Some(def), Some(entry)) if is_whole => {
                            let mut step = self.step(index, def, entry, &outputs, chosen)?;
                            // Here: what is given up is freed by who made it.
                            if let (Step::Settled(settled, _), Some(sibling)) =
                                (&mut step, siblings.get(&group_of(def)))
                            {
                                settled.share(sibling);
                            }
                            Ok(step)
                        }
                        (Some(def), Some(entry)) => {
                            let plan = || self.scope(&outputs).sketch(def, entry);
                            Ok(Step::Broken(check::beside_reported(def, entry, &outputs, plan)))
                        }
                        _ => Ok(Step::Broken(Vec::new())),
                    }
                })
                .collect();
            for (index, step) in wave.iter().map(|index| *index as usize).zip(steps) {
                let (mut settled, mut standing) = match step? {
                    Step::Settled(settled, standing) => (settled, standing),
                    Step::Broken(found) => {
                        found.into_iter().for_each(|diagnostic| diagnostics.push(diagnostic));
                        let def = defs[index].as_ref();
                        if let Some(entry) = def.and_then(|def| entries.get(&def.shared.op)) {
                            outputs.declare(index, &entry.outputs);
                        }
                        continue;
                    }
                };
                let Some(def) = defs[index].take() else { continue };
                let entry = entries[&def.shared.op].clone();
                settled.share(siblings.entry(group_of(&def)).or_insert_with(|| settled.clone()));
                if let (Standing::Run(None), None) = (&standing, self.store.local()) {
                    // Elsewhere: asked one after the other, from here.
                    standing = found(
                        self.store.first_record(&settled.serving(&def, &entry, &outputs, chosen.is_exact)).await?,
                    );
                }
                match &standing {
                    Standing::Cached(record) => outputs.learn(index, record.clone()),
                    Standing::Skipped { .. } => outputs.skip(index, settled.plan.clone()),
                    _ => {
                        let is_eval = takes_eval_rows(&def, &settled.plan, &outputs);
                        outputs.expect(index, settled.plan.clone(), is_eval);
                    }
                }
                let needs = order.needs[index].clone();
                let forced = chosen.forced[index];
                let planned = Planned { def, entry, settled, needs, standing, forced, last: None, tried: None };
                check::metrics(&planned, &stages, diagnostics);
                stages[index] = Some(planned);
            }
        }
        Ok((stages, outputs))
    }

    fn scope<'s>(&'s self, outputs: &'s Outputs) -> Scope<'s> {
        Scope {
            machine: self.machine,
            base: self.base,
            seed: self.pipeline.seed,
            sources: self.sources,
            outputs,
            locks: self.locks,
            limit: self.pipeline.overrides.limit,
        }
    }

    /// Settles one stage and looks its key up where that takes no waiting.
    fn step(
        &self,
        index: usize,
        def: &StageDef,
        entry: &Entry,
        outputs: &Outputs,
        chosen: &Chosen,
    ) -> Result<Step, Failure> {
        let scope = self.scope(outputs);
        let frozen = self.frozen.get(&def.id).filter(|record| record.is_of(entry) && !chosen.forced[index]);
        let (settled, unfit) = match (scope.settle(def, entry, Fills::Known), frozen) {
            (Ok(settled), _) => (settled, None),
            // What it was made from may be gone.
            (Err(_), Some(record)) => (Settled::frozen(def, entry, record, self.pipeline.seed), None),
            // A metric that fits no param fails its stage, if that runs at all, and nothing else.
            (Err(found), None) => match found.iter().find(|one| one.code == settle::UNFIT) {
                Some(unfit) => match scope.settle(def, entry, Fills::Open) {
                    Ok(settled) => (settled, Some(unfit.message.clone())),
                    Err(found) => return Ok(Step::Broken(found)),
                },
                None => return Ok(Step::Broken(found)),
            },
        };
        let standing = match (self.standing(index, def, entry, &settled, outputs, chosen)?, unfit) {
            (Standing::Waits | Standing::Run(_), Some(unfit)) => {
                Standing::Run(Some(format!("will fail: {unfit}").into()))
            }
            (standing, _) => standing,
        };
        Ok(Step::Settled(settled, standing))
    }

    fn standing(
        &self,
        index: usize,
        def: &StageDef,
        entry: &Entry,
        settled: &Settled,
        outputs: &Outputs,
        chosen: &Chosen,
    ) -> Result<Standing, Failure> {
        if !chosen.wanted[index] {
            return Ok(Standing::Skipped { because: super::NOT_ASKED_FOR.to_owned() });
        }
        if let Some(missing) = missing_input(def, entry, outputs) {
            let inputs = def.inputs.iter().flat_map(|(_, refs)| refs.iter().map(|input| (input.index, &input.stage)));
            let fills = def.shared.fills.iter().map(|fill| (fill.read.index, &fill.read.stage));
            let name = inputs.chain(fills).find(|(index, _)| *index as usize == missing);
            let name = name.map(|(_, stage)| stage.as_str()).unwrap_or_default();
            return Ok(Standing::Skipped { because: format!("`{name}` is skipped") });
        }
        if let Some(when) = &def.when {
            match evaluate(when, outputs) {
                None => return Ok(Standing::Gate),
                Some(Err(because)) => return Ok(Standing::Skipped { because }),
                Some(Ok(())) => {}
            }
        }
        let gives = |record: &&Arc<KeyRecord>| {
            settled.plan.outputs.iter().all(|(port, ..)| record.outputs.contains_key(port)) && record.is_of(entry)
        };
        if let Some(record) = self.frozen.get(&def.id).filter(gives).filter(|_| !chosen.forced[index]) {
            return Ok(Standing::Cached(record.clone()));
        }
        if chosen.forced[index] {
            return Ok(Standing::Run(Some("--force".into())));
        }
        if !def.shared.is_cached {
            return Ok(Standing::Run(Some("cache: false".into())));
        }
        if settled.key.is_none() {
            return Ok(Standing::Waits);
        }
        if let Some(record) = settled.key.and_then(|key| self.stood.get(&key)) {
            return Ok(Standing::Cached(record.clone()));
        }
        match self.store.local() {
            Some(_) => {
                let keys = settled.serving(def, entry, outputs, chosen.is_exact);
                let looked = self.store.first_record(&keys).now_or_never(); // a folder answers at once
                let looked = looked.unwrap_or_else(|| Err(Failure::bug("a local store made a plan wait")))?;
                self.found_anew.fetch_add(usize::from(looked.is_some()), Ordering::Relaxed);
                Ok(found(looked))
            }
            None => Ok(Standing::Run(None)),
        }
    }
}

fn found(record: Option<KeyRecord>) -> Standing {
    record.map_or(Standing::Run(None), |record| Standing::Cached(Arc::new(record)))
}

/// Does a condition hold? None while a metric that it reads is not known; what is false says why.
pub(super) fn evaluate(when: &When, outputs: &Outputs) -> Option<Result<(), String>> {
    let mut is_open = false;
    let metric = |name: &str| {
        let read = when.reads.iter().find(|read| read.name == name)?;
        outputs.record(read.index as usize)?.metrics.get(&read.metric).copied()
    };
    for read in &when.reads {
        let index = read.index as usize;
        if outputs.is_absent(index) {
            return Some(Err(format!("`{}` is skipped", read.stage)));
        }
        is_open |= outputs.record(index).is_none();
    }
    if is_open {
        return None;
    }
    Some(match when.expr.evaluate(&metric) {
        Ok(true) => Ok(()),
        Ok(false) => Err(when.expr.explain(&metric)),
        Err(reason) => Err(reason),
    })
}

pub(super) fn takes_eval_rows(def: &StageDef, plan: &StagePlan, outputs: &Outputs) -> bool {
    let rows_from = def.inputs.iter().filter(|(port, _)| plan.rows_from.contains(port));
    rows_from.flat_map(|(_, refs)| refs.iter()).any(|input| outputs.is_eval(input))
}
