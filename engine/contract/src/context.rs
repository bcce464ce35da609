//! [`Context`]: an operator's only door to the engine.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{CounterRng, Failure, Report, Secret, SecretName, counter_rng};

/// What an attempt may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub cores: u32,
    pub memory_bytes: u64,
    /// Ordinals of the GPUs it may use, among those that the engine sees.
    pub gpus: Vec<u32>,
    /// Memory it owns on each of them, in bytes; the rest may be another attempt's.
    pub gpu_memory_bytes: u64,
}

/// How far a stage has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub done: u64,
    pub total: Option<u64>,
    /// What is counted: `rows`, `steps`, `questions`.
    pub unit: String,
}

/// How far a saved state has come, by its folder; None: it is of no use.
pub type Reach<'a> = dyn Fn(&Path) -> Option<u64> + 'a;

/// A saved state that verified: a folder with the files `save` was given.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub folder: PathBuf,
}

/// What stands behind a [`Context`]: a worker process, or a test.
pub trait Host: Send + Sync {
    fn progress(&self, progress: Progress);
    /// `reproducible` metrics enter the key record; the others are shown only.
    fn metric(&self, name: &str, value: f64, step: Option<u64>, reproducible: bool);
    fn cancelled(&self) -> bool;
    /// A new empty folder for one output.
    fn output(&self, port: &str) -> Result<PathBuf, Failure>;
    /// The furthest saved state that verifies; see [`Context::restore_where`].
    fn restore(&self, reach: &Reach) -> Result<Option<Checkpoint>, Failure>;
    fn save(&self, write: &mut dyn FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure>;
    /// Was this file there when the stage's key was made?
    fn is_source(&self, _path: &Path) -> bool {
        true
    }
    /// All sources have been read; what happens to them from now on is no affair of the attempt.
    fn sources_read(&self) -> Result<(), Failure> {
        Ok(())
    }
    fn secret(&self, name: &SecretName) -> Result<Secret, Failure>;
    fn recall(&self, question: &[u8]) -> Result<Option<Vec<u8>>, Failure>;
    fn remember(&self, question: &[u8], answer: &[u8]) -> Result<(), Failure>;
}

/// An operator's only door to the engine. `Sync`; never blocks on a runtime.
pub struct Context<'a> {
    host: &'a dyn Host,
    seed: u64,
    lease: Lease,
    scratch: PathBuf,
    base: PathBuf,
    downloads: PathBuf,
    is_offline: bool,
}

/// Name of the side output that holds the report.
const REPORT: &str = "report";

impl<'a> Context<'a> {
    pub fn new(host: &'a dyn Host, seed: u64, lease: Lease, scratch: PathBuf, base: PathBuf) -> Self {
        let downloads = scratch.join("download");
        Self { host, seed, lease, scratch, base, downloads, is_offline: false }
    }

    /// Where fetched files are kept beyond the attempt, and whether more may be fetched.
    pub fn with_downloads(mut self, downloads: PathBuf, is_offline: bool) -> Self {
        (self.downloads, self.is_offline) = (downloads, is_offline);
        self
    }

    /// The stream of random numbers for a purpose: a function of the stage's seed alone.
    pub fn rng(&self, purpose: &str) -> CounterRng {
        counter_rng(self.seed, purpose)
    }
    pub fn seed(&self) -> u64 {
        self.seed
    }
    /// A folder for temporary files, gone after the attempt.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }
    /// A folder for files fetched from remote sources, by digest; other stages and runs find them there.
    pub fn downloads(&self) -> &Path {
        &self.downloads
    }
    /// Was the stage asked to leave the network alone?
    pub fn is_offline(&self) -> bool {
        self.is_offline
    }
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
    /// A path of the user's, relative to the pipeline file.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.base.join(path)
    }
    /// Is a file of the user's one that the stage's plan named, itself or the folder around it? What appeared since is not: the
    /// key knows nothing of it. Ask of each file that is listed anew when the stage runs.
    pub fn is_source(&self, path: &Path) -> bool {
        self.host.is_source(path)
    }
    /// Says that every source has been read, where that is long before the end: the user may edit them again.
    ///
    /// # Errors
    /// `source/changed` if one of them is not what the key was made of.
    pub fn sources_read(&self) -> Result<(), Failure> {
        self.host.sources_read()
    }
    /// Was the stage asked to stop? Ask in every loop that can last a second.
    pub fn cancelled(&self) -> bool {
        self.host.cancelled()
    }
    /// # Errors
    /// Class `cancelled` if the stage was asked to stop.
    pub fn check(&self) -> Result<(), Failure> {
        if self.cancelled() { Err(Failure::cancelled()) } else { Ok(()) }
    }
    pub fn progress(&self, done: u64, total: Option<u64>, unit: &str) {
        self.host.progress(Progress { done, total, unit: unit.to_owned() });
    }
    /// A reproducible figure: its last value enters the key record, gates may read it.
    pub fn metric(&self, name: &str, value: f64, step: Option<u64>) {
        self.host.metric(name, value, step, true);
    }
    /// A figure from a clock or a meter: shown, never kept in an artifact.
    pub fn measured(&self, name: &str, value: f64, step: Option<u64>) {
        self.host.metric(name, value, step, false);
    }
    /// A new empty folder for the files of one output.
    pub fn output(&self, port: &str) -> Result<PathBuf, Failure> {
        self.host.output(port)
    }
    /// Writes the stage's report, a side output.
    pub fn report(&self, report: &Report) -> Result<(), Failure> {
        write_report(&self.host.output(REPORT)?, report)
    }
    /// The newest saved state that verifies.
    pub fn restore(&self) -> Result<Option<Checkpoint>, Failure> {
        self.host.restore(&|_| Some(0))
    }
    /// The saved state that came furthest, of those that verify. `reach` says how far the state in a folder has come, or
    /// that it is of no use here: where the plan [`extends`](crate::StagePlan::extends), states of stages that go further
    /// or less far are offered too.
    pub fn restore_where(&self, reach: &Reach) -> Result<Option<Checkpoint>, Failure> {
        self.host.restore(reach)
    }
    /// Saves the state that `write` puts into the folder it is given; durable on return.
    pub fn save(&self, mut write: impl FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
        self.host.save(&mut write)
    }
    /// The value of a secret that a param of role secret names.
    ///
    /// # Errors
    /// A bug for a name that no such param holds: a worker is given no other.
    pub fn secret(&self, name: &SecretName) -> Result<Secret, Failure> {
        self.host.secret(name)
    }
    /// The answer once paid for to this question of this operator and VERSION, in whichever run.
    ///
    /// The question holds all that the answer depends on.
    pub fn recall(&self, question: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.host.recall(question)
    }
    /// Keeps an answer that cost something (a call, minutes of work); durable on return.
    pub fn remember(&self, question: &[u8], answer: &[u8]) -> Result<(), Failure> {
        self.host.remember(question, answer)
    }
}

/// Writes `report.json` into a folder.
pub fn write_report(folder: &Path, report: &Report) -> Result<(), Failure> {
    let path = folder.join("report.json");
    let text = serde_json::to_vec_pretty(report).map_err(|error| Failure::bug(format!("report: {error}")))?;
    std::fs::write(&path, text).map_err(|error| Failure::io("writing", &path, &error))
}
