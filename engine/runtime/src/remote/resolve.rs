//! Asks what remote sources hold now, unless the lock says it.

use std::collections::BTreeSet;

use llmflow_contract::{Class, Entry, Failure, Registry, Remote};

use super::{FILE, Locking, Remotes};
use crate::{
    pipeline::{Diagnostic, Diagnostics, StageDef},
    plan::PlanError,
};

impl Remotes {
    /// Finds out what the sources of these stages hold. Once this is done, `plan` is pure.
    ///
    /// Mistakes of the file go to `diagnostics`, all of them; a source asked for by many stages is asked once.
    ///
    /// # Errors
    /// Trouble of the environment: no network, no right to read.
    pub async fn resolve(
        &mut self,
        stages: &[StageDef],
        registry: &Registry,
        diagnostics: &mut Diagnostics,
    ) -> Result<(), PlanError> {
        let Some(hook) = self.hook.clone() else { return Ok(()) };
        let (mut asked, mut forgotten) = (BTreeSet::new(), BTreeSet::new());
        for stage in stages.iter().filter(|stage| stage.sound) {
            let Some(entry) = registry.find(&stage.shared.op).filter(|entry| entry.reads_sources()) else { continue };
            // What is wrong with the params is said when the stage is planned.
            let Ok(Some(remote)) = entry.remote(stage.with()) else { continue };
            self.read.insert(remote.source.clone());
            if !asked.insert((remote.source.clone(), remote.select.clone())) {
                continue;
            }
            if self.options.locking == Locking::Refresh && forgotten.insert(remote.source.clone()) {
                self.lock.forget(&remote.source);
            }
            if self.is_locked(&remote) {
                continue;
            }
            match self.ask(&hook, entry, stage, &remote).await {
                Ok(()) => {}
                Err(failure) if failure.class == Class::Input => {
                    diagnostics.push(Diagnostic::from_failure(&failure, stage));
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(())
    }

    fn is_locked(&self, remote: &Remote) -> bool {
        self.lock.sources.get(&remote.source).is_some_and(|locked| locked.selected.contains(&remote.select))
    }

    async fn ask(
        &mut self,
        hook: &super::Hook,
        entry: &Entry,
        stage: &StageDef,
        remote: &Remote,
    ) -> Result<(), Failure> {
        if self.options.locking == Locking::Fixed {
            let message = format!("`{}` is not in `{FILE}`, which may not change", remote.source);
            return Err(Failure::input("lock/missing", message)
                .param("source")
                .help("run it once without `--locked`, and keep the file with the pipeline"));
        }
        // Another part of it may be locked already: then this one is taken from the same state of the source.
        let revision = self.lock.sources.get(&remote.source).map(|locked| locked.revision.clone());
        let (entry, params) = (entry.clone(), stage.with());
        let found = hook.call(|_| {}, move |ctx| entry.resolve(params, revision.as_deref(), ctx)).await?;
        self.lock.learn(&remote.source, found);
        Ok(())
    }
}
