//! The end of a run: how it went, and its results where the user wants them.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use llmflow_contract::{Class, Digest, Failure, StageId};
use llmflow_dataset::RowFile;

use super::{Outcome, StageOutcome, StageStatus, demand, engine::Engine, publish, schedule::Scheduler, state::State};
use crate::{
    event::{Compute, RunStatus, What},
    pipeline::{Target, is_remote},
    plan::NOT_ASKED_FOR,
    store::{self, Frozen},
};

/// What publishing came to.
#[derive(Default)]
struct Published {
    paths: Vec<PathBuf>,
    left: Vec<PathBuf>,
    report_to: Vec<PathBuf>,
    /// One for each path that could not be written; the others were.
    failures: Vec<Failure>,
}

impl Engine {
    pub(super) async fn finish(mut self, seconds: f64, was_stopped: bool) -> Result<Outcome, Failure> {
        self.scheduler = Scheduler::new(demand::capacity(&Compute::default(), None, Vec::new())); // nothing starts any more
        for index in 0..self.states.len() {
            if self.states[index].is_over() {
                continue;
            }
            if !was_stopped && !self.ask.fail_fast {
                return Err(Failure::bug(format!("`{}` was left waiting", self.plan.stages[index].def.id)));
            }
            let because = "something failed, and --fail-fast".to_owned();
            let state = match &self.states[index] {
                _ if was_stopped => State::Interrupted,
                State::Pausing { failure, .. } => State::Failed(failure.clone()),
                _ => State::Skipped { because, by_gate: false },
            };
            self.set(index, state);
        }
        let mut status = self.status();
        let Published { paths: published, left, report_to, failures: unpublished } =
            self.publish(self.will_publish()).await?;
        if status == RunStatus::Done && !unpublished.is_empty() {
            status = RunStatus::Failed;
        }
        if self.is_recorded {
            self.emit(None, What::RunFinished { status, seconds });
        }
        self.end_recording().await?;
        self.save_run_record(true).await?; // of all that is written down by now
        if let Err(failure) = self.freeze().await {
            tracing::warn!("what is frozen here is not noted for other homes: {failure}");
        }
        if super::still_stands(&self.plan, &self.place.store) {
            let question = self.ask.question.as_ref();
            let question = question.filter(|_| status == RunStatus::Done && unpublished.is_empty());
            // A run of this file that began meanwhile has the last word.
            if let Some(question) = question
                && (!self.is_recorded || self.place.lineage.is_newest(&self.run).await?)
            {
                question.keep(&self.plan, &self.place.home, &self.place.store, published.clone(), report_to.clone());
            }
            let is_news = self.is_recorded || self.plan.found_anew > 0;
            if let Some(stood) = self.ask.stood.as_ref().filter(|_| is_news) {
                stood.keep(&self.place.store, self.plan.records());
            }
        }
        let is_cached = |state: &&State| matches!(state, State::Cached(_));
        let is_skipped = |state: &&State| matches!(state, State::Skipped { .. });
        Ok(Outcome {
            pipeline: self.plan.pipeline.name.clone(),
            home: self.place.home.root().to_owned(),
            cached: self.states.iter().filter(is_cached).count(),
            skipped: self.states.iter().filter(is_skipped).count(),
            exit_code: self.exit_code(status, &unpublished),
            plan: self.plan.view(),
            stages: self.plan.order.iter().map(|index| self.stage_outcome(*index as usize)).collect(),
            run: self.is_recorded.then_some(self.run),
            status,
            published,
            left,
            unpublished,
            report_to,
            seconds,
        })
    }

    /// Notes in the store what the frozen stages of a named pipeline keep.
    async fn freeze(&self) -> Result<(), Failure> {
        let pipeline = &self.plan.pipeline;
        let mut frozen =
            self.plan.stages.iter().zip(&self.states).filter(|(stage, _)| stage.def.shared.is_frozen).peekable();
        if !pipeline.is_named || frozen.peek().is_none() {
            return Ok(());
        }
        // A run that has nothing to say is in no history: another of this home then tells whose result it is.
        let run = match self.is_recorded {
            true => self.run.clone(),
            false => self.place.lineage.find_run("@").await?,
        };
        for (stage, state) in frozen {
            let Some(key) = state.result().and_then(|finished| finished.key) else { continue };
            let (name, limit) = (pipeline.name.clone(), pipeline.overrides.limit);
            let frozen = Frozen { pipeline: name, stage: stage.def.id.clone(), limit, key, run: run.clone() };
            let is_new = matches!(state, State::Ran(_));
            let noted = self.place.store.frozen(&frozen.pipeline, &frozen.stage, limit).await?;
            // A note of this home is of what it kept before: whoever was killed before this line left it so.
            let is_own = match &noted {
                Some(noted) if noted.key != key => self.place.lineage.has_run(&noted.run).await?,
                _ => false,
            };
            let stands = match &noted {
                Some(noted) => self.place.store.find_record(&noted.key).await?.is_some(),
                None => false,
            };
            if is_new || is_own || !stands {
                self.place.store.freeze(&frozen).await?;
            }
        }
        Ok(())
    }

