//! The run itself: one state a stage, one function that changes it, one loop that carries.
//!
//! Nothing here looks at every stage when one of them ends, the last few aside: each stage counts the needs that it still
//! waits for.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    fs::File,
    sync::Arc,
    time::Duration,
};

use llmflow_contract::{Digest, Failure, Lease, Locks, Port};
use nix::{
    fcntl::Flock,
    sys::resource::{Resource, getrlimit},
};
use petname::lang::english::Petnames;
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Cancel, Outcome, demand,
    executor::{Executor, Workers},
    message::Assignment,
    pool::{Pool, WorkerId},
    record::RunRecords,
    schedule::{Ahead, FORESEEN, Scheduler, urgencies},
    secret::{Secrets, Withheld},
    state::{Attempt, State},
    unchanged::{self, Question},
};
use crate::{
    device,
    event::{Compute, Event, RunId, What, now_ms, refusal},
    home::{Home, RunLock},
    lineage::{InputAside, InputRecord, Lineage, Note, Opening, PipelineRow, PlannedRow, Recorder},
    owner,
    pipeline::InputRef,
    plan::{Plan, Selection, StageView, Standing, finished, key, unmet},
    remote,
    store::{Claim, KeyRecord, Shared, Stood, Store},
};

/// How often timeouts and pauses are looked at.
const TICK: Duration = Duration::from_millis(100);

/// More stages than this are never queued at once.
const MOST_CLAIMS: usize = 1 << 16;

/// What a run is asked beyond its pipeline.
#[derive(Default)]
pub(super) struct Ask {
    /// Which stages, and whether those with a result run all the same.
    pub selection: Selection,
    /// How remote sources are treated.
    pub remote: remote::Options,
    /// What they were found to be: by the run that this one goes on with, then by this one.
    pub locks: Locks,
    /// Where its workers live.
    pub workers: Workers,
    /// Stages at once, at most.
    pub jobs: Option<u32>,
    /// Start nothing more once a stage has failed.
    pub fail_fast: bool,
    /// What to keep as proof that there was nothing left to do.
    pub question: Option<Question>,
    /// Where to keep what stands once it ends.
    pub stood: Option<Stood>,
    /// The run that this one goes on with.
    pub resumes: Option<RunId>,
    /// There is work, or the history's newest run of this pipeline does not tell of these results.
    pub is_news: bool,
}

/// Where a run takes place.
pub(super) struct Place {
    pub home: Home,
    pub store: Store,
    pub lineage: Lineage,
}

/// A stage whose key another run is at.
struct Elsewhere {
    index: usize,
    since: Instant,
    /// The user knows.
    is_told: bool,
}

impl Elsewhere {
    /// Whoever waits for so long is told so.
    const LONG: Duration = Duration::from_secs(1);
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
    readers: UnboundedSender<Event>,
    scheduler: Scheduler,
    began: Instant,
    urgency: Vec<f64>,
    /// What each stage's matrix limits, if it does.
    groups: Vec<Option<usize>>,
    /// Needs of each waiting stage that have not ended.
    unmet: Vec<u32>,
    /// How many stages have not ended.
    left: usize,
    /// Has any stage ended since the scheduler was shown the last ones?
    has_moved: bool,
    dependants: Vec<Vec<u32>>,
    /// Waiting stages to look at.
    due: VecDeque<usize>,
    /// Stages whose key another stage of this run is at.
    held: HashMap<Digest, Vec<usize>>,
    /// Stages whose key another run is at.
    elsewhere: Vec<Elsewhere>,
    /// The right to work on the key of each stage that is queued, running or pausing.
    claims: HashMap<usize, Claim>,
    /// Stages that could be queued but for the number of claims, most urgent first.
    crowd: BTreeSet<(Reverse<u64>, usize)>,
    most_claims: usize,
    /// While it is held, gc leaves alone what this run makes and stands on.
    attended: Option<Claim>,
    /// Stages that have a checkpoint to go on from.
    pub(super) saved: HashSet<usize>,
    /// How often each stage's result turned out damaged in this run.
    pub(super) remade: HashMap<usize, u32>,
    has_failed: bool,
}

