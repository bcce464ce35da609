//! What differs from the run before, in one line: `params.rank 16 → 32, sft.in.data`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use llmflow_contract::{Port, StageId};
use serde_json::Value;
use sqlx::{Sqlite, Transaction};

use super::{
    columns::{json, text},
    recall::SUCCESS_BEFORE,
    row::slot,
    *,
};
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

/// The inputs of a run, or of one of its stages.
const READS: &str = "SELECT stage, port, label, from_stage, from_port FROM inputs
    WHERE run = ?1 AND (?2 IS NULL OR stage = ?2) ORDER BY stage, position";

/// What the plan says of the stages that will run.
pub(super) struct Changed {
    /// What differs of each from its last success.
    changes: Vec<(StageId, Change)>,
    /// Those that may give something new.
    run: BTreeSet<StageId>,
}

impl Changed {
    pub(super) fn of(plan: &PlanView) -> Self {
        let mut it = Self { changes: Vec::new(), run: BTreeSet::new() };
        for stage in &plan.stages {
            if let Will::Run { because, .. } = &stage.will {
                it.changes.extend(because.iter().map(|change| (stage.stage.clone(), change.clone())));
            }
            if !matches!(stage.will, Will::Cached { .. } | Will::Skipped { .. }) {
                it.run.insert(stage.stage.clone());
            }
        }
        it
    }

    /// The line: the file's params first, then what of the stages does not follow from these or from one another; if that is
    /// nothing, what follows.
    pub(super) async fn line(self, transaction: &mut Transaction<'_, Sqlite>, run: &RunId) -> Result<String, Failure> {
        let row = sqlx::query(PARAMS).bind(&run.0).fetch_optional(&mut **transaction).await.map_err(failed)?;
        let params: Option<[BTreeMap<String, Value>; 2]> = match row {
            Some(row) => Some([json(&row, "before")?.unwrap_or_default(), json(&row, "now")?.unwrap_or_default()]),
            None => None,
        };
        let params = params.map(|[before, now]| params_changed(&before, &now)).unwrap_or_default();
        let is_input = |change: &Change| change.part.starts_with("in.");
        let wiring = match self.changes.iter().any(|(_, change)| is_input(change)) {
            true => reads(transaction, run, None).await?,
            false => Reads::new(),
        };
        let (mut own, mut following) = (Vec::new(), Vec::new());
        for (stage, mut change) in self.changes {
            if is_input(&change) {
                let place = (stage.clone(), change.part.clone());
                let now = wiring.get(&place).map(Vec::as_slice).unwrap_or_default();
                if now.iter().any(|(maker, _)| self.run.contains(maker)) {
                    following.push((stage, Change { before: None, now: None, ..change }));
                    continue;
                }
                let before = match own.len() < SHOWN {
                    true => run_before(transaction, run, &stage).await?,
                    false => None, // it is counted, not named
                };
                let before = match before {
                    Some(before) => reads(transaction, &before, Some(&stage)).await?.remove(&place).unwrap_or_default(),
                    None => Vec::new(),
                };
                (change.before, change.now) = rewired(&before, now);
            }
            own.push((stage, change));
        }
        let line = said(&params, &own);
        Ok(if line.is_empty() { said(&params, &following) } else { line })
    }
}

/// What gives each input: the stage, and it with its port.
type Reads = HashMap<(StageId, String), Vec<(StageId, String)>>;

/// The inputs of a run, or of one of its stages.
async fn reads(
    transaction: &mut Transaction<'_, Sqlite>,
    run: &RunId,
    stage: Option<&StageId>,
) -> Result<Reads, Failure> {
    let rows: Vec<(String, String, Option<String>, String, String)> = sqlx::query_as(READS)
        .bind(&run.0)
        .bind(stage.map(StageId::as_str))
        .fetch_all(&mut **transaction)
        .await
        .map_err(failed)?;
    let mut reads = Reads::new();
    for (stage, port, label, from, from_port) in rows {
        let part = format!("in.{}", slot(&Port::from(port.as_str()), label.as_deref()));
        let name = format!("{from}.{from_port}");
        reads.entry((StageId::new(stage), part)).or_default().push((StageId::new(from), name));
    }
    Ok(reads)
}

/// The run of a stage's last success.
async fn run_before(
    transaction: &mut Transaction<'_, Sqlite>,
    run: &RunId,
    stage: &StageId,
) -> Result<Option<RunId>, Failure> {
    let query = sqlx::query(SUCCESS_BEFORE).bind(&run.0).bind(stage.as_str());
    let row = query.fetch_optional(&mut **transaction).await.map_err(failed)?;
    row.map(|row| text(&row, "run").map(RunId)).transpose()
}

/// What an input read and reads, where that is another stage or port: other bytes of the same are told by their name alone.
fn rewired(before: &[(StageId, String)], now: &[(StageId, String)]) -> (Option<String>, Option<String>) {
    let names = |reads: &[(StageId, String)]| {
        let names: Vec<&str> = reads.iter().map(|(_, name)| name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(" "))
    };
    match (names(before), names(now)) {
        (before, now) if before == now => (None, None),
        named => named,
    }
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
        let origins = change.origin.as_deref().unwrap_or_default().trim_start_matches("with ").split("; ");
        let mut names = origins.filter_map(|origin| origin.split(", ").next());
        names.all(|name| params.iter().any(|param| param.part == name))
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
        (Some(before), Some(now)) if change.part.starts_with("in.") || before.len() + now.len() <= LONGEST => {
            format!("{name} {before} → {now}")
        }
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
        let stages = [change("with.lora_r", Some("params.rank, p.yaml:4")), change("with.epochs", Some("p.yaml:5"))];
        assert_eq!(said(&params_changed(&params(6), &params(8)), &stages), "params.rank 6 → 8, sft.epochs 6 → 8");
        assert_eq!(said(&[], &stages), "sft.lora_r 6 → 8, sft.epochs 6 → 8");
        let read = |name: &str| vec![(StageId::from(name), format!("{name}.data"))];
        assert_eq!(rewired(&read("a"), &read("b")), (Some("a.data".into()), Some("b.data".into())));
        assert_eq!(rewired(&read("a"), &read("a")), (None, None), "other bytes of the same");
        let many = vec![stages[1].clone(); 10];
        assert!(said(&[], &many).ends_with("sft.epochs 6 → 8, 2 more"));
    }
}
