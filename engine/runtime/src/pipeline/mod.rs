//! A YAML file becomes a checked pipeline in which every value knows its place.
//!
//! Owns: the YAML dialect and its budgets, `--set`, `${…}`, the check of all names and params, the JSON Schema.
//! Must not know: kinds and keys (the planner's), how a stage runs, how a message is drawn.
//! Start at [`load`]; [`Diagnostics`] holds all that is wrong with a file.

mod check;
mod diagnostic;
mod expression;
mod fields;
mod file;
mod node;
mod params;
mod quantity;
mod reference;
mod schema;
mod source;
mod stage;
mod with;

#[cfg(test)]
mod tests;

pub use check::{InputRef, SIDE_PORTS, StageDef, check};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use expression::Expr;
pub use file::{Pipeline, Publish, Target};
pub use node::{Node, Value};
pub use params::Param;
pub use quantity::{duration, size_bytes};
pub use reference::Origin;
pub use schema::schema;
pub use source::{At, MAX_FILE_BYTES, SourceFile, Span};
pub use stage::{Demand, LONGEST_BACKOFF, RESERVED, Ref, Require, Resources, Retry, Stage, Wiring};
pub use with::{GivenAt, Places, check_params};

use llmflow_contract::Registry;

/// A pipeline read and checked as far as it goes, with all that is wrong with it so far.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub pipeline: Pipeline,
    /// In file order. Those that are not `sound` are already reported.
    pub stages: Vec<StageDef>,
    pub diagnostics: Diagnostics,
}

/// Reads and checks a pipeline. Never fails: so the planner adds what it finds, and all is shown at once.
pub fn load(source: SourceFile, set: &[String], registry: &Registry) -> Loaded {
    load_in(source, set, registry, &|name| std::env::var(name).ok())
}

/// As [`load`], in a given environment.
fn load_in(
    source: SourceFile,
    set: &[String],
    registry: &Registry,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Loaded {
    let (pipeline, mut diagnostics) = Pipeline::read(source, set, environment);
    let (stages, found) = check(&pipeline, registry);
    diagnostics.extend(found);
    Loaded { pipeline, stages, diagnostics }
}

impl Loaded {
    /// The pipeline, if nothing is wrong with it.
    ///
    /// # Errors
    /// All that is wrong, in file order.
    pub fn into_result(self) -> Result<(Pipeline, Vec<StageDef>), Diagnostics> {
        if self.diagnostics.is_empty() { Ok((self.pipeline, self.stages)) } else { Err(self.diagnostics) }
    }
}
