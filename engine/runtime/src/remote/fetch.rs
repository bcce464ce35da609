//! Brings what stages read from afar to this machine, before they run.

use llmflow_contract::{Failure, Progress, Source, StageId};

use super::Remotes;
use crate::plan::{Plan, Planned};

/// How far a stage's files are.
#[derive(Clone, Debug)]
pub struct Fetching {
    pub stage: StageId,
    pub progress: Progress,
    pub is_done: bool,
}

/// Fetches the sources of every stage, one after the other; gives the stages that had some.
///
/// # Errors
/// The first source that cannot be had; what came before it is kept.
pub async fn fetch(
    plan: &Plan,
    remotes: &Remotes,
    report: impl Fn(Fetching) + Clone + Send + Sync + 'static,
) -> Result<Vec<StageId>, Failure> {
    fetch_of(plan.stages.iter(), remotes, report).await
}

/// Without a network every source must be here before anything starts, not be missed an hour later.
///
/// # Errors
/// The first source of a stage to run that is not on this machine.
pub async fn require_here(plan: &Plan, remotes: &Remotes) -> Result<(), Failure> {
    let to_run = plan.stages.iter().filter(|stage| !stage.is_settled());
    fetch_of(to_run, remotes, |_| {}).await.map(|_| ())
}

async fn fetch_of(
    stages: impl Iterator<Item = &Planned>,
    remotes: &Remotes,
    report: impl Fn(Fetching) + Clone + Send + Sync + 'static,
) -> Result<Vec<StageId>, Failure> {
    let Some(hook) = &remotes.hook else { return Ok(Vec::new()) };
    let mut fetched = Vec::new();
    for stage in stages {
        let is_remote = |source: &Source| matches!(source, Source::Pinned { .. });
        if !stage.settled.plan.sources.iter().any(is_remote) {
            continue;
        }
        let (entry, params, id) = (stage.entry.clone(), stage.settled.params(), stage.def.id.clone());
        let told = (report.clone(), id.clone());
        let hear = move |progress| told.0(Fetching { stage: told.1.clone(), progress, is_done: false });
        hook.call(hear, move |ctx| entry.fetch(params, ctx)).await?;
        let whole = Progress { done: 0, total: None, unit: String::new() };
        report(Fetching { stage: id.clone(), progress: whole, is_done: true });
        fetched.push(id);
    }
    Ok(fetched)
}
