//! Garbage collection: what no kept run, tag or live work needs, goes.
//!
//! Deleting too much costs a recompute, never a wrong result: records go first, then manifests, then blobs, so that what
//! is left is never a record whose blobs are gone. What is young always stays: a stage publishes its outputs before their
//! record names them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use llmflow_contract::{Digest, Failure};
use nix::fcntl::FlockArg;
use serde::Serialize;

use super::{
    Disk, Listed, Store,
    history::{RunRecord, digest_in},
    key_path, manifest_path,
    read::manifest_of,
};
use crate::event::now_ms;

/// Nothing younger is deleted from a folder, where locks say who is at work.
const GRACE: Duration = Duration::from_secs(60 * 60);
/// Nor from a store elsewhere, where nothing says it: as long as a stage of another home may take.
const GRACE_ELSEWHERE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Checkpoints of work that nobody went on with for this long are given up, and downloads.
const ABANDONED: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const DELETES_AT_ONCE: usize = 16;

/// What to keep.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The newest runs of each pipeline file.
    pub runs: usize,
    /// And every run that is not older.
    pub days: u64,
    /// Remembered answers that were asked for within so many days; without a number all of them. An object store tells when
    /// an answer was given, not when it was last asked for.
    pub answer_days: Option<u64>,
}

/// What was deleted, or would be.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Collected {
    pub runs_kept: usize,
    /// Whose records stay as history while what they made may go.
    pub runs_let_go: usize,
    pub records: u64,
    pub artifacts: u64,
    pub blobs: u64,
    /// Checkpoints that nobody went on with, damaged objects set aside, copies of what is gone.
    pub leftovers: u64,
    /// Remembered answers that nothing asked for in a long time.
    pub answers: u64,
    pub answers_kept: u64,
    pub freed_bytes: u64,
    /// What it took to compute what is deleted.
    pub lost_seconds: f64,
    pub kept_bytes: u64,
}

/// Objects of one kind.
struct Swept {
    deleted: u64,
    kept: u64,
}

/// What is still needed.
#[derive(Default)]
pub(super) struct Marked {
    keys: BTreeSet<Digest>,
    manifests: BTreeSet<Digest>,
    blobs: BTreeSet<Digest>,
}

impl Store {
    /// Deletes what nothing needs; with `is_dry` only says what that would be.
    ///
    /// # Errors
    /// Of the environment if the store cannot be read or written.
    pub async fn collect(&self, keep: Keep, is_dry: bool) -> Result<Collected, Failure> {
        let grace = if self.disk().is_some() { GRACE } else { GRACE_ELSEWHERE };
        self.collect_older(keep, is_dry, now_ms().saturating_sub(grace.as_millis() as u64)).await
    }

    /// What changed at `young_ms` or later stays, and what changed since the oldest run in progress began, because that
    /// run's record may not name it yet.
    pub(super) async fn collect_older(&self, keep: Keep, is_dry: bool, young_ms: u64) -> Result<Collected, Failure> {
        let _lock = match self.disk().map(|disk| disk.lock(FlockArg::LockExclusive)).transpose() {
            Err(failure) if is_dry && failure.code == "file/permission" => None, // where nothing can be deleted either
            lock => lock?,                                                       // nobody publishes meanwhile
        };
        let (runs, tags) = self.roots().await?;
        let tagged: BTreeSet<_> = tags.into_iter().map(|tag| tag.run).collect();
        let kept: Vec<&RunRecord> = kept_runs(&runs, keep, |run| tagged.contains(&run.run));
        let young_ms = self.oldest_run_ms().map_or(young_ms, |began| young_ms.min(began));
        let keys = self.backend.list("keys").await?;
        let marked = self.mark(&kept, &keys, young_ms).await?;
        let mut report =
            Collected { runs_kept: kept.len(), runs_let_go: runs.len() - kept.len(), ..Collected::default() };
        let is_garbage = |object: &Listed, needed: &BTreeSet<Digest>| {
            object.changed_ms < young_ms && digest_in(&object.key).is_some_and(|digest| !needed.contains(&digest))
        };
        let mut doomed = Vec::new();
        for object in keys.iter().filter(|object| is_garbage(object, &marked.keys)) {
            if let Some(key) = digest_in(&object.key)
                && let Some(record) = self.find_record(&key).await?
            {
                report.lost_seconds += record.seconds;
            }
            report.records += 1;
            doomed.push(object.clone());
        }
        self.delete_all(doomed, is_dry, &mut report).await?;
        let of_manifests = |object: &Listed| is_garbage(object, &marked.manifests);
        report.artifacts = self.sweep_objects("artifacts", of_manifests, is_dry, &mut report).await?.deleted;
        let of_blobs = |object: &Listed| is_garbage(object, &marked.blobs);
        report.blobs = self.sweep_objects("blobs", of_blobs, is_dry, &mut report).await?.deleted;
        let is_old = |object: &Listed| object.changed_ms < young_ms;
        report.leftovers = self.sweep_objects("quarantine", is_old, is_dry, &mut report).await?.deleted;
        let unasked_ms = keep.answer_days.map_or(0, |days| days_ago_ms(days).min(young_ms));
        let is_unasked = |object: &Listed| object.changed_ms < unasked_ms;
        let answers = self.sweep_objects("memo", is_unasked, is_dry, &mut report).await?;
        (report.answers, report.answers_kept) = (answers.deleted, answers.kept);
        self.sweep_partial(is_dry, &mut report)?;
        if let Some(work) = &self.work {
            let abandoned_ms = young_ms.min(now_ms().saturating_sub(ABANDONED.as_millis() as u64));
            self.sweep_home(work, &marked, [young_ms, abandoned_ms], is_dry, &mut report)?;
        }
        if !is_dry {
            self.sweep();
            self.sweep_claims()?;
        }
        Ok(report)
    }

