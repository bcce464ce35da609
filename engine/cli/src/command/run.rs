//! `run`, and what `resume` shares with it.

use std::path::PathBuf;

use llmflow_contract::{Failure, Kind, Registry, StageId};
use llmflow_runtime::{
    event::{Event, RunId, RunStatus},
    lineage::RunFilter,
    pipeline::{InputRef, Loaded},
    run::{self, Cancel, Error, Outcome, StageStatus},
};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{Setting, block_on, history::History, pipeline_file, plan, serve};
use crate::{
    args::{PlanArgs, RunArgs},
    interrupt::Interrupts,
    render::{
        asked::Asked,
        end::{self, Scene},
        error, events, format,
        typed::Place,
    },
    report,
};

/// Said at the first Ctrl-C.
const STOPPING: &str = "stopping: every running stage saves its work first; Ctrl-C again stops at once";

/// Runs a pipeline.
pub fn run(args: RunArgs, setting: &Setting) -> Result<u8, Error> {
    if args.dry_run {
        let RunArgs { pipeline, selection, remote, .. } = args;
        let args = PlanArgs { pipeline, selection, remote, exit_code: false, graph: None };
        return plan::plan(args, setting);
    }
    let mut options = pipeline_file::options(&args.pipeline, args.remote, setting.home.as_deref())?;
    (options.jobs, options.fail_fast) = (args.jobs, args.fail_fast);
    options.selection = args.selection.selection();
    let (file, asked) = (options.pipeline.clone(), Asked::of(&options.overrides, &options.selection));
    // Read here only for this: a run in which nothing changed does not read it at all.
    let deployed = match args.serve {
        true => Some(deployed(&pipeline_file::load(&options, setting.registry)?, setting.registry)?),
        false => None,
    };
    say_rehearsal(asked.limit, setting);
    block_on(async {
        let outcome = watched(setting, |events, cancel| run::run(options, setting.registry, events, cancel)).await?;
        let outcome = with_reports(outcome).await?;
        finish(&outcome, file, asked, setting).await;
        match deployed {
            Some(deployed) if outcome.exit_code == 0 => {
                let history = History::open(Some(&outcome.home)).await?;
                let run = match &outcome.run {
                    Some(run) => run.clone(),
                    None => newest_done(&history, &outcome.pipeline).await?,
                };
                let address = format!("{run}/{}.{}", deployed.input.stage, deployed.input.port);
                let home = history.home.root().to_owned();
                serve::keep_up(&address, deployed.params, Some(home), setting).await
            }
            _ => Ok(outcome.exit_code),
        }
    })
}

/// Says before a rehearsal what is not done in it.
pub fn say_rehearsal(limit: Option<u64>, setting: &Setting) {
    if let Some(limit) = limit {
        setting.screen.say(&format!("a rehearsal, {}: nothing is published", format::limited(limit)));
    }
}

/// Carries out a run while its events are shown and signals are heard.
pub async fn watched<F>(
    setting: &Setting<'_>,
    start: impl FnOnce(UnboundedSender<Event>, Cancel) -> F,
) -> Result<Outcome, Error>
where
    F: Future<Output = Result<Outcome, Error>>,
{
    let (sender, receiver) = unbounded_channel();
    let cancel = Cancel::new();
    let first = if setting.screen.is_live { "" } else { STOPPING };
    let _interrupts = Interrupts::watch(cancel.clone(), setting.screen, first)?;
    let reader = tokio::spawn(events::show(receiver, setting.screen.clone(), cancel.clone()));
    let outcome = start(sender, cancel).await;
    let _ = reader.await; // ends when the engine has let go of its end
    outcome
}

/// Writes the run's report where the user wants it; a run with nothing to do only where it is missing.
///
/// # Errors
/// Those of history and store. A report that cannot be written is a path that could not be published.
pub async fn with_reports(mut outcome: Outcome) -> Result<Outcome, Failure> {
    let is_wanted = |path: &&PathBuf| outcome.run.is_some() || !path.exists();
    let wanted: Vec<&PathBuf> = outcome.report_to.iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        return Ok(outcome);
    }
    let history = History::open(Some(&outcome.home)).await?;
    let run = match &outcome.run {
        Some(run) => run.clone(),
        None => newest_done(&history, &outcome.pipeline).await?,
    };
    let history = history.of_run(&run).await?;
    let data = report::collect(&history.lineage, &history.store, &history.home, &run).await?;
    let failures: Vec<Failure> = wanted.into_iter().filter_map(|path| report::write(&data, path).err()).collect();
    if !failures.is_empty() {
        outcome.unpublished.extend(failures);
        outcome.exit_code = outcome.exit_code.max(1);
        if outcome.status == RunStatus::Done {
            outcome.status = RunStatus::Failed;
        }
    }
    Ok(outcome)
}

