//! The way of a stage from its last input to a worker: its key, the right to work on it, a place in the schedule.

use std::{fs::File, sync::Arc, time::Duration};

use llmflow_contract::{Digest, Failure, Lease};
use nix::fcntl::Flock;
use tokio::time::Instant;

use super::{
    demand,
    engine::Engine,
    message::Assignment,
    schedule::{Ahead, FORESEEN},
    secret::Secrets,
    state::{Attempt, Holder, State},
};
use crate::{
    device,
    lineage::Note,
    plan::{Standing, key},
    store::{Claim, KeyRecord, Shared},
};

/// Whoever waits for another run for so long is told so.
const LONG: Duration = Duration::from_secs(1);

/// The right to work on a key, and what keeps gc out.
type Claimed = (Claim, Option<Flock<File>>);

impl Engine {
    /// Every need has ended: decides `when`, settles the stage again and looks its key up.
    pub(super) async fn ready(&mut self, index: usize) -> Result<(), Failure> {
        if let Standing::Cached(record) = self.plan.stages[index].standing.clone() {
            return self.succeed(index, record, true).await;
        }
        if let Some(because) = self.gate(index) {
            self.plan.outputs.skip(index, self.plan.stages[index].settled.plan.clone());
            self.set(index, State::Skipped { because, by_gate: true });
            return Ok(());
        }
        if let Err(failure) = self.plan.settle_ready(index, self.place.store.vouched()) {
            self.set(index, State::Failed(failure));
            return Ok(());
        }
        let stage = &self.plan.stages[index];
        if let (Some(key), Some(components)) = (stage.settled.key, self.plan.components(index)) {
            let (run, stage) = (self.run.clone(), stage.def.id.clone());
            self.note(Note::Key { run, stage, key, components });
        }
        if !self.knows_gpus && self.plan.stages[index].gpus().max > 0 {
            self.look_for_gpus().await?;
        }
        self.look_up(index).await
    }

    /// Stages that were not to run have to: until now the GPUs were known by name at most.
    pub(super) async fn look_for_gpus(&mut self) -> Result<(), Failure> {
        self.compute = super::compute_for(&self.plan).await?;
        self.knows_gpus = self.plan.wants_gpus();
        self.scheduler.find_gpus(&demand::gpus(&self.compute));
        Ok(())
    }

    /// Why a stage will not run although nothing failed: what it reads is skipped, or its `when` does not hold.
    fn gate(&self, index: usize) -> Option<String> {
        if let Standing::Skipped { because } = &self.plan.stages[index].standing {
            return Some(because.clone());
        }
        if let Some(missing) = self.plan.missing_input(index) {
            return Some(format!("`{}` was skipped", self.plan.stages[missing].def.id));
        }
        self.plan.when_holds(index)?.err()
    }

    /// Takes the result that is there, waits for who is at the same key, or queues the stage.
    pub(super) async fn look_up(&mut self, index: usize) -> Result<(), Failure> {
        let stage = &self.plan.stages[index];
        let Some(key) = stage.settled.key else {
            return Err(Failure::bug(format!("`{}` was ready without a key", stage.def.id)));
        };
        let is_forced = stage.is_forced();
        if self.turns.is_taken(&key) {
            self.set(index, State::Held(Holder::Stage(key)));
            return Ok(());
        }
        if self.turns.is_full() {
            self.set(index, State::Held(Holder::Crowd));
            return Ok(());
        }
        let Some((claim, shared)) = self.claim(&key)? else {
            self.wait_for_run(index);
            return Ok(());
        };
        if !is_forced {
            let serving = self.plan.serving(index, self.ask.selection.exact);
            if let Some(record) = self.find(&serving, shared).await? {
                if record.key != key {
                    let (run, stage) = (self.run.clone(), self.plan.stages[index].def.id.clone());
                    let (key, components) = (record.key, record.components.clone());
                    self.note(Note::Key { run, stage, key, components });
                }
                return self.succeed(index, Arc::new(record), true).await;
            }
        }
        self.turns.take(index, key, claim);
        self.queue(index);
        Ok(())
    }

    /// The right to work on a key while gc is kept out; None while another run has it, or gc the store.
    fn claim(&self, key: &Digest) -> Result<Option<Claimed>, Failure> {
        let Shared::Yes(shared) = self.place.store.try_share()? else { return Ok(None) };
        Ok(self.place.store.claim(key)?.map(|claim| (claim, shared)))
    }

    /// Another run is at a stage's key; whoever waits long is told so, once.
    fn wait_for_run(&mut self, index: usize) {
        let (since, was_told) = match self.states[index] {
            State::Held(Holder::Run { since, is_told }) => (since, is_told),
            _ => (Instant::now(), false),
        };
        let is_told = was_told || since.elapsed() >= LONG;
        if is_told && !was_told {
            self.remark(index, "another run is at this stage, or gc at the store: waits for it".to_owned());
        }
        self.set(index, State::Held(Holder::Run { since, is_told }));
    }

