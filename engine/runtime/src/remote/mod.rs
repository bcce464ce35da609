//! Remote sources: pinned in `llmflow.lock` before planning, fetched before or during a run.
//!
//! Owns: the lock file, which sources have to be asked, the hooks of operators that ask and fetch.
//! Must not know: any hub, any scheme of addresses: operators name their sources, see `Operator::remote`.
//! Start at [`Remotes::open`]; then [`Remotes::resolve`] before planning, [`Remotes::save`] once the plan stands.

mod fetch;
mod hook;
mod lock;
mod resolve;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use llmflow_contract::{Failure, Locks};

pub use fetch::{Fetching, fetch, require_here};
pub use hook::downloads;
pub use lock::{FILE, Lock};

use crate::{home::Home, run::Cancel};
use hook::Hook;

/// How remote sources are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub locking: Locking,
    /// Nothing is asked of a network: what is not here is an error.
    pub is_offline: bool,
}

/// What the lock file is to a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locking {
    /// What is in it counts; the rest is resolved and added.
    #[default]
    Extend,
    /// It must not change: a source that is not in it is an error.
    Fixed,
    /// Every source of the pipeline is resolved anew.
    Refresh,
}

/// The remote sources of one command.
pub struct Remotes {
    lock: Lock,
    /// Names of the sources that the pipeline reads.
    read: BTreeSet<String>,
    options: Options,
    /// None in `check`, which asks nobody.
    hook: Option<Hook>,
}

impl Remotes {
    /// For a pipeline in `base`; the hooks work in `home`.
    ///
    /// # Errors
    /// `lock/malformed`, or a lock file that cannot be read.
    pub fn open(base: &Path, home: &Home, options: Options, cancel: Cancel) -> Result<Self, Failure> {
        let hook = Hook { work: home.work(), base: base.to_owned(), is_offline: options.is_offline, cancel };
        Ok(Self { lock: Lock::read(base)?, read: BTreeSet::new(), options, hook: Some(hook) })
    }

    /// For a command that asks nobody: what is not locked stays unknown.
    ///
    /// # Errors
    /// Those of [`Remotes::open`].
    pub fn locked_only(base: &Path) -> Result<Self, Failure> {
        Ok(Self { lock: Lock::read(base)?, read: BTreeSet::new(), options: Options::default(), hook: None })
    }

    /// These sources are what an earlier run found them to be, whatever the file says now; the file stays as it is.
    pub fn pin(&mut self, found: Locks) {
        self.lock.sources.extend(found);
    }

    /// What the sources that the pipeline reads were found to be.
    pub fn of_pipeline(&self) -> Locks {
        let of = |name: &String| Some((name.clone(), self.lock.sources.get(name)?.clone()));
        self.read.iter().filter_map(of).collect()
    }

    /// What the planner hands to operators.
    pub fn locks(&self) -> Arc<Locks> {
        Arc::new(self.lock.sources.clone())
    }

    pub fn is_offline(&self) -> bool {
        self.options.is_offline
    }

    /// Writes what was resolved beside the pipeline, if anything was.
    ///
    /// # Errors
    /// As of any file.
    pub fn save(&mut self) -> Result<(), Failure> {
        self.lock.save()
    }
}
