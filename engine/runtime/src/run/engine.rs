//! The run itself: one state a stage, one function that changes it, one loop that carries.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::{Duration, Instant},
};

use llmflow_contract::{Class, Failure, Lease, StageId, Use};
use petname::lang::english::Petnames;
use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Cancel, Outcome, StageOutcome, StageStatus,
    message::{Assignment, FromWorker},
    pool::{self, Pool, Report, WorkerId},
    publish, schedule,
};
use crate::{
    event::{Compute, Event, Finished, RunId, RunStatus, What, now_ms},
    home::{Home, RunLock},
    lineage::{Lineage, PipelineRow, PlannedRow},
    owner,
    pipeline::{Demand, LONGEST_BACKOFF, Target},
    plan::{Outputs, Plan, Planned, StageView, Standing, finished},
    store::{KeyRecord, Store},
};

/// How long a cancelled or timed-out worker may take to save before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// A stage's state. [`Engine::set`] alone changes it.
#[derive(Clone, Debug)]
enum State {
    /// Something it needs has not ended.
    Waiting,
    /// Every input exists, the key is known and has no record. `not_before`: a retry's pause.
    Ready {
        not_before: Option<Instant>,
    },
    Running {
        worker: WorkerId,
        since: Instant,
        ending: Option<(Instant, Class)>,
    },
    Ran(Finished),
    /// A record with its key stands. Nothing will run.
    Cached(Finished),
    Failed(Failure),
    /// Committed, but its `require` does not hold.
    Refused {
        finished: Finished,
        expression: String,
        why: String,
    },
    Skipped {
        because: String,
    },
    Interrupted,
}

impl State {
    fn is_over(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Ready { .. } | Self::Running { .. })
    }
    fn has_succeeded(&self) -> bool {
        matches!(self, Self::Ran(_) | Self::Cached(_))
    }
}

/// One run in progress.
pub(super) struct Engine {
    plan: Plan,
    home: Home,
    store: Store,
    lineage: Lineage,
    compute: Compute,
    events: UnboundedSender<Event>,
    cancel: Cancel,
    run: RunId,
    states: Vec<State>,
    attempts: Vec<u32>,
    seconds: Vec<f64>,
    urgency: Vec<f64>,
    outputs: Outputs,
    pool: Pool,
    is_recorded: bool,
}

impl Engine {
    pub fn new(
        plan: Plan,
        home: Home,
        store: Store,
        lineage: Lineage,
        compute: Compute,
        events: UnboundedSender<Event>,
        cancel: Cancel,
    ) -> Result<Self, Failure> {
        let count = plan.stages.len();
        let needs: Vec<Vec<usize>> = plan.stages.iter().map(|stage| stage.needs.clone()).collect();
        let seconds: Vec<f64> =
            plan.stages.iter().map(|stage| stage.last.as_ref().map_or(1.0, |last| last.seconds)).collect();
        Ok(Self {
            urgency: schedule::urgencies(&needs, &seconds),
            pool: Pool::new(compute.cores)?,
            states: vec![State::Waiting; count],
            attempts: vec![0; count],
            seconds: vec![0.0; count],
            outputs: Outputs::default(),
            run: new_name(),
            // A run in which nothing happens leaves no trace; one that is refused does.
            is_recorded: plan.view().to_run() > 0 || plan.stages.iter().any(is_refused),
            plan,
            home,
            store,
            lineage,
            compute,
            events,
            cancel,
        })
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The engine's own trouble: store, lineage, workers that do not start.
    pub async fn run(mut self) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let lock = self.begin().await?;
        let mut stopping = 0;
        loop {
            self.advance().await?;
            if stopping == 0 {
                self.start_ready().await?;
            }
            let is_running = self.states.iter().any(|state| matches!(state, State::Running { .. }));
            let is_pausing = self.states.iter().any(|state| matches!(state, State::Ready { .. })) && stopping == 0;
            if !is_running && !is_pausing {
                break;
            }
            let cancel = self.cancel.clone();
            tokio::select! {
                (worker, report) = self.pool.next() => self.hear(worker, report).await?,
                () = cancel.requested() => {
                    stopping = self.cancel.requests();
                    self.stop(stopping).await?;
                }
                () = tokio::time::sleep(Duration::from_millis(200)) => self.watch_clocks().await?,
            }
        }
        let outcome = self.finish(began.elapsed().as_secs_f64(), stopping > 0).await;
        drop(lock);
        outcome
    }

