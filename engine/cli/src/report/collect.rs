//! Gathers what a report tells from lineage, the store and the logs.
//!
//! Must not know: what is told of it, or how.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Seek, SeekFrom},
};

use llmflow_contract::{Failure, Series, StageId};
use llmflow_runtime::{
    event::{Event, RunId, What},
    home::Home,
    lineage::{Curve, Lineage, OutputRow, StageRow},
    store::{KeyRecord, Store},
};

use super::data::{InputData, MachineData, OutputData, ReportData, SourceData, StageData, Status};
use crate::render::{asked::Asked, format::clean};

/// Lines of a failed stage's log that are kept, and the bytes they are looked for in.
const LOG_LINES: usize = 20;
const LOG_BYTES: u64 = 64 << 10;

/// Gathers one run.
///
/// What the store no longer has is left out: a report of an old run still says what lineage knows.
///
/// # Errors
/// `lineage/run` for a run that does not exist; those of the database and of the disk.
pub async fn collect(lineage: &Lineage, store: &Store, home: &Home, run: &RunId) -> Result<ReportData, Failure> {
    let row = lineage.run(run).await?;
    let source = lineage.pipeline_of(run).await?;
    let events = Happened::of(lineage.events(run).await?);
    let (mut stages, mut made_by) = (Vec::new(), MadeBy::default());
    let not_started = lineage.not_started(run).await?;
    for mut stage in lineage.stages_of_run(run).await? {
        if not_started.contains(&stage.stage) {
            stage.status = Status::NotStarted.name().to_owned();
        }
        stages.push(collect_stage(lineage, store, home, run, &events, &mut made_by, stage).await?);
    }
    Ok(ReportData {
        run: run.to_string(),
        pipeline: row.pipeline,
        status: row.status,
        started_ms: row.started_ms,
        seconds: row.seconds,
        changed: row.changed,
        stages,
        published: events.published,
        source: SourceData {
            asked: Asked::recorded(&source),
            path: source.path,
            text: source.text,
            params: source.params,
        },
        machine: MachineData {
            compute: events.compute,
            home: home.root().to_owned(),
            names: made_by.machines.into_iter().collect(),
            versions: made_by.versions.into_iter().collect(),
        },
    })
}

/// Who made the results.
#[derive(Default)]
struct MadeBy {
    machines: BTreeSet<String>,
    versions: BTreeSet<String>,
}

/// What the events alone tell.
#[derive(Default)]
struct Happened {
    compute: llmflow_runtime::event::Compute,
    refused: BTreeMap<StageId, (String, String)>,
    skipped: BTreeMap<StageId, String>,
    published: Vec<std::path::PathBuf>,
}

impl Happened {
    fn of(events: Vec<Event>) -> Self {
        let mut happened = Self::default();
        for Event { stage, what, .. } in events {
            match (stage, what) {
                (_, What::RunStarted { compute, .. }) => happened.compute = compute,
                (Some(stage), What::Refused { expression, why }) => {
                    happened.refused.insert(stage, (expression, why));
                }
                (Some(stage), What::Skipped { because }) => {
                    happened.skipped.insert(stage, because);
                }
                (_, What::Published { path, .. }) => happened.published.push(path),
                _ => {}
            }
        }
        happened
    }
}

async fn collect_stage(
    lineage: &Lineage,
    store: &Store,
    home: &Home,
    run: &RunId,
    events: &Happened,
    made_by: &mut MadeBy,
    row: StageRow,
) -> Result<StageData, Failure> {
    let record = match &row.key {
        Some(key) => store.key_record(key).await?,
        None => None,
    };
    let report = match &record {
        Some(record) => store.report(record).await?,
        None => None,
    };
    if let Some(record) = &record {
        made_by.machines.insert(record.machine.clone());
        made_by.versions.insert(record.version.clone());
    }
    let mut outputs = Vec::with_capacity(row.outputs.len());
    for output in &row.outputs {
        outputs.push(collect_output(store, record.as_ref(), output).await?);
    }
    let status = Status::from_name(&row.status);
    let log = if status == Status::Failed { log_of(home, run, &row) } else { Vec::new() };
    let inputs = row.inputs.iter().map(|input| InputData {
        port: input.port.clone(),
        label: input.label.clone(),
        from_stage: input.from_stage.clone(),
        from_port: input.from_port.clone(),
        digest: input.digest,
    });
    Ok(StageData {
        series: series_of(lineage, run, &row).await?,
        refused: events.refused.get(&row.stage).cloned(),
        skipped_because: events.skipped.get(&row.stage).cloned(),
        needs: row.needs,
        inputs: inputs.collect(),
        outputs,
        settings: record.iter().flat_map(settings).collect(),
        report,
        log,
        stage: row.stage,
        operator: row.operator,
        version: row.version,
        status,
        key: row.key,
        seconds: row.seconds,
        summary: row.summary,
        attempts: row.attempts,
        failure: row.failure,
        metrics: row.metrics,
    })
}

