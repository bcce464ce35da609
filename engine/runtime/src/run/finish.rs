//! The end of a run: how it went, and its results where the user wants them.

use std::{collections::HashMap, path::PathBuf};

use llmflow_contract::{Class, Digest, Failure, StageId};

use super::{Outcome, StageOutcome, StageStatus, engine::Engine, publish, state::State};
use crate::{
    event::{RunStatus, What},
    pipeline::Target,
};

/// What publishing came to.
#[derive(Default)]
struct Published {
    paths: Vec<PathBuf>,
    report_to: Vec<PathBuf>,
    /// One for each path that could not be written; the others were.
    failures: Vec<Failure>,
}

impl Engine {
    pub(super) async fn finish(mut self, seconds: f64, was_stopped: bool) -> Result<Outcome, Failure> {
        for index in 0..self.states.len() {
            if !self.states[index].is_over() {
                self.set(index, State::Interrupted);
            }
        }
        let status = self.status(was_stopped);
        let Published { paths: published, report_to, failures: unpublished } =
            self.publish(status == RunStatus::Done).await?;
        if self.is_recorded {
            self.save_run_record(true).await?;
            self.emit(None, What::RunFinished { status, seconds });
        }
        self.end_recording().await?;
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

    fn status(&self, was_stopped: bool) -> RunStatus {
        let any = |test: fn(&State) -> bool| self.states.iter().any(test);
        if was_stopped && any(|state| matches!(state, State::Interrupted)) {
            RunStatus::Interrupted
        } else if any(|state| matches!(state, State::Failed(_))) {
            RunStatus::Failed
        } else if any(|state| matches!(state, State::Refused { .. })) {
            RunStatus::Refused
        } else {
            RunStatus::Done
        }
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

    /// Puts results where the user wants them; nothing but the report after a failure.
    async fn publish(&mut self, is_done: bool) -> Result<Published, Failure> {
        let by_stage: HashMap<StageId, usize> =
            self.plan.stages.iter().enumerate().map(|(index, stage)| (stage.def.id.clone(), index)).collect();
        let mut all = Published::default();
        let wanted: Vec<_> =
            self.plan.pipeline.publish.iter().map(|item| (item.target.clone(), item.paths.clone())).collect();
        for (target, paths) in wanted {
            let paths = paths.into_iter().map(|path| self.plan.base.join(path.value));
            let (stage, port) = match target {
                Target::Report => {
                    all.report_to.extend(paths);
                    continue;
                }
                Target::Output { stage, port } => (stage, port),
            };
            let index = by_stage[&stage];
            let Some(finished) = self.states[index].result().filter(|_| is_done) else { continue };
            let main = self.plan.stages[index].settled.plan.outputs.first().map(|output| output.0.clone());
            let Some(digest) = port.or(main).and_then(|port| finished.outputs.get(&port).copied()) else { continue };
            for path in paths {
                match self.publish_one(&digest, &path).await {
                    Ok(()) => all.paths.push(path),
                    Err(failure) => all.failures.push(failure),
                }
            }
        }
        Ok(all)
    }

    async fn publish_one(&self, digest: &Digest, path: &std::path::Path) -> Result<(), Failure> {
        let place = &self.place;
        let known = place.lineage.published(path).await?;
        let manifest = place.store.manifest(digest).await?;
        let is_same = publish::stamp(&manifest, path)
            .is_some_and(|(size, mtime, inode)| known == Some((*digest, size, mtime, inode)));
        let mut bytes = manifest.size_bytes();
        if !is_same {
            let artifact = place.store.artifact(digest, &place.home.work()).await?;
            bytes = publish::publish(&artifact, path)?;
            if let Some((size, mtime, inode)) = publish::stamp(&manifest, path) {
                place.lineage.set_published(path, digest, size, mtime, inode).await?;
            }
        }
        self.emit(None, What::Published { path: path.to_owned(), bytes, unchanged: is_same });
        Ok(())
    }
}
