//! How a run begins: its name and its lock, what it stands on, the first lines of its history.

use llmflow_contract::{Failure, Port};
use petname::lang::english::Petnames;

use super::{
    engine::{Engine, Place},
    unchanged,
};
use crate::{
    event::{RunId, What, now_ms},
    home::RunLock,
    lineage::{InputAside, InputRecord, Note, Opening, PipelineRow, PlannedRow},
    owner,
    pipeline::InputRef,
    plan::{Plan, StageView, Standing, key},
};

impl Engine {
    /// Opens the history of this run, where it has any, before a stage moves; the lock says that its process lives.
    ///
    /// # Errors
    /// Those of store, home and lineage; `lineage/replaced`.
    pub(super) async fn begin(&mut self) -> Result<Option<RunLock>, Failure> {
        if !self.is_recorded {
            return Ok(None);
        }
        let Place { home, store, lineage } = &self.place;
        while lineage.has_run(&self.run).await? || store.has_run(&self.run).await? {
            self.run = new_name();
        }
        let alone = home.alone("history")?; // no other history is put in the place of this one meanwhile
        let lock = home.lock(&self.run)?;
        if !lineage.is_in_place(home) {
            let message = "the history was made anew by another process just now";
            return Err(Failure::environment("lineage/replaced", message).help("run the same command again"));
        }
        drop(alone);
        self.first = match &self.ask.resumes {
            Some(run) => lineage.first_of(run).await?,
            None => self.run.clone(),
        };
        unchanged::forget(home, &self.plan.pipeline.source);
        let found = self.plan.stages.iter().filter_map(|stage| match &stage.standing {
            Standing::Cached(record) => Some(record.key), // not always the stage's own: it may be frozen, or another device's
            _ => None,
        });
        self.attended = store.attend(&self.run, found)?;
        self.look_again().await?;
        let Place { home, store, .. } = &self.place;
        let named = self.plan.pipeline.store.is_some().then(|| store.url());
        if let Some(url) = &named {
            home.remember_store(url)?;
        }
        store.sweep();
        owner::sweep(&home.work().join("scratch"));
        let row = self.pipeline_row(named);
        let view = self.plan.view();
        let in_order = view.stages.iter().zip(&self.plan.order);
        let stages: Vec<PlannedRow> =
            in_order.map(|(view, index)| planned_row(view, &self.plan, *index as usize)).collect();
        // Written while the first stages start; nothing of them is told before it.
        self.note(Note::Begins(Box::new(Opening::new(&self.run, &row, &stages)?)));
        let started = What::RunStarted {
            pipeline: row.name.clone(),
            plan: view,
            compute: self.compute.clone(),
            home: home.root().to_owned(),
            disk_free_bytes: home.free_bytes(),
        };
        self.emit(None, started);
        if self.plan.has_work() {
            self.pool.warm().await;
        }
        Ok(Some(lock))
    }

    /// What the history keeps of the file; `store` if the file names it.
    fn pipeline_row(&self, store: Option<String>) -> PipelineRow {
        let pipeline = &self.plan.pipeline;
        PipelineRow {
            path: pipeline.source.absolute_path(),
            name: pipeline.name.clone(),
            text: pipeline.source.text.clone(),
            overrides: pipeline.overrides.clone(),
            params: pipeline.params.iter().map(|(name, param)| (name.clone(), param.value.to_json())).collect(),
            resumes: self.ask.resumes.clone(),
            locks: self.ask.locks.clone(),
            selection: self.ask.selection.clone(),
            store,
        }
    }
}

/// What the history keeps of a stage before it runs.
fn planned_row<'a>(view: &'a StageView, plan: &Plan, index: usize) -> PlannedRow<'a> {
    let stage = &plan.stages[index];
    let outputs = stage.settled.plan.outputs.iter();
    let components = plan.told_components(index);
    // What a frozen stage was made from stays, whatever the stages above give now.
    let kept = components.as_deref().filter(|_| stage.def.shared.is_frozen);
    let read = |port: &Port, refs: &[InputRef]| -> Vec<InputRecord> {
        let mut records = Vec::with_capacity(refs.len());
        for refs in refs.chunk_by(|a, b| a.label == b.label) {
            let label = refs[0].label.as_deref().map(str::to_owned);
            let there = refs.iter().filter(|from| kept.is_none() || !plan.outputs.is_absent(from.index as usize));
            let mut digests = kept.map(|parts| key::digests_at(parts, port, label.as_deref()).into_iter());
            // Where the file reads another number of stages by now, nobody can say which of them gave what.
            if digests.as_ref().is_some_and(|digests| digests.len() != there.clone().count()) {
                continue;
            }
            for from in there {
                let aside = InputAside { label: label.clone(), digest: digests.as_mut().and_then(Iterator::next) };
                records.push(InputRecord(port.clone(), from.stage.clone(), from.port.clone(), aside));
            }
        }
        records
    };
    let inputs = stage.def.inputs.iter().flat_map(|(port, refs)| read(port, refs));
    PlannedRow {
        view,
        inputs: inputs.collect(),
        components,
        outgrown: plan.outgrown(index),
        outputs: outputs.map(|(port, kind, _)| (port.clone(), kind.clone())).collect(),
    }
}

/// Two words, such as `quiet-otter`.
pub(super) fn new_name() -> RunId {
    let name = Petnames::small().namer(2, "-").iter(&mut rand::rng()).next();
    RunId(name.unwrap_or_else(|| format!("run-{}", now_ms())))
}
