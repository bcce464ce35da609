#![doc = include_str!("doc.md")]

mod pairs;
mod run;
mod spec;
#[cfg(test)]
mod tests;
mod words;

pub use spec::{Compare, Params, Test};
