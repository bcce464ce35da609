#![doc = include_str!("doc.md")]

mod convert;
mod files;
mod records;
mod remote_files;
mod run;
mod spec;
#[cfg(test)]
mod tests;

pub use spec::{Format, Load, OnBadRow, Params, SplitText};
