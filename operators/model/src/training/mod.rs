//! Training: what changes parameters.
//!
//! Owns: the optimizer, the learning rate over time, gradient clipping.
//! Must not know: rows, files of a pipeline, objectives' names.

mod adamw;
mod schedule;

pub use adamw::{AdamW, clip};
pub use schedule::{Schedule, Shape};
