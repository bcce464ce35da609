//! Runs a plan: starts what is ready, watches it, retries it, commits it, says how it ended.
//!
//! Owns: the states of stages and the one function that changes them, workers, retries, publishing.
//! Must not know: what an operator does, how events are shown.
//! Start at [`run`].

mod attempt;
mod begin;
mod demand;
mod engine;
mod executor;
mod finish;
mod message;
mod pool;
mod publish;
mod queue;
mod record;
mod remake;
mod schedule;
mod secret;
mod serve;
mod state;
#[cfg(test)]
mod tests;
mod turns;
mod unchanged;
mod worker;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use llmflow_contract::{Class, Failure, Machine, Registry, StageId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc::UnboundedSender};

use engine::Ask;
pub use executor::Workers;
pub use publish::{followed, holds, occupied, publish as copy_out};
use secret::Withheld;
pub use serve::serve;
use unchanged::{Question, Unchanged};
pub use worker::worker_main;

use crate::{
    device,
    event::{Compute, Event, Finished, RunId, RunStatus},
    home::Home,
    lineage::Lineage,
    pipeline::{Diagnostic, Diagnostics, Loaded, Overrides, SourceFile},
    plan::{Ground, Plan, PlanError, PlanView, Planned, Selection, Standing},
    remote::{self, Fetching, Remotes},
    store::{Stood, Store},
};

/// What `run` and `plan` are asked.
#[derive(Clone, Default)]
pub struct Options {
    pub pipeline: PathBuf,
    pub home: Option<PathBuf>,
    /// What is asked in place of what the file says.
    pub overrides: Overrides,
    pub remote: remote::Options,
    /// Which stages, and whether those with a result run all the same.
    pub selection: Selection,
    /// Where workers live.
    pub workers: Workers,
    /// Stages at once, at most.
    pub jobs: Option<u32>,
    /// Start nothing more once a stage has failed.
    pub fail_fast: bool,
}

/// Why nothing ran.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Bad(Diagnostics),
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<PlanError> for Error {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Bad(diagnostics) => Self::Bad(diagnostics),
            PlanError::Failure(failure) => Self::Failure(failure),
        }
    }
}

impl Error {
    /// DESIGN.md §6.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bad(_) => 2,
            Self::Failure(failure) => match failure.class {
                Class::Input => 2,
                Class::Bug => 101,
                Class::Cancelled => 130,
                _ => 3,
            },
        }
    }
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageStatus {
    Ran,
    Cached,
    Failed,
    Refused,
    Skipped,
    Interrupted,
}

impl StageStatus {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ran => "ran",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
        }
    }
}

/// How one stage ended, and what it gave.
#[derive(Clone, Debug)]
pub struct StageOutcome {
    pub stage: StageId,
    pub operator: String,
    pub status: StageStatus,
    pub finished: Option<Finished>,
    pub failure: Option<Failure>,
    /// The expression that does not hold, and why.
    pub refused: Option<(String, String)>,
    pub skipped_because: Option<String>,
    pub seconds: f64,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub pipeline: String,
    /// The home it took place in.
    pub home: PathBuf,
    /// None: there was nothing to do.
    pub run: Option<RunId>,
    pub status: RunStatus,
    pub exit_code: u8,
    pub plan: PlanView,
    /// Empty where nothing was looked at one by one, because nothing at all had changed.
    pub stages: Vec<StageOutcome>,
    /// Stages whose result was there already.
    pub cached: usize,
    /// Stages of which nothing came, and nothing was to come.
    pub skipped: usize,
    pub published: Vec<PathBuf>,
    /// What an earlier run published, and this one has nothing for: the stage it came from was skipped.
    pub left: Vec<PathBuf>,
    /// Why some paths could not be published; the stages are done all the same.
    pub unpublished: Vec<Failure>,
    /// Where the user wants the report.
    pub report_to: Vec<PathBuf>,
    pub seconds: f64,
}

impl Outcome {
    /// Nothing to do: everything is as it was when a run of this file ended.
    fn unchanged(unchanged: Unchanged, home: PathBuf, seconds: f64) -> Self {
        Self {
            pipeline: unchanged.pipeline,
            home,
            run: None,
            status: RunStatus::Done,
            exit_code: 0,
            plan: PlanView::default(),
            stages: Vec::new(),
            cached: unchanged.stages - unchanged.skipped,
            skipped: unchanged.skipped,
            published: unchanged.published,
            left: Vec::new(),
            unpublished: Vec::new(),
            report_to: unchanged.reports,
            seconds,
        }
    }
}

/// A request to stop: the first lets each stage save, the second kills.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<(AtomicU8, Notify)>);

