#![doc = include_str!("doc.md")]

mod judge;
mod run;
mod spec;
#[cfg(test)]
mod tests;

pub use spec::{Answer, Chosen, Form, Keep, Params, Select};
