//! Evaluation: how good a model is, how sure we are, and whether another one is better.

pub mod benchmark;
pub mod compare;
pub mod perplexity;
pub mod statistics;