    async fn begin(&mut self) -> Result<Option<RunLock>, Failure> {
        if !self.is_recorded {
            return Ok(None);
        }
        while self.lineage.has_run(&self.run).await? {
            self.run = new_name();
        }
        let lock = self.home.lock(&self.run)?;
        self.store.sweep();
        owner::sweep(&self.home.work().join("scratch"));
        let pipeline = &self.plan.pipeline;
        let row = PipelineRow {
            path: crate::plan::absolute(pipeline.source.base()).join(pipeline.source.file_name()),
            name: pipeline.name.clone(),
            text: pipeline.source.text.clone(),
            set: pipeline.overrides.set.clone(),
            params: pipeline.params.iter().map(|(name, param)| (name.clone(), param.value.to_json())).collect(),
        };
        let view = self.plan.view();
        let stages: Vec<PlannedRow> = view.stages.iter().zip(&self.plan.stages).map(planned_row).collect();
        self.lineage.start_run(&self.run, &row, &stages).await?;
        for stage in &self.plan.stages {
            if let Some((key, parts)) = &stage.settled.key {
                self.lineage.set_components(&self.run, &stage.def.id, key, parts).await?;
            }
        }
        let started = What::RunStarted {
            pipeline: pipeline.name.clone(),
            plan: view,
            compute: self.compute.clone(),
            home: self.home.root().to_owned(),
            disk_free_bytes: self.home.free_bytes(),
        };
        self.emit(None, started).await?;
        Ok(Some(lock))
    }

    /// Tells the readers; lineage is one of them.
    async fn emit(&self, stage: Option<usize>, what: What) -> Result<(), Failure> {
        let stage = stage.map(|index| self.plan.stages[index].def.id.clone());
        let event = Event { at_ms: now_ms(), run: self.run.clone(), stage, what };
        if self.is_recorded && !matches!(event.what, What::Progress(_) | What::Log { .. }) {
            self.lineage.record(&event).await?;
        }
        let _ = self.events.send(event);
        Ok(())
    }

    /// The one function that changes a stage's state; it also emits the event.
    async fn set(&mut self, index: usize, state: State) -> Result<(), Failure> {
        let what = match &state {
            State::Waiting | State::Ready { .. } => None,
            State::Interrupted => Some(What::Interrupted),
            State::Running { .. } => Some(What::Started { attempt: self.attempts[index] }),
            State::Ran(finished) => Some(What::Finished(finished.clone())),
            State::Cached(finished) => Some(What::Cached(finished.clone())),
            State::Failed(failure) => Some(What::Failed { failure: failure.clone(), retry_in_ms: None }),
            State::Refused { expression, why, .. } => {
                Some(What::Refused { expression: expression.clone(), why: why.clone() })
            }
            State::Skipped { because } => Some(What::Skipped { because: because.clone() }),
        };
        self.states[index] = state;
        match what {
            Some(what) => self.emit(Some(index), what).await,
            None => Ok(()),
        }
    }

