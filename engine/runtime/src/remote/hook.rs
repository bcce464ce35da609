//! Operators' hooks that block: called on a thread of their own, with a [`Context`] that can report and be cancelled.

use std::path::{Path, PathBuf};

use llmflow_contract::{Checkpoint, Context, Failure, Host, Lease, Progress, Reach, Secret, SecretName};

use crate::{owner, run::Cancel};

/// Where hooks work.
#[derive(Clone)]
pub(super) struct Hook {
    /// The home's `work/`.
    pub work: PathBuf,
    /// The pipeline file's folder.
    pub base: PathBuf,
    pub is_offline: bool,
    pub cancel: Cancel,
}

/// Where a home keeps what was fetched, by digest.
pub fn downloads(work: &Path) -> PathBuf {
    work.join("download")
}

impl Hook {
    /// Runs one hook; `report` hears how far it is.
    pub async fn call<T: Send + 'static>(
        &self,
        report: impl Fn(Progress) + Send + Sync + 'static,
        work: impl FnOnce(&Context) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let hook = self.clone();
        let called = tokio::task::spawn_blocking(move || {
            let folder = hook.work.join("scratch");
            std::fs::create_dir_all(&folder).map_err(|error| Failure::io("making", &folder, &error))?;
            let scratch = tempfile::Builder::new().prefix(&owner::prefix()).tempdir_in(&folder);
            let scratch = scratch.map_err(|error| Failure::io("making", &folder, &error))?;
            let host = HookHost { report: &report, cancel: &hook.cancel };
            let lease = Lease { cores: 1, memory_bytes: 0, gpus: Vec::new(), gpu_memory_bytes: 0 };
            let context = Context::new(&host, 0, lease, scratch.path().to_owned(), hook.base.clone())
                .with_downloads(downloads(&hook.work), hook.is_offline);
            work(&context)
        });
        called.await.unwrap_or_else(|error| Err(Failure::bug(format!("an operator panicked: {error}"))))
    }
}

struct HookHost<'a> {
    report: &'a (dyn Fn(Progress) + Send + Sync),
    cancel: &'a Cancel,
}

impl Host for HookHost<'_> {
    fn progress(&self, progress: Progress) {
        (self.report)(progress);
    }
    fn metric(&self, _name: &str, _value: f64, _step: Option<u64>, _reproducible: bool) {}
    fn cancelled(&self) -> bool {
        self.cancel.requests() > 0
    }
    fn output(&self, port: &str) -> Result<PathBuf, Failure> {
        Err(Failure::bug(format!("no stage is running that could write `{port}`")))
    }
    fn restore(&self, _reach: &Reach) -> Result<Option<Checkpoint>, Failure> {
        Ok(None)
    }
    fn save(&self, _write: &mut dyn FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
        Ok(())
    }
    fn secret(&self, name: &SecretName) -> Result<Secret, Failure> {
        Err(Failure::bug(format!("no stage is running that may know `{}`", name.variable())))
    }
    fn recall(&self, _question: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(None)
    }
    fn remember(&self, _question: &[u8], _answer: &[u8]) -> Result<(), Failure> {
        Ok(())
    }
}
