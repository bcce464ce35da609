//! The states of a run's stages.

use llmflow_contract::{Class, Digest, Failure};
use tokio::time::Instant;

use super::pool::WorkerId;
use crate::event::{Finished, What};

/// A stage's state. One function of the engine changes it.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Something it needs has not ended.
    Waiting,
    /// All it reads exists and its key is known; whether that has a record shows once nothing holds it.
    Held(Holder),
    /// Its key has no record, and it may work on that: the scheduler has it.
    Queued,
    /// Its last attempt failed so, and another follows then.
    Pausing {
        until: Instant,
        failure: Failure,
    },
    Running(Attempt),
    Ran(Finished),
    /// A record with its key stands. Nothing will run.
    Cached(Finished),
    Failed(Failure),
    /// Committed, but its `require` does not hold.
    Refused {
        finished: Finished,
        expression: String,
        why: String,
    },
    /// By its `when`, or for want of what a skipped stage was to give (`by_gate`); or because something it needs failed.
    Skipped {
        because: String,
        by_gate: bool,
    },
    Interrupted,
}

/// What keeps a stage from its key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holder {
    /// Another stage of this run is at the same key.
    Stage(Digest),
    /// Another run is, or gc at the store: since when it waits, and whether the user knows.
    Run { since: Instant, is_told: bool },
    /// As many stages as may be are at their keys.
    Crowd,
}

/// One try of a stage, under way.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub worker: WorkerId,
    pub since: Instant,
    /// It was asked to end: when, and as what it will count.
    pub ending: Option<(Instant, Class)>,
}

impl State {
    pub fn is_over(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Held(_)) && !self.has_claim()
    }
    /// Whether nobody else may work on its key.
    pub fn has_claim(&self) -> bool {
        matches!(self, Self::Queued | Self::Pausing { .. } | Self::Running(_))
    }
    /// Whether stages that come after it may still run.
    pub fn lets_go_on(&self) -> bool {
        matches!(self, Self::Ran(_) | Self::Cached(_) | Self::Skipped { by_gate: true, .. })
    }
    /// What a stage gave that succeeded.
    pub fn result(&self) -> Option<&Finished> {
        match self {
            Self::Ran(finished) | Self::Cached(finished) => Some(finished),
            _ => None,
        }
    }

    /// What is told when a stage comes to this state; `attempt` counts from 1.
    pub fn told(&self, attempt: u32) -> Option<What> {
        match self {
            Self::Waiting | Self::Held(_) | Self::Queued | Self::Pausing { .. } => None,
            Self::Interrupted => Some(What::Interrupted),
            Self::Running(_) => Some(What::Started { attempt }),
            Self::Ran(finished) => Some(What::Finished(finished.clone())),
            Self::Cached(finished) => Some(What::Cached(finished.clone())),
            Self::Failed(failure) => Some(What::Failed { failure: failure.clone(), retry_in_ms: None }),
            Self::Refused { expression, why, .. } => {
                Some(What::Refused { expression: expression.clone(), why: why.clone() })
            }
            Self::Skipped { because, .. } => Some(What::Skipped { because: because.clone() }),
        }
    }
}