impl Cancel {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn request(&self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        self.0.1.notify_waiters();
        self.0.1.notify_one();
    }
    pub fn requests(&self) -> u8 {
        self.0.0.load(Ordering::SeqCst)
    }
    /// Resolves at the next request.
    async fn requested(&self) {
        self.0.1.notified().await;
    }
}

/// What every command that plans opens first.
struct Opened {
    home: Home,
    store: Store,
    stood: Stood,
    lineage: Lineage,
}

/// The parsed file, the home with its history, and the store that the pipeline names, else the home's own.
async fn open(
    source: SourceFile,
    overrides: &Overrides,
    registry: &Registry,
    home: Home,
) -> Result<(Loaded, Opened), Error> {
    // While the file is parsed, the history is opened and what stood for the file is read.
    let stood = Stood::recall(&home.work(), &source.location());
    let lineage = tokio::spawn({
        let home = home.clone();
        async move { Lineage::open(&home).await }
    });
    let loaded = crate::pipeline::load(source, overrides, registry);
    let store = match &loaded.pipeline.store {
        None => Store::open_local(&home.store()),
        Some(named) if named.value.contains("://") => Store::open(&named.value),
        Some(named) => Store::open_local(&crate::plan::absolute(loaded.pipeline.source.base()).join(&named.value)),
    };
    let store = match (store, &loaded.pipeline.store) {
        (Err(failure), Some(named)) if failure.class == Class::Input => {
            let mut diagnostics = Diagnostics::new(loaded.pipeline.source.clone());
            let diagnostic = Diagnostic::new(&failure.code, failure.message, named.span);
            diagnostics.push(diagnostic.help(failure.help.unwrap_or_default()));
            return Err(Error::Bad(diagnostics));
        }
        (store, _) => store?.in_home(&home.work()),
    };
    let lineage = lineage.await.map_err(|error| Failure::bug(error.to_string()))?;
    let lineage = lineage.map_err(|failure| home.with_free_space(failure))?;
    Ok((loaded, Opened { home, store, stood, lineage }))
}

/// Does all that a plan found in the store still stand? Whatever came since does no harm.
fn still_stands(plan: &Plan, store: &Store) -> bool {
    plan.removals.is_some() && store.removals() == plan.removals
}

fn machine_of(compute: &Compute) -> Machine {
    Machine { cores: compute.cores, memory_bytes: compute.memory_bytes, usable_gpus: compute.usable_gpus }
}

/// What a plan with something to do may compute on.
async fn compute_for(plan: &Plan) -> Result<Compute, Failure> {
    let found = if plan.wants_gpus() { device::inventory().await? } else { device::glance().await? };
    Ok(Compute { asked_gpus: plan.asked_gpus().min(found.gpus.len() as u32), ..found })
}

/// Runs today's file; picks up everything already done.
///
/// # Errors
/// Bad input, or an environment in which nothing can start. A stage that fails is an [`Outcome`].
pub async fn run(
    options: Options,
    registry: &Registry,
    events: UnboundedSender<Event>,
    cancel: Cancel,
) -> Result<Outcome, Error> {
    let source = SourceFile::read(&options.pipeline)?;
    let home = Home::open(options.home.as_deref(), source.base())?;
    let machine = machine_of(&device::limits());
    let is_plain = options.selection.is_plain() && options.remote == remote::Options::default();
    let question = is_plain.then(|| Question::new(&home, &source, &options.overrides, registry, &machine));
    if let Some(question) = &question {
        let began = std::time::Instant::now();
        let store = Store::open_local(&home.store())?.in_home(&home.work());
        let base = crate::plan::absolute(source.base());
        if let Some(unchanged) = question.answer(&home, &store, registry, &base, &machine) {
            return Ok(Outcome::unchanged(unchanged, home.root().to_owned(), began.elapsed().as_secs_f64()));
        }
    }
    let (loaded, opened) = open(source, &options.overrides, registry, home).await?;
    let Options { selection, remote, workers, jobs, fail_fast, .. } = options;
    let ask = Ask { selection, remote, workers, jobs, fail_fast, question, ..Ask::default() };
    start(loaded, opened, ask, registry, events, cancel).await
}