impl Engine {
    pub fn new(
        plan: Plan,
        place: Place,
        compute: Compute,
        ask: Ask,
        withheld: Withheld,
        readers: UnboundedSender<Event>,
        cancel: Cancel,
    ) -> Result<Self, Failure> {
        let count = plan.stages.len();
        let needs: Vec<&[u32]> = plan.stages.iter().map(|stage| &*stage.needs).collect();
        let seconds: Vec<f64> =
            plan.stages.iter().map(|stage| stage.last.as_ref().map_or(1.0, |last| last.seconds)).collect();
        let mut dependants = vec![Vec::new(); count];
        for (index, needs) in needs.iter().enumerate() {
            needs.iter().for_each(|need| dependants[*need as usize].push(index as u32));
        }
        let (groups, limits) = demand::groups(&plan.stages);
        // A run in which nothing happens, and after which the history says the same, leaves no trace.
        let is_recorded = ask.is_news || plan.stages.iter().any(|stage| super::is_refused(&plan, stage));
        Ok(Self {
            urgency: urgencies(&plan.order, &needs, &seconds),
            pool: Pool::new(Executor::new(ask.workers.clone(), compute.cores, withheld)?),
            scheduler: Scheduler::new(demand::capacity(&compute, ask.jobs, limits)),
            groups,
            began: Instant::now(),
            recorder: Some(Recorder::start(is_recorded.then(|| place.lineage.clone()), readers.clone())),
            readers,
            states: vec![State::Waiting; count],
            attempts: vec![0; count],
            seconds: vec![0.0; count],
            unmet: needs.iter().map(|needs| needs.len() as u32).collect(),
            due: plan.order.iter().map(|index| *index as usize).filter(|index| needs[*index].is_empty()).collect(),
            dependants,
            left: count,
            has_moved: true,
            run: new_name(),
            working: HashMap::new(),
            pausing: BTreeSet::new(),
            held: HashMap::new(),
            elsewhere: Vec::new(),
            claims: HashMap::new(),
            crowd: BTreeSet::new(),
            most_claims: most_claims(),
            attended: None,
            saved: HashSet::new(),
            remade: HashMap::new(),
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
        let mut _lock = self.begin().await?;
        self.carry().await?;
        while self.cancel.requests() == 0 && self.finds_damage().await? {
            if !self.is_recorded {
                // What was there already is not: this is a run after all.
                self.is_recorded = true;
                self.end_recording().await?;
                self.recorder = Some(Recorder::start(Some(self.place.lineage.clone()), self.readers.clone()));
                _lock = self.begin().await?;
            }
            self.carry().await?;
        }
        if self.recorder.as_ref().is_some_and(Recorder::has_failed) {
            self.end_recording().await?; // says why: nothing more is told or published
        }
        let was_stopped = self.cancel.requests() > 0;
        let seconds = self.began.elapsed().as_secs_f64();
        self.finish(seconds, was_stopped).await
    }

    /// Starts what is ready and watches what runs, until nothing is left to do.
    async fn carry(&mut self) -> Result<(), Failure> {
        let mut stopping = self.cancel.requests();
        // One clock for all turns: workers that talk all the time would set one of each turn back.
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.advance().await?;
            if stopping == 0 {
                self.start_ready().await?;
            } else if self.working.is_empty() {
                break;
            }
            let is_idle = self.working.is_empty() && self.pausing.is_empty() && self.elsewhere.is_empty();
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
                _ = ticks.tick() => self.watch_clocks().await?,
            }
        }
        Ok(())
    }

    /// A result that gc took after the plan found it, and before it was told that this run stands on it, is made anew.
    async fn look_again(&mut self) -> Result<(), Failure> {
        if self.attended.is_none() || super::still_stands(&self.plan, &self.place.store) {
            return Ok(());
        }
        for index in 0..self.plan.stages.len() {
            let Standing::Cached(record) = &self.plan.stages[index].standing else { continue };
            if self.place.store.find_record(&record.key).await?.is_none() {
                match self.states[index].is_over() {
                    true => self.remake(index),
                    false => self.must_run(index),
                }
            }
        }
        Ok(())
    }

    /// A stage has to run after all.
    fn must_run(&mut self, index: usize) {
        let stage = &mut self.plan.stages[index];
        stage.standing = Standing::Waits;
        self.plan.outputs.expect(index, stage.settled.plan.clone(), false);
    }

