//! The run itself: one state a stage, one function that changes it, one loop that carries.
//!
//! Nothing here looks at every stage when one of them ends: each stage counts the needs that it still waits for.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use llmflow_contract::{Digest, Failure, Use};
use petname::lang::english::Petnames;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Cancel, Outcome, demand,
    message::Assignment,
    pool::{Pool, WorkerId},
    record::RunRecords,
    schedule::{Scheduler, urgencies},
    state::{Attempt, State},
};
use crate::{
    event::{Compute, Event, RunId, What, now_ms},
    home::{Home, RunLock},
    lineage::{Lineage, Note, PipelineRow, PlannedRow, Recorder},
    owner,
    plan::{Outputs, Plan, Planned, StageView, Standing, finished},
    store::{KeyRecord, Store},
};

/// How often timeouts and pauses are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What a run is asked beyond its pipeline.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    /// Stages at once, at most.
    pub jobs: Option<u32>,
    /// Start nothing more once a stage has failed.
    pub fail_fast: bool,
    /// The run that this one goes on with.
    pub resumes: Option<RunId>,
}

/// Where a run takes place.
pub(super) struct Place {
    pub home: Home,
    pub store: Store,
    pub lineage: Lineage,
}

/// One run in progress.
pub(super) struct Engine {
    pub(super) plan: Plan,
    pub(super) place: Place,
    pub(super) compute: Compute,
    pub(super) cancel: Cancel,
    pub(super) run: RunId,
    pub(super) states: Vec<State>,
    pub(super) attempts: Vec<u32>,
    pub(super) seconds: Vec<f64>,
    pub(super) pool: Pool,
    /// The stage that each busy worker is at.
    pub(super) working: HashMap<WorkerId, usize>,
    /// Stages that pause before another attempt, and until when.
    pub(super) pausing: BTreeSet<(Instant, usize)>,
    pub(super) is_recorded: bool,
    pub(super) ask: Ask,
    pub(super) records: RunRecords,
    recorder: Option<Recorder>,
    scheduler: Scheduler,
    urgency: Vec<f64>,
    outputs: Outputs,
    /// Needs of each waiting stage that have not ended.
    unmet: Vec<u32>,
    dependants: Vec<Vec<u32>>,
    /// Waiting stages to look at.
    due: VecDeque<usize>,
    /// Stages whose key another stage of this run is at.
    held: HashMap<Digest, Vec<usize>>,
    has_failed: bool,
}

