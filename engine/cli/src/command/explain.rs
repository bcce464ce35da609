//! `explain`

use llmflow_contract::{Failure, StageId};
use llmflow_runtime::{
    address::Address,
    event::{Event, RunId, What},
    lineage::{PipelineRow, StageRow},
    pipeline::{self, Loaded, Overrides, SourceFile},
    plan::{Change, key},
    run::Error,
};

use super::{DONE, Setting, block_on, history::History};
use crate::{
    args::ExplainArgs,
    render::{
        explain::{self as screen, Explained},
        when,
    },
};

/// Says why a stage ran, or why it did not.
pub fn explain(args: ExplainArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let (run, stages, wanted) = history.lineage.find_stage(&Address::parse(&args.address)?).await?;
        let it = explained(&history, run, &stages, wanted, setting).await?;
        let out = setting.screen;
        if out.json {
            out.print_json(&it);
        } else {
            out.print(&screen::explain(&it, &when::now(), out.width, out.paint));
        }
        Ok(DONE)
    })
}

async fn explained(
    history: &History,
    run: RunId,
    stages: &[StageRow],
    wanted: usize,
    setting: &Setting<'_>,
) -> Result<Explained, Failure> {
    let stage = &stages[wanted];
    let lineage = &history.lineage;
    let components = lineage.components_of(&run, &stage.stage).await?;
    let before = lineage.success_before(&run, &stage.stage).await?;
    let mut changes = match (&components, &before) {
        (Some(now), Some(before)) => key::changes(&before.components, now),
        _ => Vec::new(),
    };
    let loaded = reload(&lineage.pipeline_of(&run).await?, setting);
    let back = trace_origins(&mut changes, stage, &loaded);
    let (then, same) = following(stages, &stage.stage);
    let reason = reason(lineage.events(&run).await?, stage);
    Ok(Explained {
        stage: stage.stage.clone(),
        status: stage.status.clone(),
        then_seconds: then.iter().filter_map(|stage| stage.seconds).sum(),
        then: then.iter().map(|stage| stage.stage.clone()).collect(),
        same: same.iter().map(|stage| stage.stage.clone()).collect(),
        before: before.map(|before| (before.run.to_string(), before.started_ms)),
        run: run.to_string(),
        components,
        changes,
        back,
        reason,
    })
}

/// The run's own file, read again: it knows where each value comes from.
pub fn reload(recorded: &PipelineRow, setting: &Setting) -> Loaded {
    let source = SourceFile::new(&recorded.path, &recorded.text);
    pipeline::load(source, &Overrides::from(recorded.set.as_slice()), setting.registry)
}

/// Notes where new values come from; gives the `--set` that bring back the old ones, if all can be brought back so.
fn trace_origins(changes: &mut [Change], stage: &StageRow, loaded: &Loaded) -> Vec<String> {
    let def = loaded.stages.iter().find(|def| def.id == stage.stage);
    let mut back = Vec::new();
    for change in changes.iter_mut() {
        if let Some(port) = change.part.strip_prefix("in.") {
            change.origin = makers(stage, port);
        }
        let origin = change.part.strip_prefix("with.").and_then(|param| def?.origin_of(param));
        if let Some(origin) = origin {
            change.origin = Some(origin.describe(&loaded.pipeline.source));
        }
        let set = origin.and_then(|origin| Some(format!("--set {}={}", origin.param()?, change.before.as_ref()?)));
        back.push(set);
    }
    back.into_iter().collect::<Option<Vec<String>>>().unwrap_or_default()
}

/// The stages that gave an input: explaining one of them goes on from here.
fn makers(stage: &StageRow, port: &str) -> Option<String> {
    let inputs = stage.inputs.iter().filter(|input| input.port.as_str() == port);
    let names: Vec<&str> = inputs.map(|input| input.from_stage.as_str()).collect();
    (!names.is_empty()).then(|| format!("given by {}", names.join(", ")))
}

/// Every stage that reads, directly or not, what this one gives: those that ran, and those that did not have to.
fn following<'a>(stages: &'a [StageRow], first: &StageId) -> (Vec<&'a StageRow>, Vec<&'a StageRow>) {
    let mut names = vec![first];
    let mut found = Vec::new();
    for stage in stages {
        if stage.inputs.iter().any(|input| names.contains(&&input.from_stage)) {
            names.push(&stage.stage);
            found.push(stage);
        }
    }
    found
        .into_iter()
        .filter(|stage| matches!(stage.status.as_str(), "ran" | "cached" | "refused" | "failed"))
        .partition(|stage| stage.status != "cached")
}

/// What the run said of a stage that gave nothing.
fn reason(events: Vec<Event>, stage: &StageRow) -> Option<String> {
    if let Some(failure) = &stage.failure {
        return Some(failure.to_string());
    }
    events.into_iter().rev().filter(|event| event.stage.as_ref() == Some(&stage.stage)).find_map(|event| {
        match event.what {
            What::Skipped { because } => Some(because),
            What::Refused { why, .. } => Some(format!("refused: {why}")),
            _ => None,
        }
    })
}
