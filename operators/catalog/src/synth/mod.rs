//! Synthetic data: rows that a model of the pipeline writes.

pub mod answer;
pub mod generate;
mod journal;