impl Engine {
    pub fn new(
        plan: Plan,
        place: Place,
        compute: Compute,
        ask: Ask,
        readers: UnboundedSender<Event>,
        cancel: Cancel,
    ) -> Result<Self, Failure> {
        let count = plan.stages.len();
        let needs: Vec<Vec<usize>> = plan.stages.iter().map(|stage| stage.needs.clone()).collect();
        let seconds: Vec<f64> =
            plan.stages.iter().map(|stage| stage.last.as_ref().map_or(1.0, |last| last.seconds)).collect();
        let mut dependants = vec![Vec::new(); count];
        for (index, needs) in needs.iter().enumerate() {
            needs.iter().for_each(|need| dependants[*need].push(index as u32));
        }
        // A run in which nothing happens leaves no trace; one that is refused does.
        let is_recorded = plan.has_work() || plan.stages.iter().any(super::is_refused);
        Ok(Self {
            urgency: urgencies(&needs, &seconds),
            pool: Pool::new(compute.cores)?,
            scheduler: Scheduler::new(compute.cores, compute.memory_bytes, ask.jobs),
            recorder: Some(Recorder::start(is_recorded.then(|| place.lineage.clone()), readers)),
            states: vec![State::Waiting; count],
            attempts: vec![0; count],
            seconds: vec![0.0; count],
            unmet: needs.iter().map(|needs| needs.len() as u32).collect(),
            due: (0..count).filter(|index| needs[*index].is_empty()).collect(),
            dependants,
            outputs: Outputs::default(),
            run: new_name(),
            working: HashMap::new(),
            pausing: BTreeSet::new(),
            held: HashMap::new(),
            records: RunRecords::default(),
            has_failed: false,
            is_recorded,
            plan,
            place,
            compute,
            ask,
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
        let mut stopping = self.cancel.requests();
        loop {
            self.advance().await?;
            if stopping == 0 {
                self.start_ready().await?;
            } else if self.working.is_empty() {
                break;
            }
            let is_idle = self.working.is_empty() && self.pausing.is_empty();
            if is_idle || self.recorder.as_ref().is_none_or(Recorder::has_failed) {
                break;
            }
            let cancel = self.cancel.clone();
            tokio::select! {
                (worker, report) = self.pool.next() => self.hear(worker, report).await?,
                () = cancel.requested() => {
                    stopping = self.cancel.requests();
                    self.stop(stopping).await?;
                }
                () = tokio::time::sleep(TICK) => self.watch_clocks().await?,
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
        let Place { home, store, lineage } = &self.place;
        while lineage.has_run(&self.run).await? {
            self.run = new_name();
        }
        let lock = home.lock(&self.run)?;
        store.sweep();
        owner::sweep(&home.work().join("scratch"));
        let pipeline = &self.plan.pipeline;
        let row = PipelineRow {
            path: crate::plan::absolute(pipeline.source.base()).join(pipeline.source.file_name()),
            name: pipeline.name.clone(),
            text: pipeline.source.text.clone(),
            set: pipeline.overrides.set.clone(),
            params: pipeline.params.iter().map(|(name, param)| (name.clone(), param.value.to_json())).collect(),
            resumes: self.ask.resumes.clone(),
        };
        let view = self.plan.view();
        let stages: Vec<PlannedRow> = view.stages.iter().zip(&self.plan.stages).map(planned_row).collect();
        lineage.start_run(&self.run, &row, &stages).await?;
        let started = What::RunStarted {
            pipeline: pipeline.name.clone(),
            plan: view,
            compute: self.compute.clone(),
            home: home.root().to_owned(),
            disk_free_bytes: home.free_bytes(),
        };
        self.emit(None, started);
        Ok(Some(lock))
    }

    /// Tells the readers; lineage is the first of them.
    pub(super) fn emit(&self, stage: Option<usize>, what: What) {
        let stage = stage.map(|index| self.plan.stages[index].def.id.clone());
        self.note(Note::Event(Event { at_ms: now_ms(), run: self.run.clone(), stage, what }));
    }

    fn note(&self, note: Note) {
        if let Some(recorder) = &self.recorder {
            recorder.note(note);
        }
    }

    /// Everything told so far is written down on return.
    pub(super) async fn end_recording(&mut self) -> Result<(), Failure> {
        match self.recorder.take() {
            Some(recorder) => recorder.finish().await,
            None => Ok(()),
        }
    }

    /// The one function that changes a stage's state; it also emits the event and wakes who waits for it.
    pub(super) fn set(&mut self, index: usize, state: State) {
        let was_over = self.states[index].is_over();
        if let State::Running(attempt) = &self.states[index]
            && !matches!(state, State::Running(_))
        {
            self.working.remove(&attempt.worker);
            self.scheduler.finished(&attempt.lease);
            if let Some((key, _)) = &self.plan.stages[index].settled.key
                && let Some(held) = self.held.remove(key)
            {
                self.due.extend(held);
            }
        }
        if let Some(what) = state.told(self.attempts[index]) {
            self.emit(Some(index), what);
        }
        self.has_failed |= matches!(state, State::Failed(_) | State::Refused { .. });
        self.states[index] = state;
        let is_over = self.states[index].is_over();
        let has_succeeded = self.states[index].has_succeeded();
        for dependant in std::mem::take(&mut self.dependants[index]) {
            let dependant = dependant as usize;
            if is_over && !was_over {
                self.unmet[dependant] -= 1;
            }
            if self.unmet[dependant] == 0 || (is_over && !has_succeeded) {
                self.due.push_back(dependant);
            }
            self.dependants[index].push(dependant as u32);
        }
    }

    /// Moves every stage whose needs have ended, or one of whose needs gave nothing.
    pub(super) async fn advance(&mut self) -> Result<(), Failure> {
        while let Some(index) = self.due.pop_front() {
            match self.states[index] {
                State::Waiting => {}
                State::Ready => {
                    self.look_up(index).await?; // what held it has ended
                    continue;
                }
                _ => continue,
            }
            let needs = &self.plan.stages[index].needs;
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
                self.set(index, State::Skipped { because });
            } else if self.unmet[index] == 0 {
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
        match self.plan.settle_ready(index, &self.outputs) {
            Ok(settled) => self.plan.stages[index].settled = settled,
            Err(failure) => {
                self.set(index, State::Failed(failure));
                return Ok(());
            }
        }
        let stage = &self.plan.stages[index];
        if let Some((key, components)) = stage.settled.key.clone() {
            let (run, stage) = (self.run.clone(), stage.def.id.clone());
            self.note(Note::Key { run, stage, key, components });
        }
        self.states[index] = State::Ready;
        self.look_up(index).await
    }

    /// Takes the result that is there, waits for a stage that is at the same key, or queues the stage.
    async fn look_up(&mut self, index: usize) -> Result<(), Failure> {
        let stage = &self.plan.stages[index];
        let Some((key, _)) = stage.settled.key.clone() else {
            return Err(Failure::bug(format!("`{}` was ready without a key", stage.def.id)));
        };
        if let Some(record) = self.place.store.key_record(&key).await? {
            return self.succeed(index, &record, true).await;
        }
        if let Some(held) = self.held.get_mut(&key) {
            held.push(index);
            return Ok(());
        }
        self.held.insert(key, Vec::new());
        self.queue(index);
        Ok(())
    }

    pub(super) fn queue(&mut self, index: usize) {
        let stage = &self.plan.stages[index];
        if let Some(failure) = demand::unmet(&stage.def.id, stage.def.resources(), &self.compute) {
            return self.set(index, State::Failed(failure));
        }
        self.states[index] = State::Ready;
        self.scheduler.push(demand::candidate(index, stage, self.urgency[index], &self.compute));
    }

    /// Learns what a stage gave and judges its `require`.
    pub(super) async fn succeed(&mut self, index: usize, record: &KeyRecord, is_cached: bool) -> Result<(), Failure> {
        let stage = &self.plan.stages[index];
        self.outputs.learn(&stage.def.id, record);
        let finished = finished(record);
        let refused = super::refusal(stage, record);
        let ended = if is_cached { State::Cached(finished.clone()) } else { State::Ran(finished.clone()) };
        match refused {
            Some((expression, why)) => {
                // Committed first, then judged: readers hear both.
                if let Some(what) = ended.told(self.attempts[index]) {
                    self.emit(Some(index), what);
                }
                self.set(index, State::Refused { finished, expression, why });
            }
            None => self.set(index, ended),
        }
        if self.is_recorded && !is_cached {
            self.save_run_record(false).await?;
        }
        Ok(())
    }

    async fn start_ready(&mut self) -> Result<(), Failure> {
        while !(self.ask.fail_fast && self.has_failed) {
            let Some((index, lease)) = self.scheduler.next() else { break };
            if matches!(self.states[index], State::Ready) {
                self.start(index, lease).await?;
            } else {
                self.scheduler.finished(&lease);
            }
        }
        Ok(())
    }

    async fn start(&mut self, index: usize, lease: llmflow_contract::Lease) -> Result<(), Failure> {
        self.attempts[index] += 1;
        let stage = &self.plan.stages[index];
        let Some((key, components)) = stage.settled.key.clone() else {
            return Err(Failure::bug(format!("`{}` started without a key", stage.def.id)));
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
            lease: lease.clone(),
            key,
            components,
            checkpoint: key,
            store: self.place.store.url(),
            work: self.place.home.work(),
            base: self.plan.base.clone(),
            marks_eval,
            serve: false,
        };
        let worker = self.pool.assign(assignment).await?;
        self.working.insert(worker, index);
        self.set(index, State::Running(Attempt { worker, since: Instant::now(), lease, ending: None }));
        Ok(())
    }
}

/// What the history keeps of a stage before it runs.
fn planned_row<'a>((view, stage): (&'a StageView, &'a Planned)) -> PlannedRow<'a> {
    let inputs = stage.def.inputs.iter();
    let outputs = stage.settled.plan.outputs.iter();
    PlannedRow {
        view,
        components: stage.settled.key.as_ref().map(|(_, components)| components.as_slice()),
        inputs: inputs
            .flat_map(|(port, refs)| refs.iter().map(|from| (port.clone(), from.stage.clone(), from.port.clone())))
            .collect(),
        outputs: outputs.map(|(port, kind, _)| (port.clone(), kind.clone())).collect(),
    }
}

/// Two words, such as `quiet-otter`.
fn new_name() -> RunId {
    let name = Petnames::small().namer(2, "-").iter(&mut rand::rng()).next();
    RunId(name.unwrap_or_else(|| format!("run-{}", now_ms())))
}