    /// Moves every waiting stage whose needs have ended.
    async fn advance(&mut self) -> Result<(), Failure> {
        for index in 0..self.states.len() {
            if !matches!(self.states[index], State::Waiting) {
                continue;
            }
            let needs = self.plan.stages[index].needs.clone();
            let broken =
                needs.iter().find(|need| self.states[**need].is_over() && !self.states[**need].has_succeeded());
            if let Some(need) = broken {
                let name = &self.plan.stages[*need].def.id;
                let because = match &self.states[*need] {
                    State::Failed(_) => format!("`{name}` failed"),
                    State::Refused { .. } => format!("`{name}` was refused"),
                    State::Interrupted => format!("`{name}` was interrupted"),
                    _ => format!("`{name}` was skipped"),
                };
                self.set(index, State::Skipped { because }).await?;
            } else if needs.iter().all(|need| self.states[*need].has_succeeded()) {
                self.ready(index).await?;
            }
        }
        Ok(())
    }

    /// Every input exists: settles the stage again and looks its key up.
    async fn ready(&mut self, index: usize) -> Result<(), Failure> {
        if let Standing::Cached(record) = self.plan.stages[index].standing.clone() {
            return self.succeed(index, &record, true).await;
        }
        let settled = match self.plan.settle_ready(index, &self.outputs) {
            Ok(settled) => settled,
            Err(failure) => return self.set(index, State::Failed(failure)).await,
        };
        let found = match &settled.key {
            Some((key, parts)) => {
                if self.is_recorded {
                    self.lineage.set_components(&self.run, &self.plan.stages[index].def.id, key, parts).await?;
                }
                self.store.key_record(key).await?
            }
            None => None,
        };
        self.plan.stages[index].settled = settled;
        match found {
            Some(record) => self.succeed(index, &record, true).await,
            None => self.set(index, State::Ready { not_before: None }).await,
        }
    }

    /// Learns what a stage gave and judges its `require`.
    async fn succeed(&mut self, index: usize, record: &KeyRecord, is_cached: bool) -> Result<(), Failure> {
        let stage = &self.plan.stages[index];
        self.outputs.learn(&stage.def.id, record);
        let finished = finished(record);
        let refused = refusal(stage, record);
        let ended = if is_cached { State::Cached(finished.clone()) } else { State::Ran(finished.clone()) };
        self.set(index, ended).await?;
        if self.is_recorded && !is_cached {
            // Now, not at the end: a run that is killed has said what it made.
            self.store.put_run(&self.run, &self.run_record()).await?;
        }
        match refused {
            Some((expression, why)) => self.set(index, State::Refused { finished, expression, why }).await,
            None => Ok(()),
        }
    }

    fn lease_of(&self, index: usize) -> Lease {
        let stage = &self.plan.stages[index];
        let needs = stage.settled.plan.needs;
        let cores = match stage.def.resources().cores {
            Demand::Exactly(cores) => cores,
            Demand::Auto => needs.cores,
        };
        let memory_bytes = match stage.def.resources().memory_bytes {
            Demand::Exactly(bytes) => bytes,
            Demand::Auto => needs.memory_bytes,
        };
        Lease { cores: cores.clamp(1, self.compute.cores.max(1)), memory_bytes, gpus: Vec::new() }
    }

    async fn start_ready(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let mut free =
            schedule::Free { cores: self.compute.cores, memory_bytes: self.compute.memory_bytes, is_idle: true };
        let mut ready = Vec::new();
        for (index, state) in self.states.iter().enumerate() {
            let lease = self.lease_of(index);
            match state {
                State::Running { .. } => {
                    free.cores = free.cores.saturating_sub(lease.cores);
                    free.memory_bytes = free.memory_bytes.saturating_sub(lease.memory_bytes);
                    free.is_idle = false;
                }
                State::Ready { not_before } if not_before.is_none_or(|time| time <= now) => {
                    ready.push(schedule::Candidate {
                        index,
                        cores: lease.cores,
                        memory_bytes: lease.memory_bytes,
                        urgency: self.urgency[index],
                    });
                }
                _ => {}
            }
        }
        for index in schedule::starts(ready, free) {
            self.start(index).await?;
        }
        Ok(())
    }

