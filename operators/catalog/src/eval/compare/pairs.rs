//! Two results, paired question by question.

use std::collections::{BTreeMap, HashMap};

use llmflow_contract::{AnyArtifact, Failure, Report, Sample};

use super::spec::METRICS;

/// Largest `report.json` read, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// One question and what both models made of it.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub baseline: Sample,
    pub candidate: Sample,
}

impl Pair {
    /// A figure of both, the baseline's first.
    pub fn values(&self, metric: &str) -> (f64, f64) {
        let of = |metrics: &BTreeMap<String, f64>| metrics.get(metric).copied().unwrap_or_default();
        (of(&self.baseline.metrics), of(&self.candidate.metrics))
    }
    pub fn delta(&self, metric: &str) -> f64 {
        let (baseline, candidate) = self.values(metric);
        candidate - baseline
    }
    /// Whether both models answered it freely.
    pub fn is_answered(&self) -> bool {
        text(&self.baseline, "answer").is_some() && text(&self.candidate, "answer").is_some()
    }
}

/// A named text of a sample.
pub(super) fn text<'a>(sample: &'a Sample, name: &str) -> Option<&'a str> {
    sample.texts.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
}

/// Reads the `report.json` of an artifact.
pub(super) fn read(artifact: &AnyArtifact, port: &str) -> Result<Report, Failure> {
    let path = artifact.file("report.json")?;
    let size = std::fs::metadata(&path).map_err(|error| Failure::io("reading", &path, &error))?.len();
    if size > MAX_BYTES {
        return Err(Failure::input("eval/too-big", format!("the report on `{port}` has {size} bytes")));
    }
    let bytes = std::fs::read(&path).map_err(|error| Failure::io("reading", &path, &error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::input("eval/no-results", format!("`{port}` is no report")).cause(error))
}

/// Pairs samples by row, in the baseline's order.
///
/// # Errors
/// `eval/no-results` if a report has no questions or lacks a figure; `eval/other-questions` if they differ.
pub(super) fn pair(baseline: Report, candidate: Report) -> Result<Vec<Pair>, Failure> {
    let mut by_row = by_row(candidate.samples, "candidate")?;
    let (mut pairs, mut missing) = (Vec::new(), Vec::new());
    let asked = by_row.len();
    for sample in baseline.samples {
        let row = checked(&sample, "baseline")?;
        match by_row.remove(row) {
            Some(candidate) => pairs.push(Pair { baseline: sample, candidate }),
            None => missing.push(row.to_owned()),
        }
    }
    if pairs.is_empty() && missing.is_empty() && asked == 0 {
        return Err(no_results("baseline", "it has no questions"));
    }
    if missing.is_empty() && by_row.is_empty() {
        return Ok(pairs);
    }
    let message = format!(
        "the two results are of different questions: {} only in the baseline, {} only in the candidate, {} in both",
        missing.len(),
        by_row.len(),
        pairs.len()
    );
    Err(Failure::input("eval/other-questions", message).help("give both benchmarks the same data, then compare"))
}

fn by_row(samples: Vec<Sample>, port: &str) -> Result<HashMap<String, Sample>, Failure> {
    let mut by_row = HashMap::with_capacity(samples.len());
    for sample in samples {
        let row = checked(&sample, port)?.to_owned();
        if by_row.insert(row.clone(), sample).is_some() {
            return Err(no_results(port, &format!("it has question {row} twice")));
        }
    }
    Ok(by_row)
}

/// The row of a sample that has all that is compared.
fn checked<'a>(sample: &'a Sample, port: &str) -> Result<&'a str, Failure> {
    let Some(row) = sample.row.as_deref() else { return Err(no_results(port, "a sample names no row")) };
    match METRICS.iter().find(|metric| !sample.metrics.get(**metric).is_some_and(|value| value.is_finite())) {
        Some(metric) => Err(no_results(port, &format!("question {row} has no `{metric}`"))),
        None => Ok(row),
    }
}

fn no_results(port: &str, why: &str) -> Failure {
    Failure::input("eval/no-results", format!("`{port}` holds no results of a benchmark: {why}"))
        .help("give it the `results` of an `eval.benchmark`")
}