/// Continues exactly a run: its recorded file and params.
pub async fn resume(
    run: &str,
    home: Option<PathBuf>,
    registry: &Registry,
    events: UnboundedSender<Event>,
    cancel: Cancel,
) -> Result<Outcome, Error> {
    let home = Home::open(home.as_deref(), std::path::Path::new("."))?;
    let lineage = Lineage::open(&home).await?;
    let id = lineage.find_run(run).await?;
    let _lock = home.lock(&id)?; // of two that resume one run, one works
    let recorded = lineage.pipeline_of(&id).await?;
    let source = SourceFile::new(home.here(&recorded.path)?, recorded.text);
    if !source.base().is_dir() {
        let message =
            format!("the folder of `{}` is gone, and what the run reads and publishes with it", source.path.display());
        let help = "bring it back, or run the pipeline where it lies now: what is done already is not done again";
        return Err(Failure::input("resume/gone", message).help(help).into());
    }
    let (loaded, opened) = open(source, &recorded.overrides, registry, home).await?;
    let done = lineage.ended_well(&id).await?;
    let selection = Selection { done, ..recorded.selection };
    let ask = Ask { resumes: Some(id), locks: recorded.locks, selection, ..Ask::default() };
    start(loaded, opened, ask, registry, events, cancel).await
}

async fn start(
    loaded: Loaded,
    opened: Opened,
    ask: Ask,
    registry: &Registry,
    events: UnboundedSender<Event>,
    cancel: Cancel,
) -> Result<Outcome, Error> {
    let home = opened.home.clone();
    let carried = carry(loaded, opened, ask, registry, events, cancel).await;
    carried.map_err(|error| match error {
        Error::Failure(failure) => Error::Failure(home.with_free_space(failure)),
        bad => bad,
    })
}

async fn carry(
    loaded: Loaded,
    opened: Opened,
    mut ask: Ask,
    registry: &Registry,
    events: UnboundedSender<Event>,
    cancel: Cancel,
) -> Result<Outcome, Error> {
    let limits = device::limits();
    let Opened { home, store, mut stood, lineage } = opened;
    let mut remotes = Remotes::open(loaded.pipeline.source.base(), &home, ask.remote, cancel.clone())?;
    remotes.pin(std::mem::take(&mut ask.locks));
    if store.url().starts_with("memory://") {
        ask.workers = Workers::Threads(Arc::new(registry.clone())); // no other process could look into it
    }
    let machine = machine_of(&limits);
    let ground = Ground { registry, store: &store, stood: &mut stood, lineage: Some(&lineage), machine };
    let plan = Plan::build(loaded, &ask.selection, ground, &mut remotes).await?;
    ask.stood = Some(stood);
    remotes.save()?;
    ask.locks = remotes.of_pipeline();
    if remotes.is_offline() {
        remote::require_here(&plan, &remotes).await?;
    }
    check_disk(&plan, &home, &store)?;
    ask.is_news = plan.has_work() || !is_told(&plan, &store, &lineage).await?;
    let compute = if plan.has_work() { compute_for(&plan).await? } else { limits };
    check_demands(&plan, &compute)?;
    let place = engine::Place { home, store, lineage };
    let withheld = Withheld::of_plan(registry, &plan);
    withheld.hide();
    let engine = engine::Engine::new(plan, place, compute, ask, withheld, events, cancel)?;
    Ok(engine.run().await?)
}

/// Does the newest run in the history say of a plan in which nothing is left to do what there is to say? Not of results
/// that another home made, that an earlier version of the file had, or whose run could not be written down.
async fn is_told(plan: &Plan, store: &Store, lineage: &Lineage) -> Result<bool, Failure> {
    let stages = plan.stages.iter().map(|stage| {
        let told = match &stage.standing {
            Standing::Cached(record) => Some(Some(record.key)), // of a frozen stage another than its own now
            standing => (!standing.is_left_out()).then_some(None),
        };
        (&stage.def.id, told)
    });
    let pipeline = &plan.pipeline;
    let place = pipeline.store.is_some().then(|| store.url());
    lineage.tells_of((&pipeline.name, &pipeline.source.absolute_path()), place.as_deref(), stages).await
}

/// What cannot fit on the disk is refused before it starts, not an hour later.
fn check_disk(plan: &Plan, home: &Home, store: &Store) -> Result<(), Failure> {
    /// Forecasts of less are guesses: nothing is refused for them.
    const KNOWN_BYTES: u64 = 256 << 20;
    let to_run = (0..plan.stages.len()).filter(|index| !plan.stages[*index].is_settled());
    let forecasts = to_run.map(|index| plan.forecast(index).disk_bytes);
    let wanted: u64 = forecasts.filter(|bytes| *bytes >= KNOWN_BYTES).sum();
    let free = home.free_bytes().filter(|free| store.local().is_some() && wanted > *free);
    let Some(free) = free else { return Ok(()) };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (wanted, free) = (mib(wanted), mib(free));
    let message = format!("no space left for what this run leaves: about {wanted:.1} MiB, and {free:.1} MiB are free");
    Err(Failure::environment("disk/too-small", message)
        .help("free some space (llmflow gc --dry-run says what can go), or move the state with `--home FOLDER`"))
}

