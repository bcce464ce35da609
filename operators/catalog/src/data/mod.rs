//! Rows: read, clean, deduplicate, split.

pub mod dedup;
pub mod filter;
pub mod load;
pub(crate) mod near_duplicates;
pub mod split;

use llmflow_contract::{Facts, Failure, Known, KnownInput, Use};
use llmflow_dataset::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which side of a row a rule looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The whole row.
    #[default]
    Text,
    /// What is asked.
    Prompt,
    /// What is answered.
    Answer,
}

impl Side {
    fn field(self) -> Field {
        match self {
            Self::Text => Field::Text,
            Self::Prompt => Field::Prompt,
            Self::Answer => Field::Answer,
        }
    }
}

/// What rows of several datasets have in common: every licence, and `eval` as soon as one is.
fn merged_facts<'a>(inputs: impl IntoIterator<Item = &'a Facts>) -> Facts {
    let mut merged = Facts::default();
    for facts in inputs {
        if facts.used_for == Some(Use::Eval) || merged.used_for.is_none() {
            merged.used_for = facts.used_for;
        }
        for licence in &facts.licences {
            if !merged.licences.contains(licence) {
                merged.licences.push(licence.clone());
            }
        }
    }
    merged
}

/// The inputs of the port `data`, which must all be of one kind.
fn one_kind(known: &Known) -> Result<&[KnownInput], Failure> {
    let inputs = known.inputs.get("data").map(Vec::as_slice).unwrap_or_default();
    match inputs.iter().find(|input| input.kind != inputs[0].kind) {
        None => Ok(inputs),
        Some(other) => Err(Failure::input(
            "plan/kind-mismatch",
            format!(
                "`data` mixes {} of `{}` with {} of `{}`",
                inputs[0].kind, inputs[0].stage, other.kind, other.stage
            ),
        )
        .help("give rows of one kind to this stage")),
    }
}

/// `1 row`, `2 rows`.
fn count_of(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A text cut for a report at 400 characters.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
