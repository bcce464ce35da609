//! Training: what changes parameters.
//!
//! Owns: what learns ([`Policy`]), batches as passes, the optimizer, the learning rate over time, gradient clipping,
//! saved state, random starts.
//! Must not know: rows, files of a pipeline, how long a run is.
//! Start at [`Trainer`].

mod adamw;
mod example;
mod init;
mod policy;
mod schedule;
mod state;
#[cfg(test)]
mod tests;
mod trainer;

pub use adamw::{AdamW, AdamWConfig, clip};
pub use example::{Contrast, Example};
pub use init::{Uniform, init};
pub use policy::Policy;
pub use schedule::{Schedule, Shape};
pub use trainer::{OnPass, PairFigures, Stepped, SteppedPairs, Trainer, TrainerConfig};