    async fn mark(&self, runs: &[&RunRecord], keys: &[Listed], young_ms: u64) -> Result<Marked, Failure> {
        let mut marked = Marked::default();
        let mut wanted: Vec<Digest> = Vec::new();
        marked.keys.extend(runs.iter().flat_map(|run| run.stages.values()).filter_map(|stage| stage.key));
        let at_work = |object: &&Listed| {
            object.changed_ms >= young_ms || digest_in(&object.key).is_some_and(|key| self.is_claimed(&key))
        };
        marked.keys.extend(keys.iter().filter(at_work).filter_map(|object| digest_in(&object.key)));
        marked.keys.extend(self.attended()); // after the claims: who gives one back has said what it stands on
        for key in &marked.keys {
            if let Some(record) = self.find_record(key).await? {
                wanted.extend(record.outputs.values().chain(record.side.values()));
            }
        }
        while let Some(digest) = wanted.pop() {
            if !marked.manifests.insert(digest) {
                continue;
            }
            let Some(bytes) = self.backend.get(&manifest_path(&digest)).await? else { continue };
            let Some(manifest) = manifest_of(&bytes, &digest) else { continue };
            marked.blobs.extend(manifest.files.iter().map(|file| file.digest));
            wanted.extend(manifest.references.values());
        }
        Ok(marked)
    }

    /// Deletes what `is_garbage` below `prefix`.
    async fn sweep_objects(
        &self,
        prefix: &str,
        is_garbage: impl Fn(&Listed) -> bool,
        is_dry: bool,
        report: &mut Collected,
    ) -> Result<Swept, Failure> {
        let (doomed, kept): (Vec<_>, Vec<_>) = self.backend.list(prefix).await?.into_iter().partition(is_garbage);
        report.kept_bytes += kept.iter().map(|object| object.size_bytes).sum::<u64>();
        let swept = Swept { deleted: doomed.len() as u64, kept: kept.len() as u64 };
        self.delete_all(doomed, is_dry, report).await?;
        Ok(swept)
    }

    async fn delete_all(&self, doomed: Vec<Listed>, is_dry: bool, report: &mut Collected) -> Result<(), Failure> {
        report.freed_bytes += doomed.iter().map(|object| object.size_bytes).sum::<u64>();
        if is_dry || doomed.is_empty() {
            return Ok(());
        }
        self.disk().map(Disk::note_removal).transpose()?;
        stream::iter(&doomed)
            .map(|object| self.backend.delete(&object.key))
            .buffer_unordered(DELETES_AT_ONCE)
            .try_collect()
            .await
    }

