//! The datasets of both runs: which rows only one has, and what became of them.

use std::collections::{BTreeSet, HashMap};

use llmflow_contract::{Digest, Failure};
use llmflow_dataset::{Dataset, Fate, TraceReader};
use llmflow_runtime::{lineage::StageRow, store::Store};

use super::{Pair, Stores};
use crate::render::diff::{Data, RowChange, RowChanges, Wanted};

/// Rows that are shown of each dataset without `--all`.
const FEW: usize = 10;

/// Every dataset that both gave; where rows are wanted, which of them differ.
pub(super) async fn data(stores: &Stores, pairs: &[Pair<'_>], wanted: Wanted) -> Result<Vec<Data>, Failure> {
    let mut all = Vec::new();
    for pair in pairs {
        let mut outputs = Vec::new();
        for output in pair.now.outputs.iter().filter(|output| output.kind.is_dataset()) {
            let old = pair.before.outputs.iter().find(|old| old.port == output.port);
            if let (Some(now), Some(before)) = (output.digest, old.and_then(|old| old.digest)) {
                outputs.push((output.port.clone(), before, now));
            }
        }
        for (port, before, now) in outputs {
            let name = format!("{}.{port}", pair.name());
            let is_same = before == now;
            let rows = match wanted.rows && !is_same {
                true => changes(stores, pair.now, &before, &now, wanted).await?,
                false => None,
            };
            let (rows_before, rows_now) = (count(&stores.before, &before).await, count(&stores.now, &now).await);
            all.push(Data { name, before, now, rows_before, rows_now, rows });
        }
    }
    Ok(all)
}

async fn count(store: &Store, digest: &Digest) -> Option<u64> {
    store.manifest(digest).await.ok()?.facts.rows
}

/// Rows are told apart by their ids, which are hashes of their content.
async fn changes(
    stores: &Stores,
    stage: &StageRow,
    before: &Digest,
    now: &Digest,
    wanted: Wanted,
) -> Result<Option<RowChanges>, Failure> {
    let open = async |store: &Store, digest: &Digest| match store.artifact(digest, &stores.work).await {
        Ok(artifact) => Dataset::open(&artifact).map(Some),
        Err(_) => Ok(None), // the store no longer has it
    };
    let (Some(before), Some(now)) = (open(&stores.before, before).await?, open(&stores.now, now).await?) else {
        return Ok(None);
    };
    let most = if wanted.all { usize::MAX } else { FEW };
    let (old, new) = (ids_of(&before)?, ids_of(&now)?);
    let mut changes = RowChanges {
        added: new.difference(&old).count() as u64,
        removed: old.difference(&new).count() as u64,
        shown: Vec::new(),
    };
    let mut removed = texts(&before, &new, false, most)?;
    let fates = fates(stores, stage, &removed).await?;
    for row in &mut removed {
        row.fate = fates.get(&row.id).cloned();
    }
    changes.shown = removed;
    changes.shown.extend(texts(&now, &old, true, most)?);
    Ok(Some(changes))
}

fn ids_of(dataset: &Dataset) -> Result<BTreeSet<String>, Failure> {
    dataset.rows().map(|row| Ok(row?.id.to_string())).collect()
}

/// The first rows that the other has not.
fn texts(dataset: &Dataset, other: &BTreeSet<String>, is_added: bool, most: usize) -> Result<Vec<RowChange>, Failure> {
    let mut found = Vec::new();
    for row in dataset.rows() {
        if found.len() == most {
            break;
        }
        let row = row?;
        if !other.contains(row.id.as_str()) {
            let text = row.text().into_owned();
            found.push(RowChange { id: row.id.to_string(), is_added, text, fate: None });
        }
    }
    Ok(found)
}

/// What the stage of the newer run did with rows that it no longer gives.
async fn fates(stores: &Stores, stage: &StageRow, rows: &[RowChange]) -> Result<HashMap<String, String>, Failure> {
    let trace = stage.outputs.iter().find(|output| output.port.as_str() == "trace");
    let Some(digest) = trace.and_then(|output| output.digest) else { return Ok(HashMap::new()) };
    let Ok(artifact) = stores.now.artifact(&digest, &stores.work).await else { return Ok(HashMap::new()) };
    let wanted: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let mut fates: HashMap<String, String> =
        wanted.iter().map(|id| ((*id).to_owned(), "not among what it read".to_owned())).collect();
    for record in TraceReader::open(&artifact.root)? {
        let record = record?;
        let about = record.parents.iter().chain([&record.row]).find(|id| wanted.contains(id.as_str()));
        let Some(id) = about.cloned() else { continue };
        let rule = record.rule.map(|rule| format!(" by {rule}")).unwrap_or_default();
        let fate = match record.verdict {
            Fate::Dropped => format!("dropped{rule}"),
            Fate::SetAside => format!("set aside{rule}"),
            Fate::Changed => format!("changed{rule}"),
            Fate::Made | Fate::Kept => continue,
        };
        fates.insert(id, fate);
    }
    Ok(fates)
}