    /// A stage's result is gone or damaged: it makes it anew, and who waits for it waits again.
    pub(super) fn remake(&mut self, index: usize) {
        *self.remade.entry(index).or_default() += 1;
        self.must_run(index);
        self.left += usize::from(self.states[index].is_over());
        self.has_moved = true;
        self.states[index] = State::Waiting;
        for dependant in self.dependants[index].clone() {
            let dependant = dependant as usize;
            self.unmet[dependant] += 1;
            if matches!(self.states[dependant], State::Ready) {
                self.take_back(dependant);
            }
        }
        self.due.push_back(index);
    }

    /// A stage that could start cannot any more: it waits again.
    fn take_back(&mut self, index: usize) {
        self.scheduler.withdraw(index);
        self.pausing.retain(|(_, paused)| *paused != index);
        self.elsewhere.retain(|waited| waited.index != index);
        self.crowd.retain(|(_, crowded)| *crowded != index);
        self.set(index, State::Waiting);
    }

    async fn begin(&mut self) -> Result<Option<RunLock>, Failure> {
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
        let pipeline = &self.plan.pipeline;
        let row = PipelineRow {
            path: pipeline.source.absolute_path(),
            name: pipeline.name.clone(),
            text: pipeline.source.text.clone(),
            overrides: pipeline.overrides.clone(),
            params: pipeline.params.iter().map(|(name, param)| (name.clone(), param.value.to_json())).collect(),
            resumes: self.ask.resumes.clone(),
            locks: self.ask.locks.clone(),
            selection: self.ask.selection.clone(),
            store: named,
        };
        let view = self.plan.view();
        let in_order = view.stages.iter().zip(&self.plan.order);
        let stages: Vec<PlannedRow> =
            in_order.map(|(view, index)| planned_row(view, &self.plan, *index as usize)).collect();
        // Written while the first stages start; nothing of them is told before it.
        self.note(Note::Begins(Box::new(Opening::new(&self.run, &row, &stages)?)));
        let started = What::RunStarted {
            pipeline: pipeline.name.clone(),
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

    /// Writes it down and tells the readers, what ended in this order.
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
            self.scheduler.finished(index);
        }
        let is_at_work = matches!(state, State::Ready | State::Running(_));
        if !is_at_work && self.claims.remove(&index).is_some() {
            let key = self.plan.stages[index].settled.key;
            if let Some(held) = key.and_then(|key| self.held.remove(&key)) {
                self.due.extend(held);
            }
        }
        if let Some(what) = state.told(self.attempts[index]) {
            self.emit(Some(index), what);
        }
        self.has_failed |= matches!(state, State::Failed(_) | State::Refused { .. });
        self.states[index] = state;
        let is_over = self.states[index].is_over();
        self.left -= usize::from(is_over && !was_over);
        self.has_moved |= is_over;
        let has_broken = is_over && !self.states[index].lets_go_on();
        for dependant in std::mem::take(&mut self.dependants[index]) {
            let dependant = dependant as usize;
            if is_over && !was_over {
                self.unmet[dependant] -= 1;
            }
            if self.unmet[dependant] == 0 || has_broken {
                self.due.push_back(dependant);
            }
            self.dependants[index].push(dependant as u32);
        }
    }

    /// Moves every stage whose needs have ended, or one of whose needs gave nothing.
    pub(super) async fn advance(&mut self) -> Result<(), Failure> {
        while let Some(index) = self.next_due() {
            match self.states[index] {
                State::Waiting => {}
                State::Ready => {
                    self.look_up(index).await?; // what held it has ended
                    continue;
                }
                _ => continue,
            }
            if let Some(because) = self.broken_need(index) {
                self.set(index, State::Skipped { because, by_gate: false });
            } else if self.unmet[index] == 0 {
                self.ready(index).await?;
            }
        }
        Ok(())
    }

    /// The next stage to look at; of those that only a place among the claims keeps from it, as many as there are places.
    fn next_due(&mut self) -> Option<usize> {
        let due = self.due.pop_front();
        due.or_else(|| {
            if self.claims.len() >= self.most_claims {
                return None;
            }
            self.crowd.pop_first().map(|(_, next)| next)
        })
    }

