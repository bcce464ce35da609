#![doc = include_str!("doc.md")]

mod protocol;
mod run;
mod spec;
mod stamp;
#[cfg(test)]
mod tests;

pub use spec::{Params, RunCommand};
pub(crate) use spec::{check_program, check_variables};
