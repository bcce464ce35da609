//! One row, back to the line of its source and on to where it was dropped or what it became.
//!
//! Each trace is read once in each direction, and only records of the rows that are followed are kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use llmflow_contract::{Failure, StageId};
use llmflow_dataset::{Fate, TraceReader, TraceRecord};
use llmflow_runtime::{event::RunId, lineage::StageRow};

use crate::{
    command::history::History,
    render::{
        lineage::{FollowedRow, Tree},
        rows::short_id,
    },
};

/// Rows with this beginning that are followed.
const MOST_ROWS: usize = 10;
/// Rows that come from, or go into, one of them, at each stage.
const MOST_KIN: usize = 200;
/// Stages that a row is followed through, each way.
const DEPTH: usize = 200;

/// What is known of the rows whose id starts with `id` at a stage.
pub(super) async fn rows(
    history: &History,
    run: &RunId,
    stage: &StageId,
    id: &str,
) -> Result<Vec<FollowedRow>, Failure> {
    let stages = history.lineage.stages_of_run(run).await?;
    let places = stages.iter().enumerate().map(|(place, row)| (row.stage.clone(), place)).collect();
    let traces = Traces { history, stages, places };
    let start = traces.place(stage);
    let found = traces.read(start, |record| is_meant(&record.row, id), MOST_ROWS).await?;
    let Some(found) = found else {
        let message = format!("`{stage}` of {run} keeps no trace of its rows");
        return Err(Failure::input("lineage/trace", message).help("name a stage that gives or filters a dataset"));
    };
    if found.is_empty() {
        let message = format!("`{stage}` of {run} has no row whose id starts with `{id}`");
        return Err(Failure::input("lineage/row", message)
            .help(format!("ids: {}", history.typed(&format!("llmflow show {run}/{stage} --rows")))));
    }
    let mut all = Vec::new();
    for record in found {
        let before = traces.back(start, &record).await?;
        let after = traces.on(start, &record).await?;
        let name = stage.to_string();
        all.push(FollowedRow {
            from: traces.tree_back(start, &record, &before, DEPTH),
            into: traces.children_on(start, &record, &after, DEPTH),
            stage: name,
            row: record.row,
        });
    }
    Ok(all)
}

/// Does an id start so? The number of a repeated row is not cut where its id is: `8c95e060#2`.
fn is_meant(row: &str, wanted: &str) -> bool {
    let apart = |id| str::split_once(id, '#').map_or((id, None), |(hash, number)| (hash, Some(number)));
    let ((hash, number), (start, wanted)) = (apart(row), apart(wanted));
    hash.starts_with(start) && (wanted.is_none() || number == wanted)
}

/// Records by the place of their stage.
type Kin = BTreeMap<usize, Vec<TraceRecord>>;

struct Traces<'a> {
    history: &'a History,
    /// In an order that ran.
    stages: Vec<StageRow>,
    places: HashMap<StageId, usize>,
}

