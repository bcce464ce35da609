//! The run itself: one state a stage, one function that changes it, one loop that carries.
//!
//! Nothing here looks at every stage when one of them ends, the last few aside: each stage counts the needs that it still
//! waits for.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use llmflow_contract::{Failure, Locks};
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Cancel, Outcome, begin, demand,
    executor::{Executor, Workers},
    pool::{Pool, WorkerId},
    record::RunRecords,
    remake::Remade,
    schedule::{Scheduler, urgencies},
    secret::Withheld,
    state::State,
    turns::Turns,
    unchanged::Question,
};
use crate::{
    device,
    event::{Compute, Event, RunId, What, now_ms, refusal},
    home::Home,
    lineage::{Lineage, Note, Recorder},
    plan::{Plan, Selection, finished, unmet},
    remote,
    store::{Claim, KeyRecord, Stood, Store},
};

/// How often timeouts and pauses are looked at.
const TICK: Duration = Duration::from_millis(100);

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
    /// Whose turn it is to work on its key, and who waits for that.
    pub(super) turns: Turns,
    pub(super) is_recorded: bool,
    pub(super) ask: Ask,
    pub(super) records: RunRecords,
    pub(super) recorder: Option<Recorder>,
    pub(super) readers: UnboundedSender<Event>,
    pub(super) scheduler: Scheduler,
    pub(super) began: Instant,
    pub(super) urgency: Vec<f64>,
    /// What each stage's matrix limits, if it does.
    pub(super) groups: Vec<Option<usize>>,
    /// Needs of each waiting stage that have not ended.
    pub(super) unmet: Vec<u32>,
    /// How many stages have not ended.
    pub(super) left: usize,
    /// Has any stage ended since the scheduler was shown the last ones?
    pub(super) has_moved: bool,
    pub(super) dependants: Vec<Vec<u32>>,
    /// Waiting stages to look at.
    pub(super) due: VecDeque<usize>,
    /// While it is held, gc leaves alone what this run makes and stands on.
    pub(super) attended: Option<Claim>,
    /// Stages that have a checkpoint to go on from.
    pub(super) saved: HashSet<usize>,
    /// Stages that are made again in this run.
    pub(super) remade: HashMap<usize, Remade>,
    /// Running stages of which an input was made again since they started, and has other bytes.
    pub(super) stale: HashSet<usize>,
    /// Failed attempts of each stage since all that it reads was there.
    pub(super) tries: Vec<u32>,
    pub(super) has_failed: bool,
    /// Were GPUs looked for with their memory?
    pub(super) knows_gpus: bool,
    /// The run that this one goes on with, and that one, to the first of them.
    pub(super) first: RunId,
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
            run: begin::new_name(),
            working: HashMap::new(),
            turns: Turns::new(),
            attended: None,
            saved: HashSet::new(),
            remade: HashMap::new(),
            stale: HashSet::new(),
            tries: vec![0; count],
            records: RunRecords::default(),
            has_failed: false,
            knows_gpus: plan.wants_gpus() || device::is_fake(),
            first: RunId(String::new()),
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
        while self.cancel.requests() == 0 && self.will_publish() && self.finds_damage().await? {
            if !self.is_recorded {
                // What was there already is not: this is a run after all.
                self.is_recorded = true;
                self.end_recording().await?;
                self.recorder = Some(Recorder::start(Some(self.place.lineage.clone()), self.readers.clone()));
                self.look_for_gpus().await?;
                _lock = self.begin().await?;
                self.tell_again();
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
            let gives_up = self.ask.fail_fast && self.has_failed;
            let is_idle = self.working.is_empty() && (gives_up || self.turns.is_idle());
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

    /// Writes it down and tells the readers, what ended in this order.
    pub(super) fn emit(&self, stage: Option<usize>, what: What) {
        let stage = stage.map(|index| self.plan.stages[index].def.id.clone());
        self.note(Note::Event(Event { at_ms: now_ms(), run: self.run.clone(), stage, what }));
    }

    /// Says something of a stage that its user should read.
    pub(super) fn remark(&self, index: usize, message: String) {
        self.emit(Some(index), What::Log { level: "note".into(), message });
    }

    pub(super) fn note(&self, note: Note) {
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
        let was = std::mem::replace(&mut self.states[index], state);
        let is = &self.states[index];
        match (&was, is) {
            (State::Running(attempt), _) => {
                self.working.remove(&attempt.worker);
                self.scheduler.finished(index);
            }
            (State::Queued, State::Running(_)) => {} // the scheduler itself started it
            (State::Queued, _) => self.scheduler.withdraw(index),
            _ => {}
        }
        self.due.extend(self.turns.follow(index, self.urgency[index], &was, is));
        if let Some(what) = is.told(self.attempts[index]) {
            self.emit(Some(index), what);
        }
        self.has_failed |= matches!(is, State::Failed(_) | State::Refused { .. });
        let (was_over, is_over, has_broken) = (was.is_over(), is.is_over(), is.is_over() && !is.lets_go_on());
        if !was_over && !is_over {
            return;
        }
        self.has_moved = true;
        self.left = self.left + usize::from(was_over) - usize::from(is_over);
        for dependant in &self.dependants[index] {
            let unmet = &mut self.unmet[*dependant as usize];
            *unmet = *unmet + u32::from(was_over) - u32::from(is_over);
            if is_over && (*unmet == 0 || has_broken) {
                self.due.push_back(*dependant as usize);
            }
        }
    }

    /// Moves every stage whose needs have ended, or one of whose needs gave nothing.
    pub(super) async fn advance(&mut self) -> Result<(), Failure> {
        while let Some(index) = self.next_due() {
            match self.states[index] {
                State::Waiting => {}
                State::Held(_) => {
                    self.look_up(index).await?; // what held it has ended
                    continue;
                }
                _ => continue,
            }
            if self.cancel.requests() > 0 && self.needs_interrupted(index) {
                continue; // whoever goes on comes to it
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
        due.or_else(|| self.turns.next_of_crowd())
    }

    fn needs_interrupted(&self, index: usize) -> bool {
        let needs = &self.plan.stages[index].needs;
        needs.iter().any(|need| matches!(self.states[*need as usize], State::Interrupted))
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
            self.remark(index, format!("{}: a rehearsal goes on", refusal(&expression, &why)));
        }
        self.plan.outputs.learn(index, record);
        let ended = if is_cached { State::Cached(finished.clone()) } else { State::Ran(finished.clone()) };
        match refused {
            Some((expression, why)) => {
                // Committed first, then judged: readers hear both.
                if let Some(what) = ended.told(self.attempts[index]) {
                    self.emit(Some(index), what);
                }
                self.set(index, State::Refused { finished: finished.clone(), expression, why });
            }
            None => self.set(index, ended),
        }
        self.spread(index, &finished);
        if self.is_recorded && !is_cached {
            self.save_run_record(false).await?;
        }
        Ok(())
    }
}