    async fn start(&mut self, index: usize) -> Result<(), Failure> {
        if let Some(failure) = self.unmet_demand(index) {
            return self.set(index, State::Failed(failure)).await;
        }
        self.attempts[index] += 1;
        let stage = &self.plan.stages[index];
        let Some((key, components)) = stage.settled.key.clone() else {
            return Err(Failure::bug(format!("`{}` was ready without a key", stage.def.id)));
        };
        let marks_eval = stage.settled.plan.outputs.iter().any(|(_, _, facts)| facts.used_for == Some(Use::Eval));
        let assignment = Assignment {
            stage: stage.def.id.clone(),
            attempt: self.attempts[index],
            operator: stage.entry.name.to_owned(),
            version: stage.entry.version,
            params: stage.settled.params.clone(),
            inputs: stage.settled.inputs.clone(),
            seed: stage.settled.seed,
            lease: self.lease_of(index),
            key,
            components,
            checkpoint: key,
            store: self.store.url().to_owned(),
            work: self.home.work(),
            base: crate::plan::absolute(self.plan.pipeline.source.base()),
            marks_eval,
            serve: false,
        };
        let worker = self.pool.assign(assignment).await?;
        self.set(index, State::Running { worker, since: Instant::now(), ending: None }).await
    }

    /// A number in `resources` is a demand.
    fn unmet_demand(&self, index: usize) -> Option<Failure> {
        let stage = &self.plan.stages[index];
        let (wanted, compute) = (stage.def.resources(), &self.compute);
        let lacking = |code: &str, what: String, has: String| {
            Failure::environment(code, format!("`{}` demands {what}; this machine gives {has}", stage.def.id))
                .help("lower the number in `resources`, or write `auto`")
        };
        if let Demand::Exactly(cores) = wanted.cores
            && cores > compute.cores
        {
            return Some(lacking("resources/cores", format!("{cores} cores"), compute.cores.to_string()));
        }
        if let Demand::Exactly(bytes) = wanted.memory_bytes
            && bytes > compute.memory_bytes
        {
            let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
            let what = format!("{} of memory", gib(bytes));
            return Some(lacking("resources/memory", what, gib(compute.memory_bytes)));
        }
        match wanted.gpus {
            Demand::Exactly(gpus) if gpus > self.compute.usable_gpus => Some(
                Failure::environment(
                    "resources/gpus",
                    format!("`{}` demands {gpus} GPUs; this build can use {}", stage.def.id, self.compute.usable_gpus),
                )
                .help("write `gpus: auto`, or see README: GPU"),
            ),
            _ => None,
        }
    }

    fn stage_of(&self, worker: WorkerId) -> Option<usize> {
        self.states.iter().position(|state| matches!(state, State::Running { worker: id, .. } if *id == worker))
    }

    async fn hear(&mut self, worker: WorkerId, report: Report) -> Result<(), Failure> {
        let Some(index) = self.stage_of(worker) else {
            if matches!(report, Report::Gone) {
                self.pool.end(worker).await;
            }
            return Ok(());
        };
        match report {
            Report::Printed(line) => {
                let stage = &self.plan.stages[index].def.id;
                pool::append_log(self.home.log(&self.run, stage.as_str(), self.attempts[index]), &line);
                self.emit(Some(index), What::Log { level: "info".into(), message: line }).await
            }
            Report::Gone => {
                let ending = match &self.states[index] {
                    State::Running { ending, .. } => *ending,
                    _ => None,
                };
                let failure = match ending {
                    Some((_, class)) => ended_by(class),
                    None => self.pool.autopsy(worker).await,
                };
                self.fail(index, failure).await
            }
            Report::Said(message) => self.heed(index, worker, message).await,
        }
    }

