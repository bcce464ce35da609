//! `show --rows`, `--grep`, `--dropped`: the rows of a dataset, and those a stage left out.

use std::collections::{BTreeMap, BTreeSet};

use llmflow_contract::{Digest, Failure, Port};
use llmflow_dataset::{Dataset, Fate, Row, TraceReader, TraceRecord};
use llmflow_runtime::lineage::StageRow;

use super::{Setting, history::History};
use crate::{args::ShowArgs, render::rows as screen};

/// Rows that are shown where no number is given.
const ROWS: usize = 5;

/// The first rows of a dataset, or the first that contain a text.
pub async fn rows(history: &History, args: &ShowArgs, setting: &Setting<'_>) -> Result<(), Failure> {
    let (_, stage, port, digest) = history.lineage.resolve(&history.address(&args.address).await?).await?;
    let artifact = history.store.artifact(&digest, &history.home.work()).await?;
    if !artifact.kind().is_dataset() {
        let message = format!("`{stage}.{port}` is of kind {}, which has no rows", artifact.kind());
        return Err(Failure::input("show/rows", message).help(history.typed(&format!("llmflow show {}", args.address))));
    }
    let dataset = Dataset::open(&artifact)?;
    let out = setting.screen;
    if !out.json {
        out.print(&screen::head(&format!("{stage}.{port}"), artifact.kind(), dataset.len(), out.paint));
    }
    let most = args.rows.unwrap_or(ROWS);
    let mut shown = 0;
    for (number, row) in dataset.rows().enumerate() {
        let row = row?;
        if args.grep.as_deref().is_some_and(|text| !contains(&row, text)) {
            continue;
        }
        if shown == most {
            if !out.json {
                out.say(&format!("… more: --rows {}", most.saturating_mul(4).max(ROWS)));
            }
            break;
        }
        shown += 1;
        if out.json {
            out.print_json(&row.to_json());
        } else {
            out.print(&screen::row(number + 1, &row, out.width, out.paint));
        }
    }
    if shown == 0 {
        out.say(if dataset.is_empty() { "no rows" } else { "no such rows" });
    }
    Ok(())
}

/// Without regard to case.
fn contains(row: &Row, text: &str) -> bool {
    row.text().to_lowercase().contains(&text.to_lowercase())
}

/// The rows a stage dropped or set aside, with the rule and what it saw.
pub async fn dropped(history: &History, args: &ShowArgs, setting: &Setting<'_>) -> Result<(), Failure> {
    let (run, stage) = history.lineage.find_stage(&history.address(&args.address).await?).await?;
    let stage = &stage;
    let records = trace_of(history, stage).await?.ok_or_else(|| {
        Failure::input("show/trace", format!("`{}` keeps no trace of its rows", stage.stage))
            .help(history.typed(&format!("llmflow show {run}/{}", stage.stage)))
    })?;
    let left_out: Vec<TraceRecord> =
        records.into_iter().filter(|record| matches!(record.verdict, Fate::Dropped | Fate::SetAside)).collect();
    let out = setting.screen;
    if left_out.is_empty() {
        out.say(&format!("{} left no row out", stage.stage));
        return Ok(());
    }
    let most = args.rows.unwrap_or(usize::MAX);
    let texts = texts_of(history, stage, &left_out).await?;
    let mut shown = 0;
    for record in &left_out {
        let text = texts.get(record.row.as_str()).map(String::as_str);
        if let Some(wanted) = &args.grep
            && !text.unwrap_or_default().to_lowercase().contains(&wanted.to_lowercase())
        {
            continue;
        }
        if shown == most {
            out.say("… and more");
            break;
        }
        shown += 1;
        if out.json {
            out.print_json(&serde_json::json!({ "trace": record, "text": text }));
        } else {
            out.print(&screen::left_out(record, text, out.width, out.paint));
        }
    }
    Ok(())
}

/// All records of a stage's trace; nothing if it wrote none.
pub async fn trace_of(history: &History, stage: &StageRow) -> Result<Option<Vec<TraceRecord>>, Failure> {
    let trace = stage.outputs.iter().find(|output| output.port == Port::from("trace"));
    let Some(digest) = trace.and_then(|output| output.digest) else { return Ok(None) };
    let artifact = history.store.artifact(&digest, &history.home.work()).await?;
    TraceReader::open(&artifact.root)?.collect::<Result<_, _>>().map(Some)
}

/// The texts of rows that a stage read, by id.
async fn texts_of(
    history: &History,
    stage: &StageRow,
    records: &[TraceRecord],
) -> Result<BTreeMap<String, String>, Failure> {
    let wanted: BTreeSet<&str> = records.iter().map(|record| record.row.as_str()).collect();
    let mut texts = BTreeMap::new();
    let digests: BTreeSet<Digest> = stage.inputs.iter().filter_map(|input| input.digest).collect();
    for digest in digests {
        let artifact = history.store.artifact(&digest, &history.home.work()).await?;
        if !artifact.kind().is_dataset() {
            continue;
        }
        for row in Dataset::open(&artifact)?.rows() {
            let row = row?;
            if wanted.contains(row.id.as_str()) {
                texts.insert(row.id.to_string(), row.text().into_owned());
            }
        }
    }
    Ok(texts)
}
