//! A YAML file becomes a checked pipeline in which every value knows its place.
//!
//! Owns: the YAML dialect and its budgets, `--set`, profiles, `${…}`, matrices, the check of all names and params,
//! the JSON Schema.
//! Must not know: kinds and keys (the planner's), how a stage runs, how a message is drawn.
//! Start at [`load`]; [`Diagnostics`] holds all that is wrong with a file.

mod check;
mod condition;
mod cycles;
mod def;
mod demand;
pub(crate) mod diagnostic;
mod expression;
mod fields;
mod file;
mod matrix;
mod names;
mod node;
mod origin;
mod overrides;
mod params;
mod parse;
mod places;
mod profile;
mod publish;
mod quantity;
mod recover;
mod reference;
mod schema;
mod secrecy;
mod slips;
mod source;
mod stage;
mod store_place;
mod varied;
mod wiring;
mod with;

#[cfg(test)]
pub(crate) mod tests;

pub use check::SIDE_PORTS;
pub use def::{Fill, InputRef, MetricRef, StageDef, StageRef, StageShared, When, Wired};
pub use demand::{Demand, LONGEST_BACKOFF, Resources, Retry};
pub use diagnostic::{Diagnostic, Diagnostics, nearest};
pub use expression::{Expr, Operand};
pub use file::Pipeline;
pub use matrix::{Axis, MAX_STAGES, Matrix};
pub use node::{Node, Value};
pub use origin::{Given, Origin};
pub use overrides::Overrides;
pub use params::Param;
pub use places::{GivenAt, Places};
pub use publish::{Publish, Target, is_remote};
pub use quantity::{duration, size_bytes};
pub use schema::schema;
pub use source::{At, MAX_FILE_BYTES, SourceFile, Span};
pub use stage::{RESERVED, Require};

use std::sync::Arc;

use file::Read;
use llmflow_contract::Registry;

/// A pipeline read and checked as far as it goes, with all that is wrong with it so far.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub pipeline: Pipeline,
    /// In file order, those of a matrix in its order. Those that are not `sound` are already reported.
    pub stages: Vec<StageDef>,
    pub diagnostics: Diagnostics,
}

/// Reads and checks a pipeline. Never fails: so the planner adds what it finds, and all is shown at once.
pub fn load(source: SourceFile, overrides: &Overrides, registry: &Registry) -> Loaded {
    load_in(source, overrides, registry, &|name| std::env::var(name).ok())
}

/// As [`load`], and what is wrong with it under each profile that is not chosen.
pub fn load_with_profiles(source: SourceFile, overrides: &Overrides, registry: &Registry) -> Loaded {
    let mut loaded = load(source, overrides, registry);
    let source = Arc::clone(&loaded.pipeline.source);
    for profile in loaded.pipeline.profiles.iter().filter(|name| overrides.profile.as_ref() != Some(name)) {
        let overrides = Overrides { profile: Some(profile.clone()), ..overrides.clone() };
        let found = load((*source).clone(), &overrides, registry).diagnostics;
        loaded.diagnostics.add_of_profile(profile, &found);
    }
    loaded
}

/// As [`load`], in a given environment.
fn load_in(
    source: SourceFile,
    overrides: &Overrides,
    registry: &Registry,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Loaded {
    let (mut read, mut diagnostics) = Read::new(source, overrides.clone(), registry, environment);
    let (stages, publish) = check::check(&read, registry, &mut diagnostics);
    read.pipeline.publish = publish;
    diagnostics.hide(&read.hidden);
    Loaded { pipeline: read.pipeline, stages, diagnostics }
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