    async fn heed(&mut self, index: usize, worker: WorkerId, message: FromWorker) -> Result<(), Failure> {
        match message {
            FromWorker::Progress(progress) => self.emit(Some(index), What::Progress(progress)).await,
            FromWorker::Metric { name, value, step, reproducible } => {
                self.emit(Some(index), What::Metric { name, value, step, reproducible }).await
            }
            FromWorker::Checkpoint => self.emit(Some(index), What::Checkpoint).await,
            FromWorker::Restored => self.emit(Some(index), What::Restored).await,
            FromWorker::Hello(_) | FromWorker::Serving(_) => Ok(()),
            FromWorker::Done(record) => {
                self.note_time(index);
                self.pool.free(worker);
                self.succeed(index, &record, false).await
            }
            FromWorker::Failed(failure) => {
                let ending = match &self.states[index] {
                    State::Running { ending, .. } => *ending,
                    _ => None,
                };
                self.pool.end(worker).await;
                let failure = match (failure.class, ending) {
                    (Class::Cancelled, Some((_, class))) => ended_by(class),
                    _ => failure,
                };
                self.fail(index, failure).await
            }
        }
    }

    fn note_time(&mut self, index: usize) {
        if let State::Running { since, .. } = &self.states[index] {
            self.seconds[index] += since.elapsed().as_secs_f64();
        }
    }

    /// An attempt ended badly: again after a pause if `retry` says so, else the stage failed.
    async fn fail(&mut self, index: usize, failure: Failure) -> Result<(), Failure> {
        self.note_time(index);
        if failure.class == Class::Cancelled {
            return self.set(index, State::Interrupted).await;
        }
        let retry = &self.plan.stages[index].def.shared.retry;
        let is_listed = retry.on.iter().any(|name| name == failure.class.name());
        if !is_listed || self.attempts[index] >= retry.attempts || self.cancel.requests() > 0 {
            return self.set(index, State::Failed(failure)).await;
        }
        let doublings = self.attempts[index].saturating_sub(1).min(10);
        let pause = match failure.class {
            Class::Transient { after: Some(after) } => after,
            _ => retry.backoff.saturating_mul(2u32.pow(doublings)).min(LONGEST_BACKOFF),
        };
        let retry_in_ms = Some(pause.as_millis() as u64);
        self.states[index] = State::Ready { not_before: Some(Instant::now() + pause) };
        self.emit(Some(index), What::Failed { failure, retry_in_ms }).await
    }

