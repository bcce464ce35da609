//! Training: what changes parameters.
//!
//! Owns: the optimizer, the learning rate over time, gradient clipping.
//! Must not know: rows, files of a pipeline, objectives' names.

mod adamw;
mod schedule;
mod trainer;

pub use adamw::{AdamW, clip};
pub use schedule::{Schedule, Shape};
pub use trainer::{Example, Stepped, Trainer, supervised_tokens};