/// The end of a run of this file, as typed or as recorded, on the screen.
pub async fn finish(outcome: &Outcome, file: PathBuf, asked: Asked, setting: &Setting<'_>) {
    let screen = setting.screen;
    for failure in &outcome.unpublished {
        match screen.json {
            true => screen.print_json(&serde_json::json!({ "event": "unpublished", "failure": failure })),
            false => screen.warn(&error::failure(failure, screen.talk.0)),
        }
    }
    if screen.json {
        if outcome.run.is_none() {
            let (cached, seconds) = (outcome.cached, outcome.seconds);
            screen.print_json(&serde_json::json!({ "event": "nothing_to_do", "cached": cached, "seconds": seconds }));
        }
        return;
    }
    let scene = Scene {
        pipeline: file,
        place: Place::here(),
        asked: recorded(outcome).await.unwrap_or(asked),
        talks: talks(outcome, setting.registry),
        width: screen.width,
        paint: screen.talk,
    };
    let text = end::end(outcome, &scene);
    if outcome.status == RunStatus::Done { screen.say(&text) } else { screen.warn(&text) }
}

/// What was asked of a run that is to be gone on with, as its home has it: the variables that its file read are known there.
async fn recorded(outcome: &Outcome) -> Option<Asked> {
    let run = outcome.run.as_ref().filter(|_| outcome.status != RunStatus::Done)?;
    let history = History::open(Some(&outcome.home)).await.ok()?;
    let row = history.lineage.pipeline_of(run).await.ok()?;
    Some(Asked::recorded_here(&row))
}

/// The last stage whose main output some operator can serve.
fn talks(outcome: &Outcome, registry: &Registry) -> Option<StageId> {
    let is_servable = |operator: &str| {
        let entry = registry.find(operator)?;
        let kind = entry.outputs.first()?.accepts.to_string();
        registry.serving(&Kind::new(kind)).map(|_| ())
    };
    let has_result = |status| matches!(status, StageStatus::Ran | StageStatus::Cached);
    let mut stages = outcome.stages.iter().rev();
    stages
        .find(|stage| has_result(stage.status) && is_servable(&stage.operator).is_some())
        .map(|stage| stage.stage.clone())
}

/// What a pipeline deploys: the server's params and the artifact it serves.
struct Deployed {
    params: Value,
    input: InputRef,
}

/// The last stage whose operator keeps a service up.
fn deployed(loaded: &Loaded, registry: &Registry) -> Result<Deployed, Failure> {
    let serves = |op: &str| registry.find(op).is_some_and(|entry| !entry.serves.is_empty());
    let stage = loaded.stages.iter().rev().find(|stage| stage.sound && serves(&stage.shared.op));
    let found = stage.and_then(|stage| {
        let input = stage.inputs.first()?.1.first()?.clone();
        Some(Deployed { params: stage.with(), input })
    });
    // A file with errors is refused by the run itself, with all of them.
    match found {
        Some(found) => Ok(found),
        None if !loaded.diagnostics.is_empty() => {
            Err(Failure::input("cli/serve", "the file has errors: llmflow check lists them"))
        }
        None => Err(Failure::input("cli/serve", "`--serve` keeps a deployed model up, and this pipeline deploys none")
            .help("add a stage with an operator that serves, such as `op: deploy.serve`; or afterwards: llmflow serve @/STAGE")),
    }
}

/// The newest run of this pipeline that is done: where a run with nothing to do has its results.
async fn newest_done(history: &History, pipeline: &str) -> Result<RunId, Failure> {
    let filter = RunFilter { pipeline: Some(pipeline.to_owned()), status: Some(RunStatus::Done), limit: Some(1) };
    let done = history.lineage.runs(&filter).await?;
    done.into_iter()
        .next()
        .map(|row| row.run)
        .ok_or_else(|| Failure::input("lineage/run", "no run of this pipeline is done yet"))
}