    /// First request: every worker saves and stops. Second: all are killed.
    async fn stop(&mut self, requests: u8) -> Result<(), Failure> {
        for index in 0..self.states.len() {
            match self.states[index].clone() {
                State::Running { worker, since, .. } if requests < 2 => {
                    self.pool.cancel(worker).await;
                    let ending = Some((Instant::now(), Class::Cancelled));
                    self.states[index] = State::Running { worker, since, ending };
                }
                State::Running { worker, .. } => {
                    self.pool.end(worker).await;
                    self.note_time(index);
                    self.set(index, State::Interrupted).await?;
                }
                State::Ready { .. } => self.set(index, State::Interrupted).await?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Enforces `timeout`, and ends workers that do not stop when asked.
    async fn watch_clocks(&mut self) -> Result<(), Failure> {
        for index in 0..self.states.len() {
            let State::Running { worker, since, ending } = self.states[index] else { continue };
            match ending {
                Some((asked, class)) if asked.elapsed() > GRACE => {
                    self.pool.end(worker).await;
                    self.fail(index, ended_by(class)).await?;
                }
                None if self.plan.stages[index].def.shared.timeout.is_some_and(|limit| since.elapsed() > limit) => {
                    self.pool.cancel(worker).await;
                    let ending = Some((Instant::now(), Class::Timeout));
                    self.states[index] = State::Running { worker, since, ending };
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn finish(mut self, seconds: f64, was_stopped: bool) -> Result<Outcome, Failure> {
        for index in 0..self.states.len() {
            if !self.states[index].is_over() {
                self.set(index, State::Interrupted).await?;
            }
        }
        let any = |test: fn(&State) -> bool| self.states.iter().any(test);
        let status = if was_stopped && any(|state| matches!(state, State::Interrupted)) {
            RunStatus::Interrupted
        } else if any(|state| matches!(state, State::Failed(_))) {
            RunStatus::Failed
        } else if any(|state| matches!(state, State::Refused { .. })) {
            RunStatus::Refused
        } else {
            RunStatus::Done
        };
        let Published { paths: published, report_to, failures: unpublished } =
            self.publish(status == RunStatus::Done).await?;
        if self.is_recorded {
            self.store.put_run(&self.run, &self.run_record()).await?;
            self.emit(None, What::RunFinished { status, seconds }).await?;
        }
        Ok(Outcome {
            exit_code: self.exit_code(status, &unpublished),
            plan: self.plan.view(),
            stages: (0..self.states.len()).map(|index| self.stage_outcome(index)).collect(),
            run: self.is_recorded.then_some(self.run),
            status,
            published,
            unpublished,
            report_to,
            seconds,
        })
    }

    /// The first that applies: 130, 101 (a bug), 3 (everything that failed is environment), 1.
    fn exit_code(&self, status: RunStatus, unpublished: &[Failure]) -> u8 {
        let classes: Vec<Class> = self
            .states
            .iter()
            .filter_map(|state| match state {
                State::Failed(failure) => Some(failure.class),
                _ => None,
            })
            .collect();
        match status {
            RunStatus::Done if unpublished.is_empty() => 0,
            RunStatus::Done if unpublished.iter().all(|failure| failure.class == Class::Environment) => 3,
            RunStatus::Interrupted | RunStatus::Running => 130,
            _ if classes.contains(&Class::Bug) => 101,
            RunStatus::Failed if classes.iter().all(|class| *class == Class::Environment) => 3,
            _ => 1,
        }
    }

    fn stage_outcome(&self, index: usize) -> StageOutcome {
        let stage = &self.plan.stages[index];
        let mut outcome = StageOutcome {
            stage: stage.def.id.clone(),
            operator: stage.entry.name.to_owned(),
            status: StageStatus::Interrupted,
            finished: None,
            failure: None,
            refused: None,
            skipped_because: None,
            seconds: self.seconds[index],
        };
        match self.states[index].clone() {
            State::Ran(finished) => (outcome.status, outcome.finished) = (StageStatus::Ran, Some(finished)),
            State::Cached(finished) => (outcome.status, outcome.finished) = (StageStatus::Cached, Some(finished)),
            State::Failed(failure) => (outcome.status, outcome.failure) = (StageStatus::Failed, Some(failure)),
            State::Refused { finished, expression, why } => {
                outcome.status = StageStatus::Refused;
                outcome.finished = Some(finished);
                outcome.refused = Some((expression, why));
            }
            State::Skipped { because } => {
                (outcome.status, outcome.skipped_because) = (StageStatus::Skipped, Some(because));
            }
            _ => {}
        }
        outcome
    }

    /// What the store keeps of the run: text, params, stage → key → digests.
    fn run_record(&self) -> serde_json::Value {
        let stages: BTreeMap<String, serde_json::Value> = self
            .states
            .iter()
            .enumerate()
            .filter_map(|(index, state)| match state {
                State::Ran(finished) | State::Cached(finished) | State::Refused { finished, .. } => Some((
                    self.plan.stages[index].def.id.to_string(),
                    json!({ "key": finished.key, "outputs": finished.outputs }),
                )),
                _ => None,
            })
            .collect();
        let pipeline = &self.plan.pipeline;
        json!({
            "run": self.run, "pipeline": pipeline.name, "text": pipeline.source.text, "set": pipeline.overrides.set,
            "stages": stages, "at_ms": now_ms(), "version": env!("CARGO_PKG_VERSION"),
        })
    }

    /// Puts results where the user wants them; nothing but the report after a failure.
    async fn publish(&mut self, is_done: bool) -> Result<Published, Failure> {
        let base = crate::plan::absolute(self.plan.pipeline.source.base());
        let by_stage: HashMap<StageId, usize> =
            self.plan.stages.iter().enumerate().map(|(index, stage)| (stage.def.id.clone(), index)).collect();
        let mut all = Published::default();
        let wanted: Vec<_> =
            self.plan.pipeline.publish.iter().map(|item| (item.target.clone(), item.paths.clone())).collect();
        for (target, paths) in wanted {
            let (stage, port) = match target {
                Target::Report => {
                    all.report_to.extend(paths.iter().map(|path| base.join(&path.value)));
                    continue;
                }
                Target::Output { stage, port } => (stage, port),
            };
            let (State::Ran(finished) | State::Cached(finished)) = &self.states[by_stage[&stage]] else { continue };
            let main = self.plan.stages[by_stage[&stage]].settled.plan.outputs.first().map(|output| output.0.clone());
            let Some(digest) = port.or(main).and_then(|port| finished.outputs.get(&port).copied()) else { continue };
            if !is_done {
                continue;
            }
            for path in paths {
                let path = base.join(&path.value);
                let known = self.lineage.published(&path).await?;
                let artifact = self.store.artifact(&digest, &self.home.work()).await?;
                let is_same = publish::stamp(&artifact, &path)
                    .is_some_and(|(size, mtime, inode)| known == Some((digest, size, mtime, inode)));
                let done = match publish::publish(&artifact, &path, is_same) {
                    Ok(done) => done,
                    Err(failure) => {
                        all.failures.push(failure);
                        continue;
                    }
                };
                if let Some((size, mtime, inode)) = publish::stamp(&artifact, &path).filter(|_| !is_same) {
                    self.lineage.set_published(&path, &digest, size, mtime, inode).await?;
                }
                self.emit(None, What::Published { path: done.path, bytes: done.bytes, unchanged: done.unchanged })
                    .await?;
                all.paths.push(path);
            }
        }
        Ok(all)
    }
}

/// What publishing came to.
#[derive(Default)]
struct Published {
    paths: Vec<PathBuf>,
    report_to: Vec<PathBuf>,
    /// One for each path that could not be written; the others were.
    failures: Vec<Failure>,
}

/// Does a stage whose result is there already miss its `require`?
fn is_refused(stage: &Planned) -> bool {
    matches!(&stage.standing, Standing::Cached(record) if refusal(stage, record).is_some())
}

/// The first `require` of a stage that its result does not meet, and why.
fn refusal(stage: &Planned, record: &KeyRecord) -> Option<(String, String)> {
    let value = |name: &str| record.metrics.get(name).copied();
    stage.def.shared.require.iter().find_map(|require| match require.expr.evaluate(&value) {
        Ok(true) => None,
        Ok(false) => Some((require.expr.text().to_owned(), require.expr.explain(&value))),
        Err(why) => Some((require.expr.text().to_owned(), why)),
    })
}

/// What the history keeps of a stage before it runs.
fn planned_row<'a>((view, stage): (&'a StageView, &Planned)) -> PlannedRow<'a> {
    let inputs = stage.def.inputs.iter();
    let outputs = stage.settled.plan.outputs.iter();
    PlannedRow {
        view,
        inputs: inputs
            .flat_map(|(port, refs)| refs.iter().map(|from| (port.clone(), from.stage.clone(), from.port.clone())))
            .collect(),
        outputs: outputs.map(|(port, kind, _)| (port.clone(), kind.clone())).collect(),
    }
}

/// The failure of an attempt that was asked to end.
fn ended_by(class: Class) -> Failure {
    match class {
        Class::Timeout => Failure::new(Class::Timeout, "stage/timeout", "it ran longer than its `timeout`")
            .help("raise `timeout`; the next attempt goes on from the checkpoint"),
        _ => Failure::cancelled(),
    }
}

/// Two words, such as `quiet-otter`.
fn new_name() -> RunId {
    let name = Petnames::small().namer(2, "-").iter(&mut rand::rng()).next();
    RunId(name.unwrap_or_else(|| format!("run-{}", now_ms())))
}