/// The parts of a key that are neither operator nor inputs; a param without its `with.`.
fn settings(record: &KeyRecord) -> Vec<(String, String)> {
    let parts = record.components.iter().filter(|part| part.part != "operator" && !part.part.starts_with("in."));
    parts.map(|part| (part.part.trim_start_matches("with.").to_owned(), shown(&part.value))).collect()
}

/// A key's value for people: a digest in eight digits, a long list cut.
fn shown(value: &str) -> String {
    const MOST: usize = 120;
    let short = |word: &str| match word.parse::<llmflow_contract::Digest>() {
        Ok(digest) => digest.short(),
        Err(_) => word.to_owned(),
    };
    let text = value.split(' ').map(short).collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

async fn collect_output(store: &Store, record: Option<&KeyRecord>, row: &OutputRow) -> Result<OutputData, Failure> {
    // A record that stands vouches for its manifests; of an output without one only its name is known.
    let size_bytes = match (&row.digest, record) {
        (Some(digest), Some(_)) => Some(store.manifest(digest).await?.size_bytes()),
        _ => None,
    };
    let facts = record.and_then(|record| record.facts.get(&row.port)).map(|(_, facts)| facts.clone());
    Ok(OutputData {
        port: row.port.clone(),
        kind: row.kind.clone(),
        digest: row.digest,
        facts: facts.unwrap_or_default(),
        size_bytes,
    })
}

/// A stage's curves.
async fn series_of(lineage: &Lineage, run: &RunId, row: &StageRow) -> Result<Vec<Series>, Failure> {
    let curves = lineage.curves(run, row).await?;
    let series = |Curve { name, points }: Curve| {
        let points = points.into_iter().map(|(step, value)| (step as f64, value)).collect();
        Series { y_label: name.clone(), name, x_label: "step".to_owned(), points }
    };
    Ok(curves.into_iter().map(series).collect())
}

/// The end of what a failed stage's worker printed; a log that cannot be read is left out.
fn log_of(home: &Home, run: &RunId, row: &StageRow) -> Vec<String> {
    let path = home.log(run, row.stage.as_str(), row.attempts.max(1));
    let Ok(mut file) = std::fs::File::open(path) else { return Vec::new() };
    let mut bytes = Vec::new();
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let tail = file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)));
    if tail.and_then(|_| file.take(LOG_BYTES).read_to_end(&mut bytes)).is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<String> = text.lines().map(clean).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].to_vec()
}

#[cfg(test)]
mod tests {
    use llmflow_contract::{Class, Digest, Kind, Port};
    use llmflow_runtime::{
        event::{Finished, RunStatus},
        lineage::{Note, PipelineRow, PlannedRow},
        plan::{PlanView, StageView},
    };

    use super::*;
    use crate::render::fixture;

    fn view(stage: &str, needs: &[&str]) -> StageView {
        StageView { operator: "train.sft".into(), ..fixture::view(stage, needs) }
    }