impl Traces<'_> {
    fn place(&self, stage: &StageId) -> usize {
        self.places.get(stage).copied().unwrap_or_default()
    }

    /// The first records of a stage's trace that are wanted; nothing if it has no trace.
    async fn read(
        &self,
        stage: usize,
        is_wanted: impl Fn(&TraceRecord) -> bool,
        most: usize,
    ) -> Result<Option<Vec<TraceRecord>>, Failure> {
        let trace = self.stages[stage].outputs.iter().find(|output| output.port.as_str() == "trace");
        let Some(digest) = trace.and_then(|output| output.digest) else { return Ok(None) };
        let artifact = self.history.store.artifact(&digest, &self.history.home.work()).await?;
        let mut found: Vec<TraceRecord> = Vec::new();
        for record in TraceReader::open(&artifact.root)? {
            let record = record?;
            if is_wanted(&record) {
                found.push(record);
                if found.len() == most {
                    break;
                }
            }
        }
        Ok(Some(found))
    }

    /// What stages above did with the rows that this one comes from.
    async fn back(&self, start: usize, record: &TraceRecord) -> Result<Kin, Failure> {
        let mut wanted: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        let mut found = Kin::new();
        self.want_parents(start, record, &mut wanted);
        // Stages stand after what they read: from the last on, every wish is known when its stage is reached.
        while let Some((stage, ids)) = wanted.pop_last() {
            let gives = |record: &TraceRecord| ids.contains(&record.row);
            let records = self.read(stage, gives, MOST_KIN).await?.unwrap_or_default();
            for record in &records {
                self.want_parents(stage, record, &mut wanted);
            }
            found.insert(stage, records);
        }
        Ok(found)
    }

    fn want_parents(&self, stage: usize, record: &TraceRecord, wanted: &mut BTreeMap<usize, BTreeSet<String>>) {
        for input in &self.stages[stage].inputs {
            let from = self.place(&input.from_stage);
            wanted.entry(from).or_default().extend(record.parents.iter().cloned());
        }
    }

    /// What stages below did with this row, and with what they made of it.
    async fn on(&self, start: usize, record: &TraceRecord) -> Result<Kin, Failure> {
        let mut found = Kin::new();
        found.insert(start, vec![record.clone()]);
        for stage in start + 1..self.stages.len() {
            let given = self.given(stage, &found);
            if given.is_empty() {
                continue;
            }
            let reads = |record: &TraceRecord| comes_from(record, &given);
            let records = self.read(stage, reads, MOST_KIN).await?.unwrap_or_default();
            if !records.is_empty() {
                found.insert(stage, records);
            }
        }
        Ok(found)
    }

    /// The followed rows that a stage reads.
    fn given(&self, stage: usize, found: &Kin) -> BTreeSet<String> {
        let mut given = BTreeSet::new();
        for input in &self.stages[stage].inputs {
            let records = found.get(&self.place(&input.from_stage)).map(Vec::as_slice).unwrap_or_default();
            let went = records.iter().filter(|record| {
                let is_out = !matches!(record.verdict, Fate::Dropped | Fate::SetAside);
                is_out && record.port.as_deref().is_none_or(|port| port == input.from_port.as_str())
            });
            given.extend(went.map(|record| record.row.clone()));
        }
        given
    }

    fn tree_back(&self, stage: usize, record: &TraceRecord, before: &Kin, depth: usize) -> Tree {
        let inputs = &self.stages[stage].inputs;
        let mut children = Vec::new();
        for parent in record.parents.iter().filter(|_| depth > 0) {
            let mut is_known = false;
            let mut seen = BTreeSet::new();
            for from in inputs.iter().map(|input| self.place(&input.from_stage)).filter(|from| seen.insert(*from)) {
                let records = before.get(&from).map(Vec::as_slice).unwrap_or_default();
                if let Some(found) = records.iter().find(|record| record.row == *parent) {
                    children.push(self.tree_back(from, found, before, depth - 1));
                    is_known = true;
                }
            }
            // A parent that no stage knows is a place in a source: `rows.jsonl:12`.
            if !is_known && inputs.is_empty() && *parent != record.row {
                children.push(Tree { name: short_id(parent), about: "source".into(), ..Tree::default() });
            }
        }
        Tree { name: self.named(stage, record), about: told(record), is_above: false, children }
    }

    fn children_on(&self, stage: usize, record: &TraceRecord, after: &Kin, depth: usize) -> Vec<Tree> {
        let given = BTreeSet::from([record.row.clone()]);
        let mut children = Vec::new();
        for (below, records) in after.range(stage + 1..) {
            let is_read = self.stages[*below].inputs.iter().any(|input| {
                let port = record.port.as_deref().is_none_or(|port| port == input.from_port.as_str());
                self.place(&input.from_stage) == stage && port
            });
            if !is_read || depth == 0 || matches!(record.verdict, Fate::Dropped | Fate::SetAside) {
                continue;
            }
            for found in records.iter().filter(|found| comes_from(found, &given)) {
                let grown = self.children_on(*below, found, after, depth - 1);
                let (name, about) = (self.named(*below, found), told(found));
                children.push(Tree { name, about, is_above: false, children: grown });
            }
        }
        children
    }

    fn named(&self, stage: usize, record: &TraceRecord) -> String {
        format!("{}  {}", self.stages[stage].stage, short_id(&record.row))
    }
}

fn comes_from(record: &TraceRecord, given: &BTreeSet<String>) -> bool {
    record.parents.iter().any(|parent| given.contains(parent))
}

/// `dropped by too_short · {"words":2}`.
fn told(record: &TraceRecord) -> String {
    let mut text = record.verdict.name().replace('_', " ");
    if let Some(rule) = &record.rule {
        let word = if matches!(record.verdict, Fate::Dropped | Fate::SetAside) { "by" } else { "as" };
        text.push_str(&format!(" {word} {rule}"));
    }
    if let Some(evidence) = &record.evidence {
        text.push_str(&format!(" · {evidence}"));
    }
    if let Some(port) = &record.port {
        text.push_str(&format!(" → {port}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_by_its_beginning_and_a_repeat_by_its_number() {
        let repeat = "8c95e0601234#2";
        for (wanted, is_found) in
            [("8c95", true), ("8c95e060#2", true), (repeat, true), ("8c95e060#1", false), ("8c95e060#", false)]
        {
            assert_eq!(is_meant(repeat, wanted), is_found, "{wanted}");
        }
        assert!(!is_meant("8c95e0601234", "8c95e060#2"));
    }
}