    /// Why a stage cannot run any more. A stage that is skipped takes those with it that must have its data; one that
    /// failed also those that come after it.
    fn broken_need(&self, index: usize) -> Option<String> {
        let needs = self.plan.stages[index].needs.iter().map(|need| *need as usize);
        for need in needs {
            let word = match &self.states[need] {
                State::Failed(_) => "failed",
                State::Refused { .. } => "was refused",
                State::Interrupted => "was interrupted",
                State::Skipped { by_gate: false, .. } => "was skipped",
                _ => continue,
            };
            return Some(format!("`{}` {word}", self.plan.stages[need].def.id));
        }
        None
    }

    /// Every need has ended: decides `when`, settles the stage again and looks its key up.
    async fn ready(&mut self, index: usize) -> Result<(), Failure> {
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
        self.states[index] = State::Ready;
        self.look_up(index).await
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
    async fn look_up(&mut self, index: usize) -> Result<(), Failure> {
        let stage = &self.plan.stages[index];
        let Some(key) = stage.settled.key else {
            return Err(Failure::bug(format!("`{}` was ready without a key", stage.def.id)));
        };
        if let Some(held) = self.held.get_mut(&key) {
            held.push(index);
            return Ok(());
        }
        let is_forced = stage.is_forced();
        if self.claims.len() >= self.most_claims {
            self.crowd.insert((Reverse(self.urgency[index].to_bits()), index));
            return Ok(());
        }
        let waits = Elsewhere { index, since: Instant::now(), is_told: false };
        let Shared::Yes(shared) = self.place.store.try_share()? else {
            self.elsewhere.push(waits);
            return Ok(());
        };
        let Some(claim) = self.place.store.claim(&key)? else {
            self.elsewhere.push(waits);
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
        self.held.insert(key, Vec::new());
        self.claims.insert(index, claim);
        self.queue(index);
        Ok(())
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
        for waited in std::mem::take(&mut self.elsewhere) {
            if !matches!(self.states[waited.index], State::Ready) {
                continue;
            }
            self.look_up(waited.index).await?;
            let Some(again) = self.elsewhere.last_mut().filter(|again| again.index == waited.index) else { continue };
            let is_long = waited.since.elapsed() >= Elsewhere::LONG;
            *again = Elsewhere { is_told: is_long, ..waited };
            if is_long && !waited.is_told {
                let message = "another run is at this stage, or gc at the store: waits for it".to_owned();
                self.emit(Some(waited.index), What::Log { level: "note".into(), message });
            }
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
            Ok(()) => self.states[index] = State::Ready,
            Err(lacking) => self.set(index, State::Failed(demand::too_few_gpus(&stage.def.id, lacking))),
        }
    }

    /// Learns what a stage gave and judges its `require`.
    pub(super) async fn succeed(
        &mut self,
        index: usize,
        record: Arc<KeyRecord>,
        is_cached: bool,
    ) -> Result<(), Failure> {
        let finished = finished(&record);
        let stage = &self.plan.stages[index];
        let refused = self.plan.refusal(stage, &record);
        if let (None, Some((expression, why))) = (&refused, unmet(stage, &record)) {
            let message = format!("{}: a rehearsal goes on", refusal(&expression, &why));
            self.emit(Some(index), What::Log { level: "note".into(), message });
        }
        self.plan.outputs.learn(index, record);
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

    async fn start_ready(&mut self) -> Result<(), Failure> {
        self.foresee();
        while !(self.ask.fail_fast && self.has_failed) {
            let Some((index, lease)) = self.scheduler.next(self.began.elapsed()) else { break };
            if matches!(self.states[index], State::Ready) {
                self.start(index, lease).await?;
            } else {
                self.scheduler.finished(index);
            }
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
            gpus: lease.gpus.iter().map(|ordinal| self.compute.gpus[*ordinal as usize].name.clone()).collect(),
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
            asks_anew: stage.is_forced() && is_first,
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

/// How many claims are held at once: each is an open file, and the rest of the run needs some, too.
fn most_claims() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(256, |(soft, _)| soft);
    usize::try_from(limit / 2).unwrap_or(usize::MAX).clamp(1, MOST_CLAIMS)
}

/// Two words, such as `quiet-otter`.
fn new_name() -> RunId {
    let name = Petnames::small().namer(2, "-").iter(&mut rand::rng()).next();
    RunId(name.unwrap_or_else(|| format!("run-{}", now_ms())))
}
