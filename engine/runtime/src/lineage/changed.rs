//! What differs from the run before, in one line: `params.rank 16 → 32, sft.in.data`.

use std::collections::{BTreeMap, BTreeSet};

use llmflow_contract::StageId;
use serde_json::Value;
use sqlx::{Sqlite, Transaction};

use super::{columns::json, *};
use crate::plan::{Change, PlanView, Will};

/// A line, not a list.
const SHOWN: usize = 8;
/// Longest values that are shown: both together, in bytes.
const LONGEST: usize = 40;

/// The params of a run, and those of the one before it of the same pipeline and limit.
const PARAMS: &str =
    "SELECT this.params AS now, before.params AS before FROM runs this JOIN runs before ON before.run = (
        SELECT r.run FROM runs r WHERE r.pipeline = this.pipeline AND r.number < this.number
            AND (nullif(r.overrides, '') ->> '$.limit') IS (nullif(this.overrides, '') ->> '$.limit')
        ORDER BY r.number DESC LIMIT 1)
    WHERE this.run = ?";

/// What differs of the stages that will run from their last success.
pub(super) fn of_stages(plan: &PlanView) -> Vec<(StageId, Change)> {
    let runs = plan.stages.iter().filter_map(|stage| match &stage.will {
        Will::Run { because, .. } => Some((&stage.stage, because)),
        _ => None,
    });
    runs.flat_map(|(stage, because)| because.iter().map(|change| (stage.clone(), change.clone()))).collect()
}

/// The line: the file's params first, then what of the stages does not follow from these.
pub(super) async fn line(
    transaction: &mut Transaction<'_, Sqlite>,
    run: &RunId,
    stages: &[(StageId, Change)],
) -> Result<String, Failure> {
    let row = sqlx::query(PARAMS).bind(&run.0).fetch_optional(&mut **transaction).await.map_err(failed)?;
    let params: Option<[BTreeMap<String, Value>; 2]> = match row {
        Some(row) => Some([json(&row, "before")?.unwrap_or_default(), json(&row, "now")?.unwrap_or_default()]),
        None => None,
    };
    Ok(said(&params.map(|[before, now]| params_changed(&before, &now)).unwrap_or_default(), stages))
}

/// Names of params that differ, with their values.
fn params_changed(before: &BTreeMap<String, Value>, now: &BTreeMap<String, Value>) -> Vec<Change> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let value = |params: &BTreeMap<String, Value>, name: &str| params.get(name).map(Value::to_string);
    let changed = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    let change = |name: &String| Change {
        part: format!("params.{name}"),
        before: value(before, name),
        now: value(now, name),
        origin: None,
    };
    changed.map(change).collect()
}

fn said(params: &[Change], stages: &[(StageId, Change)]) -> String {
    let follows = |change: &Change| {
        let from = change.origin.as_deref().and_then(|origin| origin.split(", ").next());
        params.iter().any(|param| from == Some(param.part.as_str()) || change.part.starts_with("in."))
    };
    let own = stages.iter().filter(|(_, change)| !follows(change));
    let named = own.map(|(stage, change)| {
        let part = change.part.strip_prefix("with.").unwrap_or(&change.part);
        word(format!("{stage}.{part}"), change)
    });
    let mut words: Vec<String> = params.iter().map(|change| word(change.part.clone(), change)).chain(named).collect();
    let more = words.len().saturating_sub(SHOWN);
    words.truncate(SHOWN);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

fn word(name: String, change: &Change) -> String {
    match (&change.before, &change.now) {
        (Some(before), Some(now)) if before.len() + now.len() <= LONGEST => format!("{name} {before} → {now}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_param_of_the_file_is_named_before_and_in_place_of_what_follows_from_it() {
        let params = |rank: u32| BTreeMap::from([("rank".to_owned(), Value::from(rank)), ("same".into(), 1.into())]);
        let change = |part: &str, origin: Option<&str>| {
            let (before, now) = (Some("6".to_owned()), Some("8".to_owned()));
            ("sft".into(), Change { part: part.into(), before, now, origin: origin.map(str::to_owned) })
        };
        let stages = [
            change("with.lora_r", Some("params.rank, p.yaml:4")),
            change("with.epochs", Some("p.yaml:5")),
            change("in.model", None),
        ];
        assert_eq!(said(&params_changed(&params(6), &params(8)), &stages), "params.rank 6 → 8, sft.epochs 6 → 8");
        assert_eq!(said(&[], &stages), "sft.lora_r 6 → 8, sft.epochs 6 → 8, sft.in.model 6 → 8");
        let many = vec![stages[1].clone(); 10];
        assert!(said(&[], &many).ends_with("sft.epochs 6 → 8, 2 more"));
    }
}