    /// Does a run that ended so put its results where the user wants them?
    pub(super) fn will_publish(&self) -> bool {
        self.status() == RunStatus::Done && self.plan.pipeline.overrides.limit.is_none()
    }

    fn status(&self) -> RunStatus {
        let any = |test: fn(&State) -> bool| self.states.iter().any(test);
        if any(|state| matches!(state, State::Interrupted)) {
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
        let of_stages = self.states.iter().filter_map(|state| match state {
            State::Failed(failure) => Some(failure.class),
            _ => None,
        });
        let classes: Vec<Class> = of_stages.chain(unpublished.iter().map(|failure| failure.class)).collect();
        match status {
            RunStatus::Done => 0,
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
            State::Skipped { because, .. } => {
                (outcome.status, outcome.skipped_because) = (StageStatus::Skipped, Some(because));
            }
            _ => {}
        }
        outcome
    }

    /// What is to be published, and where to: the stage, the artifact, the paths.
    fn to_publish(&self) -> Vec<(usize, Digest, Vec<PathBuf>)> {
        let by_stage: HashMap<&StageId, usize> =
            self.plan.stages.iter().enumerate().map(|(index, stage)| (&stage.def.id, index)).collect();
        let mut found = Vec::new();
        for item in &self.plan.pipeline.publish {
            let Target::Output { stage, port } = &item.target else { continue };
            let Some(index) = by_stage.get(stage).copied() else { continue };
            let Some(finished) = self.states[index].result() else { continue };
            let main = self.plan.stages[index].settled.plan.outputs.first().map(|output| &output.0);
            let digest = port.as_ref().or(main).and_then(|port| finished.outputs.get(port));
            let paths = item.paths.iter().map(|path| self.place_of(&path.value)).collect();
            found.extend(digest.map(|digest| (index, *digest, paths)));
        }
        found
    }

    /// Where the results of skipped stages would have been published. Whoever asked for other stages knows of these.
    fn not_given(&self) -> Vec<PathBuf> {
        let is_skipped = |state: &State| matches!(state, State::Skipped { because, .. } if because != NOT_ASKED_FOR);
        let stages = self.plan.stages.iter().zip(&self.states).filter(|(_, state)| is_skipped(state));
        let skipped: HashSet<&StageId> = stages.map(|(stage, _)| &stage.def.id).collect();
        let is_of_one = |target: &Target| matches!(target, Target::Output { stage, .. } if skipped.contains(stage));
        let items = self.plan.pipeline.publish.iter().filter(|item| is_of_one(&item.target));
        items.flat_map(|item| &item.paths).map(|path| self.place_of(&path.value)).collect()
    }

    /// Looks at what is to be published before it is: a stage whose result is damaged makes it anew. Says whether any is.
    pub(super) async fn finds_damage(&mut self) -> Result<bool, Failure> {
        let mut damaged = Vec::new();
        for (index, digest, paths) in self.to_publish() {
            let mut is_needed = false;
            for path in &paths {
                is_needed |= self.published_bytes(&digest, path).await?.is_none();
            }
            if !is_needed || damaged.contains(&index) || self.remade.contains_key(&index) {
                continue;
            }
            match self.place.store.artifact(&digest, &self.place.home.work()).await {
                Err(failure) if store::is_damage(&failure) => damaged.push(index),
                _ => {} // other trouble is told where it is published
            }
        }
        damaged.iter().for_each(|index| self.remake(*index));
        Ok(!damaged.is_empty())
    }

    /// Puts results where the user wants them; nothing but the report after a failure.
    async fn publish(&mut self, is_done: bool) -> Result<Published, Failure> {
        let reports = self.plan.pipeline.publish.iter().filter(|item| item.target == Target::Report);
        let paths = reports.flat_map(|item| &item.paths).map(|path| self.plan.base.join(&path.value));
        // The numbers of a rehearsal are nobody's to read as results.
        let report_to = paths.filter(|_| self.plan.pipeline.overrides.limit.is_none()).collect();
        let mut all = Published { report_to, ..Published::default() };
        let _alone = self.place.home.alone("publish")?; // runs of one pipeline publish to the same paths
        for path in self.not_given().into_iter().filter(|_| is_done) {
            if path.exists() && self.place.lineage.published(&path).await?.is_some() {
                all.left.push(path);
            }
        }
        for (_, digest, paths) in self.to_publish().into_iter().filter(|_| is_done) {
            for path in paths {
                match self.publish_one(&digest, &path).await {
                    Ok(()) => all.paths.push(path),
                    Err(failure) => all.failures.push(failure),
                }
            }
        }
        Ok(all)
    }

    /// Where a published path lies: relative to the file, unless it is a URL.
    fn place_of(&self, path: &str) -> PathBuf {
        if is_remote(path) { PathBuf::from(path) } else { self.plan.base.join(path) }
    }

    /// The bytes at `path`, if it holds the artifact as it was published.
    async fn published_bytes(&self, digest: &Digest, path: &Path) -> Result<Option<u64>, Failure> {
        let place = &self.place;
        let Some(known) = place.lineage.published(path).await?.filter(|known| known.0 == *digest) else {
            return Ok(None);
        };
        let Ok(manifest) = place.store.manifest(digest).await else { return Ok(None) };
        if let Some(url) = path.to_str().filter(|path| is_remote(path)) {
            let mut sent = manifest;
            if RowFile::of(&sent.kind, path).is_some() {
                sent.files.truncate(1);
                sent.files.iter_mut().for_each(|file| file.size_bytes = known.1); // the one that was written
            }
            return Ok(store::is_sent(&sent, url).await?.then_some(known.1));
        }
        let found = publish::stamp(&manifest, path);
        Ok(found.filter(|stamp| *stamp == (known.1, known.2, known.3)).map(|(size, ..)| size))
    }

    /// Is the file at `path` as it was published there last or, where it says nothing of that itself, does it have the bytes?
    async fn is_as_published(&self, path: &Path) -> Result<bool, Failure> {
        let place = &self.place;
        let known = if path.is_file() { self.last_published(path).await? } else { None };
        let Some((digest, size, mtime_ns, inode)) = known else { return Ok(false) };
        if publish::stamp_of(vec![path.to_owned()]) == Some((size, mtime_ns, inode)) {
            return Ok(true);
        }
        if publish::is_marked(path) {
            return Ok(false);
        }
        let Ok(artifact) = place.store.artifact(&digest, &place.home.work()).await else { return Ok(false) };
        let scratch = place.home.scratch("publish")?;
        let artifact = publish::shaped(artifact, path, scratch.path())?;
        publish::holds(&artifact, path).map_err(|error| Failure::io("reading", path, &error))
    }

    /// What was published at a path last; where the project was copied or moved since, at the same path in its former place.
    async fn last_published(&self, path: &Path) -> Result<Option<(Digest, u64, i64, u64)>, Failure> {
        let home = &self.place.home;
        let below = home.root().parent().and_then(|project| path.strip_prefix(project).ok());
        let former = home.places()?.into_iter().rev().filter_map(|place| Some(place.parent()?.join(below?)));
        for path in std::iter::once(path.to_owned()).chain(former) {
            if let Some(known) = self.place.lineage.published(&path).await? {
                return Ok(Some(known));
            }
        }
        Ok(None)
    }

    async fn publish_one(&self, digest: &Digest, path: &Path) -> Result<(), Failure> {
        let place = &self.place;
        let known_bytes = self.published_bytes(digest, path).await?;
        let bytes = match known_bytes {
            Some(bytes) => bytes,
            None => {
                let artifact = place.store.artifact(digest, &place.home.work()).await?;
                let scratch = place.home.scratch("publish")?;
                let artifact = publish::shaped(artifact, path, scratch.path())?;
                let bytes = artifact.manifest.size_bytes();
                let stamp = match path.to_str().filter(|path| is_remote(path)) {
                    Some(url) => store::send(&artifact, url).await.map(|()| Some((bytes, 0, 0)))?,
                    None => {
                        let is_known = self.is_as_published(path).await?;
                        let before = match publish::marked(path) {
                            Some(before) => place.store.manifest(&before).await.ok(),
                            None => None,
                        };
                        let published = publish::publish(&artifact, path, is_known, before.as_ref());
                        published.map(|()| publish::stamp(&artifact.manifest, path))?
                    }
                };
                if let Some((size, mtime, inode)) = stamp {
                    place.lineage.set_published(path, digest, size, mtime, inode).await?;
                }
                bytes
            }
        };
        let unchanged = known_bytes.is_some();
        self.emit(None, What::Published { path: path.to_owned(), bytes, unchanged });
        Ok(())
    }
}