/// What no machine state will ever let run is refused before anything starts: demands that this machine cannot meet, secrets
/// that are not set. Of stages that certainly run: one that waits may find its result, in a store that others write to or from
/// an earlier run, and what a gate decides may be skipped.
fn check_demands(plan: &Plan, compute: &Compute) -> Result<(), Failure> {
    /// Further failures that are told beside the first.
    const MOST_TOLD: usize = 5;
    let has_gates = plan.stages.iter().any(|stage| matches!(stage.standing, Standing::Gate));
    let is_alone = plan.pipeline.store.is_none() && !has_gates;
    let will_run = plan.stages.iter().filter(|stage| match stage.standing {
        Standing::Run(_) => true,
        Standing::Waits => is_alone && stage.last.is_none(),
        _ => false,
    });
    let mut failures = will_run.filter_map(|stage| demand::hindrance(stage, compute));
    match failures.next() {
        Some(first) => Err(failures.take(MOST_TOLD).fold(first, |first, more| first.cause(more.message))),
        None => Ok(()),
    }
}

/// What `run` would do, and on what.
#[derive(Clone, Debug)]
pub struct Planning {
    /// Its name.
    pub pipeline: String,
    pub plan: PlanView,
    pub compute: Compute,
}

/// Says what `run` would do.
pub async fn plan(options: Options, registry: &Registry) -> Result<Planning, Error> {
    let source = SourceFile::read(&options.pipeline)?;
    let home = Home::open(options.home.as_deref(), source.base())?;
    let (loaded, Opened { home, store, mut stood, lineage }) = open(source, &options.overrides, registry, home).await?;
    // What it finds out about remote sources is not written: a look changes nothing.
    let mut remotes = Remotes::open(loaded.pipeline.source.base(), &home, options.remote, Cancel::new())?;
    let limits = device::limits();
    let machine = machine_of(&limits);
    let ground = Ground { registry, store: &store, stood: &mut stood, lineage: Some(&lineage), machine };
    let plan = Plan::build(loaded, &options.selection, ground, &mut remotes).await?;
    if plan.found_anew > 0 && still_stands(&plan, &store) {
        stood.keep(&store, plan.records());
    }
    let compute = if plan.has_work() { compute_for(&plan).await? } else { limits };
    check_disk(&plan, &home, &store)?;
    check_demands(&plan, &compute)?;
    Ok(Planning { plan: plan.view(), pipeline: plan.pipeline.name, compute })
}

/// Downloads every source of a pipeline, so that a run needs no network; gives the stages that have some.
///
/// # Errors
/// Those of planning; the first source that cannot be had.
pub async fn fetch(
    options: Options,
    registry: &Registry,
    report: impl Fn(Fetching) + Clone + Send + Sync + 'static,
    cancel: Cancel,
) -> Result<Vec<StageId>, Error> {
    let source = SourceFile::read(&options.pipeline)?;
    let home = Home::open(options.home.as_deref(), source.base())?;
    let (loaded, Opened { home, store, mut stood, lineage }) = open(source, &options.overrides, registry, home).await?;
    let mut remotes = Remotes::open(loaded.pipeline.source.base(), &home, options.remote, cancel)?;
    let machine = machine_of(&device::limits());
    let ground = Ground { registry, store: &store, stood: &mut stood, lineage: Some(&lineage), machine };
    let plan = Plan::build(loaded, &Selection::default(), ground, &mut remotes).await?;
    remotes.save()?;
    Ok(remote::fetch(&plan, &remotes, report).await?)
}

/// What a file that is right holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    pub stages: usize,
    /// How many of them a matrix gives.
    pub from_matrix: usize,
}

/// Checks a file without a home.
pub async fn check(pipeline: &std::path::Path, overrides: &Overrides, registry: &Registry) -> Result<Checked, Error> {
    let source = SourceFile::read(pipeline)?;
    let loaded = crate::pipeline::load_with_profiles(source, overrides, registry);
    let (store, machine) = (Store::open("memory://check")?, machine_of(&device::limits()));
    let mut remotes = Remotes::locked_only(loaded.pipeline.source.base())?;
    let ground = Ground { registry, store: &store, stood: &mut Stood::nothing(), lineage: None, machine };
    let plan = Plan::build(loaded, &Selection::default(), ground, &mut remotes).await?;
    let from_matrix = plan.stages.iter().filter(|stage| stage.def.shared.matrix.is_some()).count();
    Ok(Checked { stages: plan.stages.len(), from_matrix })
}

/// Does a stage whose result is there already miss its `require`?
fn is_refused(plan: &Plan, stage: &Planned) -> bool {
    matches!(&stage.standing, Standing::Cached(record) if plan.refusal(stage, record).is_some())
}