    /// Checkpoints that nobody went on with: of a key (`partial/KEY`), or of one among its kin (`partial/KIN/KEY`), where what
    /// is left of finished work waits for who goes further.
    fn sweep_partial(&self, is_dry: bool, report: &mut Collected) -> Result<(), Failure> {
        let Some(root) = self.local().or(self.work.as_deref()) else { return Ok(()) };
        let disk = Disk { root: root.to_owned() };
        let mut newest: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for object in disk.list("partial")? {
            let mut folders = object.key.split('/').skip(1);
            let Some(mut work) = folders.next().map(str::to_owned) else { continue };
            if let Some(key) = folders.next().filter(|name| name.parse::<Digest>().is_ok()) {
                work = format!("{work}/{key}");
            }
            let (changed_ms, size_bytes) = newest.entry(work).or_default();
            *changed_ms = object.changed_ms.max(*changed_ms);
            *size_bytes += object.size_bytes;
        }
        let since = now_ms().saturating_sub(ABANDONED.as_millis() as u64);
        for (work, (changed_ms, size_bytes)) in newest {
            let (kin, key) = work.rsplit_once('/').map_or((None, work.as_str()), |(kin, key)| (Some(kin), key));
            let key: Option<Digest> = key.parse().ok();
            let is_live = key.is_some_and(|key| self.is_claimed(&key));
            // Of a worker that was killed between its commit and clearing up.
            let is_committed = key.is_some_and(|key| self.local().is_some() && disk.path(&key_path(&key)).exists());
            if is_live || (changed_ms >= since && (kin.is_some() || !is_committed)) {
                report.kept_bytes += size_bytes;
                continue;
            }
            report.leftovers += 1;
            report.freed_bytes += size_bytes;
            if !is_dry {
                remove_folder(&disk.path(&format!("partial/{work}")))?;
                if let Some(kin) = kin {
                    let _ = std::fs::remove_dir(disk.path(&format!("partial/{kin}"))); // if it was the last
                }
            }
        }
        Ok(())
    }

    /// Links to, and copies of, what the store no longer has, and of what is older than the second moment the downloads.
    pub(super) fn sweep_home(
        &self,
        work: &Path,
        marked: &Marked,
        [young_ms, abandoned_ms]: [u64; 2],
        is_dry: bool,
        report: &mut Collected,
    ) -> Result<(), Failure> {
        let home = Disk { root: work.to_owned() };
        let mut gone = BTreeSet::new();
        for object in home.list("inputs")? {
            let Some(name) = object.key.split('/').nth(1) else { continue };
            let is_gone = name.parse::<Digest>().is_ok_and(|digest| !marked.manifests.contains(&digest));
            if is_gone && object.changed_ms < young_ms {
                gone.insert(name.to_owned());
            }
        }
        let copies = home.list("blobs")?.into_iter().filter(|object| {
            object.changed_ms < young_ms && digest_in(&object.key).is_some_and(|digest| !marked.blobs.contains(&digest))
        });
        for object in copies {
            report.leftovers += 1;
            report.freed_bytes += object.size_bytes;
            if !is_dry {
                home.delete(&object.key)?;
            }
        }
        for name in gone {
            report.leftovers += 1;
            if !is_dry {
                remove_folder(&work.join("inputs").join(name))?;
            }
        }
        // A run in progress may be about to read what it fetched. What is used is touched; a short cut that goes is made again.
        let folders: &[&str] = if self.oldest_run_ms().is_some() { &[] } else { &["download", "stood", "unchanged"] };
        for folder in folders {
            for object in home.list(folder)?.into_iter().filter(|object| object.changed_ms < abandoned_ms) {
                report.leftovers += 1;
                report.freed_bytes += object.size_bytes;
                if !is_dry {
                    home.delete(&object.key)?;
                }
            }
        }
        Ok(())
    }
}

/// The newest of each pipeline, those that are young enough, and those that `is_tagged`.
fn kept_runs(runs: &[RunRecord], keep: Keep, is_tagged: impl Fn(&RunRecord) -> bool) -> Vec<&RunRecord> {
    let since = days_ago_ms(keep.days);
    let mut newest: Vec<&RunRecord> = runs.iter().collect();
    newest.sort_by_key(|run| std::cmp::Reverse(run.moment()));
    let mut seen: BTreeMap<(&str, &Path), usize> = BTreeMap::new();
    newest.retain(|run| {
        let before = seen.entry((&run.pipeline, &run.path)).or_default();
        *before += 1;
        *before <= keep.runs || (keep.days > 0 && run.moment() >= since) || is_tagged(run)
    });
    newest
}

fn days_ago_ms(days: u64) -> u64 {
    now_ms().saturating_sub(days.saturating_mul(24 * 60 * 60 * 1000))
}

fn remove_folder(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::io("removing", path, &error)),
        _ => Ok(()),
    }
}
