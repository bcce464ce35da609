//! Rows: read, clean, deduplicate, split.

pub mod dedup;
pub mod filter;
pub mod load;
pub mod map;
pub(crate) mod near_duplicates;
pub mod split;

use llmflow_contract::{Context, Facts, Failure, Funnel, Known, KnownInput, Needs, Report, Sample, Use, Work};
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

/// What comparing all rows of the port `data` with each other takes.
fn near_duplicate_needs(known: &Known) -> Needs {
    let rows = known.rows("data").unwrap_or_default();
    Needs {
        cores: known.machine.cores.clamp(1, 4),
        memory_bytes: (64 << 20) + rows * 4096,
        disk_bytes: rows * 512,
        work: Work::Rows(rows),
        ..Needs::default()
    }
}

/// Reports a stage that keeps some rows and drops others: `301 kept · 4 too_short`.
fn report_kept(ctx: &Context, funnel: &Funnel, samples: Vec<Sample>) -> Result<(), Failure> {
    let dropped: u64 = funnel.dropped.values().sum();
    let mut summary = format!("{} kept", funnel.kept);
    for (rule, count) in &funnel.dropped {
        summary += &format!(" · {count} {rule}");
    }
    let metrics = [("rows", funnel.rows_in), ("kept", funnel.kept), ("dropped", dropped)];
    report_counts(ctx, summary, metrics, funnel.clone(), samples)
}

/// Emits counts of rows as metrics, and reports them with the funnel they come from.
fn report_counts<const N: usize>(
    ctx: &Context,
    summary: String,
    metrics: [(&str, u64); N],
    funnel: Funnel,
    samples: Vec<Sample>,
) -> Result<(), Failure> {
    for (name, value) in metrics {
        ctx.metric(name, value as f64, None);
    }
    ctx.report(&Report {
        summary,
        metrics: metrics.map(|(name, value)| (name.to_owned(), value as f64)).into(),
        samples,
        funnel: Some(funnel),
        ..Report::default()
    })
}

/// `1 row`, `2 rows`.
pub(crate) fn count_of(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A text cut for a report at 400 characters.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
