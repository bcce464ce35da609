#![doc = include_str!("doc.md")]

mod marks;
mod run;
mod spec;
#[cfg(test)]
mod tests;

pub use spec::{Answers, Benchmark, Metric, Params, Template};