    /// The first of these keys that has a result, which gc keeps for this run from now on.
    async fn find(&self, keys: &[Digest], _shared: Option<Flock<File>>) -> Result<Option<KeyRecord>, Failure> {
        let found = self.place.store.first_record(keys).await?;
        if let (Some(record), Some(attended)) = (&found, &self.attended) {
            attended.stand_on([record.key].into_iter())?;
        }
        Ok(found)
    }

    /// Asks again for the keys that other runs were at.
    pub(super) async fn look_elsewhere(&mut self) -> Result<(), Failure> {
        for index in self.turns.elsewhere() {
            self.look_up(index).await?;
        }
        Ok(())
    }

    pub(super) fn queue(&mut self, index: usize) {
        let stage = &self.plan.stages[index];
        if let Some(failure) = demand::hindrance(stage, &self.compute) {
            return self.set(index, State::Failed(failure));
        }
        let candidate = demand::candidate(index, stage, self.groups[index], self.urgency[index]);
        match self.scheduler.push(candidate) {
            Ok(()) => self.set(index, State::Queued),
            Err(lacking) => self.set(index, State::Failed(demand::too_few_gpus(&stage.def.id, lacking))),
        }
    }

    /// Shows the scheduler the last few stages, for it to find the best order of them.
    fn foresee(&mut self) {
        if !std::mem::take(&mut self.has_moved) {
            return;
        }
        let is_left = |index: &usize| !self.states[*index].is_over();
        let last: Vec<usize> = match self.left <= FORESEEN {
            true => (0..self.states.len()).filter(is_left).collect(),
            false => Vec::new(),
        };
        let ahead = last.iter().map(|index| {
            let stage = &self.plan.stages[*index];
            let needs = stage.needs.iter().map(|need| *need as usize);
            Ahead {
                candidate: demand::candidate(*index, stage, self.groups[*index], self.urgency[*index]),
                needs: needs.filter(|need| last.contains(need)).collect(),
            }
        });
        self.scheduler.expect(ahead.collect());
    }

    pub(super) async fn start_ready(&mut self) -> Result<(), Failure> {
        self.foresee();
        while !(self.ask.fail_fast && self.has_failed) {
            let Some((index, lease)) = self.scheduler.next(self.began.elapsed()) else { break };
            self.start(index, lease).await?;
        }
        Ok(())
    }

    async fn start(&mut self, index: usize, lease: Lease) -> Result<(), Failure> {
        self.attempts[index] += 1;
        let stage = &self.plan.stages[index];
        let key = stage.settled.key.zip(self.plan.components(index)).zip(self.plan.outputs.reading(&stage.def));
        let Some(((key, components), inputs)) = key else {
            return Err(Failure::bug(format!("`{}` started without a key", stage.def.id)));
        };
        // What ended serves nobody who is to run every time; what it has saved on the way does.
        let kin = key::kin(&components, &stage.entry, &stage.settled.plan).filter(|_| stage.def.shared.is_cached);
        let is_first = self.attempts[index] == 1 && self.ask.resumes.is_none();
        let params = stage.settled.params();
        let secrets = Secrets::read(&stage.entry.secrets(&params))?; // they were there when it was queued
        let is_remote = stage.entry.reads_sources() && stage.entry.remote(params.clone())?.is_some();
        let credentials = if is_remote { stage.entry.credentials } else { &[] };
        let marks_eval = self.plan.marks_eval(index);
        let visible = device::visible(&lease, &self.compute.gpus);
        let assignment = Assignment {
            stage: stage.def.id.clone(),
            attempt: self.attempts[index],
            operator: stage.entry.name.to_owned(),
            version: stage.entry.version,
            params,
            inputs,
            seed: stage.settled.seed,
            gpus: device::leased(&lease, &self.compute.gpus),
            lease,
            key,
            components,
            amount: stage.settled.plan.needs.work,
            kin,
            store: self.place.store.url(),
            work: self.place.home.work(),
            base: self.plan.base.clone(),
            marks_eval,
            replaces: stage.is_forced(),
            // Another attempt goes on, and so does a run that goes on with another.
            is_afresh: stage.forced && is_first,
            anew: stage.is_forced().then(|| self.first.clone()),
            sources: stage.settled.files().to_vec(),
            secrets,
            is_foreign: stage.entry.is_foreign,
            is_offline: self.plan.is_offline,
            serve: false,
        };
        let worker = self.pool.assign(assignment, &visible, credentials).await?;
        self.working.insert(worker, index);
        self.set(index, State::Running(Attempt { worker, since: Instant::now(), ending: None }));
        Ok(())
    }
}
