//! Synthetic data: rows that a model of the pipeline writes.

pub mod answer;
pub mod generate;
mod journal;
pub(crate) mod speaker;

use llmflow_contract::{Facts, Known};

/// The empty system line, the same as in training: templates add a long one otherwise.
pub(crate) fn empty_line() -> Option<String> {
    Some(String::new())
}

/// Facts of rows made from a port's rows: how they may be used, and their licences.
fn facts_from(known: &Known, port: &str) -> Facts {
    let facts = known.facts(port);
    Facts { used_for: facts.used_for, licences: facts.licences, ..Facts::default() }
}
