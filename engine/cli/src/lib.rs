//! The command line: what people type, and how LLMflow answers.
//!
//! Must not know: any operator by name, tensors, how a stage is scheduled.
//! Start at [`render`]: the readers of a run's events.

pub mod render;
