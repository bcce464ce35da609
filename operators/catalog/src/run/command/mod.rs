#![doc = include_str!("doc.md")]

mod protocol;
mod run;
mod spec;
#[cfg(test)]
mod tests;

pub(crate) use spec::check_variable;
pub use spec::{Params, RunCommand};
