#![doc = include_str!("doc.md")]

mod run;
mod source;
mod spec;
#[cfg(test)]
mod tests;
mod wheel;

pub use spec::{Load, Params};
