#![doc = include_str!("doc.md")]

mod answer;
mod run;
mod spec;
#[cfg(test)]
mod tests;

pub use spec::{Map, Params};
