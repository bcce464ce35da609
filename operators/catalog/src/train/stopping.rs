//! A host that asks a stage to stop after a while: for tests that resuming equals never stopping.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use llmflow_contract::{Checkpoint, Context, Failure, Host, Lease, Progress, Reach, Secret, SecretName};

use crate::testing::TestHost;

/// Stops whoever asks for the `after`-th time whether to stop.
pub(crate) struct Stopping<'a> {
    inner: &'a TestHost,
    left: AtomicUsize,
}

impl<'a> Stopping<'a> {
    pub fn after(inner: &'a TestHost, asked: usize) -> Self {
        Self { inner, left: AtomicUsize::new(asked) }
    }
    pub fn context(&self) -> Context<'_> {
        let lease = Lease { cores: 2, memory_bytes: 4 << 30, gpus: Vec::new(), gpu_memory_bytes: 0 };
        Context::new(self, 42, lease, self.inner.base(), self.inner.base())
    }
}

impl Host for Stopping<'_> {
    fn progress(&self, progress: Progress) {
        self.inner.progress(progress);
    }
    fn metric(&self, name: &str, value: f64, step: Option<u64>, reproducible: bool) {
        Host::metric(self.inner, name, value, step, reproducible);
    }
    fn cancelled(&self) -> bool {
        let left = self.left.load(Ordering::SeqCst);
        self.left.store(left.saturating_sub(1), Ordering::SeqCst);
        left == 0
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
