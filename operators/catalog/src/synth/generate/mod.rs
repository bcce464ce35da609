#![doc = include_str!("doc.md")]

mod rules;
mod run;
mod sentences;
mod spec;
#[cfg(test)]
mod tests;

pub use spec::{Generate, Keep, Params, Task};
