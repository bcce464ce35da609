//! Questions that both runs answered: which came out better, which worse.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use llmflow_contract::{Digest, Failure, Report, Sample};
use llmflow_runtime::{lineage::StageRow, store::Store};

use super::{Pair, Stores, figures::is_more_better};
use crate::render::diff::{Answer, Answers};

/// Marks that tell a better answer from a worse one, the most telling first.
const MARKS: [&str; 5] = ["acc", "exact_match", "f1", "key_phrase", "gold_logprob"];
/// Largest report that is read, in bytes.
const MOST_BYTES: u64 = 1 << 30;

/// The questions of one stage, compared.
pub(super) struct Compared {
    pub shown: Answers,
    /// Before and now, of each question both answered.
    marks: Vec<(BTreeMap<String, f64>, BTreeMap<String, f64>)>,
}

impl Compared {
    /// How much a mark rose, of each question that has it in both.
    pub fn deltas(&self, metric: &str) -> Vec<f64> {
        self.marks.iter().filter_map(|(before, now)| Some(now.get(metric)? - before.get(metric)?)).collect()
    }

    #[cfg(test)]
    pub fn of_deltas(metric: &str, deltas: Vec<f64>) -> Self {
        let mark = |value: f64| BTreeMap::from([(metric.to_owned(), value)]);
        Self {
            shown: compare(&[], &[], "stage".into()).shown,
            marks: deltas.into_iter().map(|delta| (mark(0.0), mark(delta))).collect(),
        }
    }
}

/// Compares the answers of every stage that was asked questions in both runs and answered them otherwise.
pub(super) async fn answers(stores: &Stores, pairs: &[Pair<'_>]) -> Result<Vec<Compared>, Failure> {
    let mut all = Vec::new();
    for pair in pairs {
        let (Some(before), Some(now)) = (results_of(pair.before), results_of(pair.now)) else { continue };
        if before == now {
            continue;
        }
        let (Some(before), Some(now)) =
            (read(&stores.before, &before, &stores.work).await?, read(&stores.now, &now, &stores.work).await?)
        else {
            continue;
        };
        let compared = compare(&before.samples, &now.samples, pair.now.stage.clone());
        if compared.shown.questions > 0 {
            all.push(compared);
        }
    }
    Ok(all)
}

/// The artifact with a stage's answers: an output that is a report. Its side output of that name holds a few of them.
fn results_of(row: &StageRow) -> Option<Digest> {
    let reports = row.outputs.iter().filter(|output| output.kind.as_str() == "report");
    reports.filter_map(|output| output.digest).next()
}

/// Its report; nothing where the store no longer has it.
async fn read(store: &Store, digest: &Digest, work: &Path) -> Result<Option<Report>, Failure> {
    let Ok(manifest) = store.manifest(digest).await else { return Ok(None) };
    if !manifest.files.iter().any(|file| file.path == "report.json" && file.size_bytes <= MOST_BYTES) {
        return Ok(None);
    }
    let Ok(artifact) = store.artifact(digest, work).await else { return Ok(None) };
    let path = artifact.root.join("report.json");
    let bytes = std::fs::read(&path).map_err(|error| Failure::io("reading", &path, &error))?;
    let report = serde_json::from_slice(&bytes);
    report.map(Some).map_err(|error| Failure::environment("store/bad-blob", "a report is damaged").cause(error))
}

fn compare(before: &[Sample], now: &[Sample], stage: llmflow_contract::StageId) -> Compared {
    let by_row: HashMap<&str, &Sample> =
        before.iter().filter_map(|sample| Some((sample.row.as_deref()?, sample))).collect();
    let both: Vec<(&str, &Sample, &Sample)> = now
        .iter()
        .filter_map(|sample| {
            let row = sample.row.as_deref()?;
            let old = by_row.get(row).copied().filter(|old| !old.metrics.is_empty())?;
            Some((row, old, sample))
        })
        .collect();
    let has = |mark: &&&str| {
        let is_marked = |sample: &Sample| sample.metrics.contains_key(**mark);
        both.iter().any(|(_, old, new)| is_marked(old) && is_marked(new))
    };
    let mark = MARKS.iter().find(has).copied().unwrap_or_default();
    let mut shown = Answers {
        stage,
        questions: both.len(),
        mark: mark.to_owned(),
        better: 0,
        worse: 0,
        reworded: 0,
        changed: Vec::new(),
    };
    for (row, old, new) in &both {
        let gain = gain(mark, old, new);
        let (before, now) = spoken(old, new);
        match gain {
            gain if gain > 0.0 => shown.better += 1,
            gain if gain < 0.0 => shown.worse += 1,
            _ if before != now => shown.reworded += 1,
            _ => continue,
        }
        shown.changed.push(Answer {
            row: (*row).to_owned(),
            question: new.title.clone(),
            gold: text(new, "gold").map(str::to_owned),
            before: before.to_owned(),
            now: now.to_owned(),
            gain,
        });
    }
    shown.changed.sort_by(|a, b| b.gain.abs().total_cmp(&a.gain.abs()));
    let marks = both.iter().map(|(_, old, new)| (old.metrics.clone(), new.metrics.clone())).collect();
    Compared { shown, marks }
}

/// How much better an answer became.
fn gain(mark: &str, old: &Sample, new: &Sample) -> f64 {
    let of = |sample: &Sample| sample.metrics.get(mark).copied().unwrap_or_default();
    let rise = of(new) - of(old);
    if is_more_better(mark) == Some(false) { -rise } else { rise }
}

/// What both said: freely, where both were asked to, else what they chose.
fn spoken<'a>(old: &'a Sample, new: &'a Sample) -> (&'a str, &'a str) {
    ["answer", "predicted"].iter().find_map(|name| Some((text(old, name)?, text(new, name)?))).unwrap_or_default()
}

fn text<'a>(sample: &'a Sample, name: &str) -> Option<&'a str> {
    sample.texts.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(row: &str, acc: f64, answer: &str) -> Sample {
        Sample {
            row: Some(row.into()),
            title: row.into(),
            texts: vec![("predicted".into(), "x".into()), ("answer".into(), answer.into())],
            metrics: [("acc".to_owned(), acc)].into(),
        }
    }

    #[test]
    fn answers_are_paired_by_their_row_and_told_apart_by_their_mark() {
        let before =
            [sample("a", 0.0, "no"), sample("b", 1.0, "yes"), sample("c", 1.0, "one"), sample("gone", 1.0, "")];
        let now = [sample("c", 1.0, "two"), sample("b", 0.0, "no"), sample("a", 1.0, "yes"), sample("new", 1.0, "")];
        let compared = compare(&before, &now, "quiz".into());
        let shown = &compared.shown;
        assert_eq!((shown.questions, shown.better, shown.worse, shown.reworded), (3, 1, 1, 1));
        assert_eq!(shown.changed.last().unwrap().row, "c", "what only sounds otherwise comes last");
        assert_eq!(compared.deltas("acc").iter().sum::<f64>(), 0.0);
    }
}
