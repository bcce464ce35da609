//! A host that asks a stage to stop after a while, and counts how often it was asked.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use llmflow_contract::{Checkpoint, Context, Failure, Host, Progress, Reach, Secret, SecretName};

use crate::testing::TestHost;

/// Stops whoever asks for the `after`-th time whether to stop.
pub(crate) struct Stopping<'a> {
    inner: &'a TestHost,
    /// Looks until the answer is yes.
    left: AtomicUsize,
    /// Looks so far.
    looks: AtomicUsize,
    /// Looks that were answered with yes.
    told: AtomicUsize,
    at_progress: bool,
}

impl<'a> Stopping<'a> {
    pub fn after(inner: &'a TestHost, looks: usize) -> Self {
        let none = AtomicUsize::default;
        Self { inner, left: AtomicUsize::new(looks), looks: none(), told: none(), at_progress: false }
    }
    /// From the first progress on that is not the last.
    pub fn at_progress(inner: &'a TestHost) -> Self {
        Self { at_progress: true, ..Self::after(inner, usize::MAX) }
    }
    /// As [`TestHost::context`].
    pub fn context(&self) -> Context<'_> {
        let inner = self.inner.context();
        Context::new(self, inner.seed(), inner.lease().clone(), inner.scratch().to_owned(), self.inner.base())
    }
    pub fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
    pub fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }
    /// Is it asked to stop by now?
    pub fn has_begun(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

impl Host for Stopping<'_> {
    fn progress(&self, progress: Progress) {
        if self.at_progress && progress.total.is_some_and(|total| progress.done < total) {
            self.left.store(0, Ordering::SeqCst);
        }
        self.inner.progress(progress);
    }
    fn metric(&self, name: &str, value: f64, step: Option<u64>, reproducible: bool) {
        Host::metric(self.inner, name, value, step, reproducible);
    }
    fn cancelled(&self) -> bool {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(1)));
        let is_told = left == Ok(0);
        self.told.fetch_add(usize::from(is_told), Ordering::SeqCst);
        is_told
    }
    fn output(&self, port: &str) -> Result<PathBuf, Failure> {
        self.inner.output(port)
    }
    fn restore(&self, reach: &Reach) -> Result<Option<Checkpoint>, Failure> {
        self.inner.restore(reach)
    }
    fn save(&self, write: &mut dyn FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
        self.inner.save(write)
    }
    fn secret(&self, name: &SecretName) -> Result<Secret, Failure> {
        self.inner.secret(name)
    }
    fn recall(&self, question: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.inner.recall(question)
    }
    fn remember(&self, question: &[u8], answer: &[u8]) -> Result<(), Failure> {
        self.inner.remember(question, answer)
    }
}