    async fn start(lineage: &Lineage, run: &RunId, stages: &[StageView]) {
        let file = PipelineRow {
            path: "/tmp/p.yaml".into(),
            name: "p".into(),
            text: "name: p".into(),
            overrides: Default::default(),
            params: BTreeMap::new(),
            resumes: None,
            locks: Default::default(),
            selection: Default::default(),
            store: None,
        };
        let outputs = || vec![(Port::from("adapter"), Kind::new("adapter"))];
        let planned = stages.iter().map(|view| PlannedRow {
            view,
            components: None,
            outgrown: None,
            inputs: Vec::new(),
            outputs: outputs(),
        });
        lineage.start_run(run, &file, &planned.collect::<Vec<_>>()).await.unwrap();
        let started = What::RunStarted {
            pipeline: "p".into(),
            plan: PlanView { stages: stages.to_vec() },
            compute: Default::default(),
            home: "/tmp".into(),
            disk_free_bytes: None,
        };
        tell(lineage, run, None, started).await;
    }

    async fn tell(lineage: &Lineage, run: &RunId, stage: Option<&str>, what: What) {
        let event = Event { at_ms: 1, run: run.clone(), stage: stage.map(StageId::from), what };
        lineage.write(&[Note::Event(event)]).await.unwrap();
    }

    fn gave() -> Finished {
        let outputs = [(Port::from("adapter"), Digest::of(b"weights"))].into();
        Finished {
            key: Some(Digest::of(b"key")),
            outputs,
            metrics: [("loss".to_owned(), 1.0)].into(),
            ..Finished::default()
        }
    }

    #[tokio::test]
    async fn what_happened_is_told_even_where_the_store_has_nothing_left() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(&folder.path().join(".llmflow")), folder.path()).unwrap();
        let (lineage, store) = (Lineage::open(&home).await.unwrap(), Store::open_local(&home.store()).unwrap());
        let (first, second) = (RunId("first".into()), RunId("second".into()));

        start(&lineage, &first, &[view("sft", &[])]).await;
        for (step, value) in [(1, 3.0), (2, 1.0)] {
            let point = What::Metric { name: "loss".into(), value, step: Some(step), reproducible: true };
            tell(&lineage, &first, Some("sft"), point).await;
        }
        tell(&lineage, &first, Some("sft"), What::Finished(gave())).await;

        start(&lineage, &second, &[view("sft", &[]), view("dpo", &["sft"]), view("gguf", &["dpo"])]).await;
        tell(&lineage, &second, Some("sft"), What::Cached(gave())).await;
        let failure = Failure::new(Class::Memory, "train/memory", "out of memory");
        tell(&lineage, &second, Some("dpo"), What::Started { attempt: 1 }).await;
        tell(&lineage, &second, Some("dpo"), What::Failed { failure: failure.clone(), retry_in_ms: None }).await;
        tell(&lineage, &second, Some("gguf"), What::Skipped { because: "`dpo` failed".into() }).await;
        let log = home.log(&second, "dpo", 1);
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, (0..30).map(|line| format!("line {line}\u{1b}\n")).collect::<String>()).unwrap();
        tell(&lineage, &second, None, What::RunFinished { status: RunStatus::Failed, seconds: 2.0 }).await;

        let data = collect(&lineage, &store, &home, &second).await.unwrap();
        let [sft, dpo, gguf] = data.stages.as_slice() else { panic!("three stages") };
        assert_eq!(
            (data.status, sft.status, dpo.status, gguf.status),
            (RunStatus::Failed, Status::Cached, Status::Failed, Status::Skipped)
        );
        assert_eq!(sft.series[0].points, [(1.0, 3.0), (2.0, 1.0)], "the curve of the run that made it");
        assert_eq!((sft.report.clone(), sft.outputs[0].digest), (None, Some(Digest::of(b"weights"))));
        assert_eq!((dpo.failure.clone(), dpo.needs.clone()), (Some(failure), vec![StageId::from("sft")]));
        assert_eq!((dpo.log.len(), dpo.log.last().unwrap().trim_end()), (20, "line 29"));
        assert_eq!(gguf.skipped_because.as_deref(), Some("`dpo` failed"));
        assert!(collect(&lineage, &store, &home, &RunId("none".into())).await.is_err());
    }

    #[test]
    fn a_digest_in_a_setting_is_short_and_a_long_value_is_cut() {
        let digest = Digest::of(b"x");
        assert_eq!(shown(&format!("a.md {digest}")), format!("a.md {}", digest.short()));
        assert_eq!(shown(&"x".repeat(200)).chars().count(), 121);
    }
}
