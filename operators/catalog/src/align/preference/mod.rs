#![doc = include_str!("doc.md")]

mod run;
mod spec;
#[cfg(test)]
mod tests;

pub use spec::{AlignPreference, Params};
